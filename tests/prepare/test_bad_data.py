"""Bad input ends in one clear message, and what is finished stays."""

from __future__ import annotations

import dataclasses
import errno
import os
import pickle
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest
from prepared_helpers import (
    NUM_CLIPS,
    arguments,
    clip_folder,
    clips_of,
    files,
    manifest_of,
    record_of,
    release,
    run,
)

from mexjax.prepare import shards
from mexjax.prepare.layouts import Layout

VICTIM = 3  # row that is damaged; with two clips a shard it lies in the second of three
SHARDS = [f"casme-0000{i}" for i in range(3)]


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    return release("casme", tmp_path_factory.mktemp("intact") / "casme")


@pytest.fixture(scope="module")
def prepared(intact, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    assert run(*arguments("casme", intact, out)) == 0
    return out


@pytest.fixture
def own(intact, tmp_path):
    """A copy of the release that a test may damage."""
    root = tmp_path / "own" / "casme"
    shutil.copytree(intact.root, root)
    return Layout(
        root, root / intact.spreadsheet.name, intact.expected, root / intact.landmarks.name
    )


@pytest.fixture
def out(prepared, tmp_path):
    """A copy of what was prepared from the intact release."""
    folder = tmp_path / "out"
    shutil.copytree(prepared, folder)
    return folder


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused with one message, and give that message."""

    def go(*given):
        assert run(*given) == 2
        said = capsys.readouterr()
        assert said.err.startswith("Error: ") and said.err.count("Error:") == 1
        assert "Traceback" not in said.err
        return " ".join(said.err.split())

    return go


@pytest.fixture
def lost(own, out, capsys):
    """Prepare again, lose the victim alone, and give the one line that says why.

    The shards of the other clips must not even be touched, and the victim's neighbour must be
    stored as before; with the original back, everything must be there again.
    """

    def go(*given):
        row = own.expected.iloc[VICTIM]
        name = f"{row['subject']}/{row['clip']}"
        before, table = files(out), manifest_of(out).drop(columns="sha256")
        assert run(*arguments("casme", own, out, *given)) == 1
        assert name in capsys.readouterr().out
        after = files(out)
        for shard in (SHARDS[0], SHARDS[2]):
            for name_of_file in (f"{shard}.arrayrecord", f"{shard}.json"):
                assert after[name_of_file] == before[name_of_file]
        left = manifest_of(out).drop(columns="sha256")
        kept = ["dataset", "subject", "clip", "num_stored", "shard"]
        pd.testing.assert_frame_equal(
            left[kept], table[kept].drop(index=VICTIM).reset_index(drop=True)
        )
        assert len(clips_of(out)) == NUM_CLIPS - 1
        (failure,) = record_of(out)["failed"]
        assert failure["id"] == name and "\n" not in failure["problem"]
        return failure["problem"]

    return go


def frame_of(layout: Layout) -> Path:
    """The file of a frame of the victim that is no key frame."""
    row = layout.expected.iloc[VICTIM]
    return clip_folder(layout, row) / f"{row['clip']}-{row['onset'] + 2:03d}.jpg"


def edit(layout: Layout, change) -> None:
    """Change cells of the spreadsheet in place: `change(sheet, {header: column number})`."""
    book = openpyxl.load_workbook(layout.spreadsheet)
    sheet = book.active
    columns = {cell.value: cell.column for cell in sheet[1] if cell.value}
    change(sheet, columns)
    book.save(layout.spreadsheet)


def found_by_itself(layout: Layout, out: Path) -> list[str]:
    """The command line without the name of the spreadsheet."""
    given = arguments("casme", layout, out)
    return [text for text in given if not text.startswith("--spreadsheet")]


def test_a_root_that_is_not_there(intact, out, refused, tmp_path):
    (tmp_path / "file").write_text("x")
    before = files(out)
    for name in ("nowhere", "file"):
        moved = dataclasses.replace(intact, root=tmp_path / name)
        said = refused(*arguments("casme", moved, out))
        assert str(tmp_path / name) in said and "folder" in said and "--root" in said
    assert files(out) == before


def test_a_root_of_another_dataset(refused, tmp_path):
    root = tmp_path / "releases" / "smic"
    release("smic", root, resolution_px=32)
    new = tmp_path / "new"
    said = refused("--dataset=casme", f"--root={root}", f"--out={new}", "--faces=precropped")
    assert "No spreadsheet of CASME" in said and "smic.xlsx" in said
    assert "OnsetF" in said and "--spreadsheet" in said
    assert not new.exists()


def test_a_missing_spreadsheet(own, out, refused):
    before = files(out)
    own.spreadsheet.unlink()
    said = refused(*found_by_itself(own, out))
    assert f"No spreadsheet of CASME in {own.root}" in said and "casme" in said
    assert "--spreadsheet" in said
    said = refused(*arguments("casme", own, out))
    assert f"There is no spreadsheet {own.spreadsheet}" in said
    assert files(out) == before


def test_a_renamed_spreadsheet_is_known_by_its_columns(own, out, refused, capsys):
    before = files(out)
    renamed = own.spreadsheet.rename(own.root / "my labels (2).xlsx")
    assert run(*found_by_itself(own, out)) == 0
    capsys.readouterr()
    assert files(out) == before
    assert any(renamed.name in line for line in record_of(out)["problems"])
    # Two that fit cannot be told apart.
    shutil.copy(renamed, own.root / "labels of a friend.xlsx")
    said = refused(*found_by_itself(own, out))
    assert "my labels (2).xlsx" in said and "labels of a friend.xlsx" in said
    assert "--spreadsheet" in said and files(out) == before


def test_a_missing_column(own, out, refused):
    before = files(out)
    edit(own, lambda sheet, columns: sheet.delete_cols(columns["OffsetF"]))
    said = refused(*arguments("casme", own, out))
    assert "offset (OffsetF" in said and own.spreadsheet.name in said
    assert "OnsetF" in said and "ApexF1" in said  # what is there
    assert files(out) == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"hello"])
def test_a_damaged_spreadsheet(content, own, out, refused):
    before = files(out)
    own.spreadsheet.write_bytes(content)
    said = refused(*arguments("casme", own, out))
    assert f"Cannot read the spreadsheet {own.spreadsheet}" in said
    assert files(out) == before


def test_a_row_whose_folder_is_absent(own, out, tmp_path):
    row = own.expected.iloc[VICTIM]
    shutil.rmtree(clip_folder(own, row))
    new = tmp_path / "new"
    assert run(*arguments("casme", own, new)) == 1
    (failure,) = record_of(new)["failed"]
    assert row["clip"] in failure["problem"] and "frames" in failure["problem"]
    assert len(manifest_of(new)) == NUM_CLIPS - 1
    # What was prepared before is kept, and it is said that its frames are gone.
    before = files(out)
    assert run(*arguments("casme", own, out)) == 0
    assert files(out) == before and len(manifest_of(out)) == NUM_CLIPS
    assert any(row["clip"] in line for line in record_of(out)["problems"])


def test_a_row_for_a_clip_that_never_was(own, out, capsys):
    def add(sheet, columns):
        values = {"Subject": 7, "Filename": "EP09_9", "OnsetF": 1, "ApexF1": 4, "OffsetF": 9}
        at = sheet.max_row + 1
        for header, value in (values | {"AU": "4", "Emotion": "disgust"}).items():
            sheet.cell(at, columns[header], value)

    edit(own, add)
    before = files(out)
    assert run(*arguments("casme", own, out)) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "casme/07/EP09_9" in said
    assert before.items() <= files(out).items()
    assert len(manifest_of(out)) == NUM_CLIPS
    assert any("EP09_9" in line and "sub07/EP09_9" in line for line in record_of(out)["problems"])


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def huge(_: bytes) -> bytes:
    png = bytearray(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes())
    struct.pack_into(">II", png, 16, 50_000, 50_000)
    struct.pack_into(">I", png, 29, zlib.crc32(png[12:29]))
    return bytes(png)


def other_size(data: bytes) -> bytes:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", image[:-4])[1].tobytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cut off"),
        (lambda _: b"", "empty"),
        (lambda _: b"GIF89a" + bytes(40), "JPEG, PNG or BMP"),
        (huge, "50000 x 50000"),
        (other_size, "64x60"),
        (lambda _: pickle.dumps({"a": 1}), "JPEG, PNG or BMP"),
    ],
    ids=["truncated", "zero bytes", "gif", "50,000 px", "other size", "pickle"],
)
def test_a_damaged_frame(damage, words, own, out, lost, capsys):
    path = frame_of(own)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    problem = lost()
    assert path.name in problem and words in problem
    path.write_bytes(whole)
    capsys.readouterr()
    assert run(*arguments("casme", own, out)) == 0
    assert len(manifest_of(out)) == NUM_CLIPS


def test_a_video_that_ends_early(tmp_path, capsys):
    root = tmp_path / "mine"
    rng = np.random.default_rng(0)
    for emotion, name in (("happiness", "whole"), ("surprise", "cut"), ("surprise", "whole2")):
        (root / emotion).mkdir(parents=True, exist_ok=True)
        path = root / emotion / f"{name}.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 50.0, (64, 48))
        for _ in range(20):
            writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
        writer.release()
        if name == "cut":
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])  # the header still says 20
    out = tmp_path / "out"
    given = ["--dataset=folder", f"--root={root}", f"--out={out}", "--faces=precropped"]
    assert run(*given, "--size_px=32") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "cut.avi states 20 frames and holds 9 that can be decoded" in text
    assert "If the file was cut off, copy it again" in text
    assert sorted(manifest_of(out)["num_stored"]) == [9, 20, 20]


def change_frames(layout: Layout, index: int, change) -> None:
    """Change the pictures of a clip."""
    for path in clip_folder(layout, layout.expected.iloc[index]).glob("*.jpg"):
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        path.write_bytes(cv2.imencode(".jpg", change(image))[1].tobytes())


def test_no_face_and_two_faces(own, tmp_path, capsys):
    change_frames(own, 1, lambda image: np.full_like(image, 120))
    change_frames(own, 4, lambda image: np.concatenate([image, image[:, ::-1]], axis=1))
    folder = tmp_path / "by_cascade"
    assert run(*arguments("casme", own, folder, "--faces=cascade")) == 1
    failed = record_of(folder)["failed"]
    for failure, index, words in zip(
        failed, (1, 4), ("no face was found", "2 faces were found"), strict=True
    ):
        row = own.expected.iloc[index]
        assert failure["id"] == f"{row['subject']}/{row['clip']}"
        assert words in failure["problem"] and f"frame {row['onset']}" in failure["problem"]
        assert "--landmarks" in failure["problem"]
    table = manifest_of(folder)
    assert len(table) == NUM_CLIPS - 2 and set(table["landmark_source"]) == {"cascade"}
    assert "NOT prepared: 2 clip" in capsys.readouterr().out


def test_landmarks_outside_of_the_image(own, tmp_path):
    table = pd.read_csv(own.landmarks, dtype={"clip": str})
    row = own.expected.iloc[VICTIM]
    is_clip = table["clip"] == f"{row['subject']}/{row['clip']}"
    table.loc[is_clip, [f"x{i}" for i in range(68)]] += 40
    table.to_csv(own.landmarks, index=False)
    folder = tmp_path / "out"
    assert run(*arguments("casme", own, folder)) == 1
    (failure,) = record_of(folder)["failed"]
    assert row["clip"] in failure["problem"]
    assert "outside the image of 64x64 px" in failure["problem"]
    assert len(manifest_of(folder)) == NUM_CLIPS - 1


def test_a_full_disk_keeps_the_finished_shards(intact, tmp_path, refused, monkeypatch):
    folder = tmp_path / "out"
    writer = shards.ArrayRecordWriter

    def full(path, options):
        if SHARDS[1] in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return writer(path, options)

    monkeypatch.setattr(shards, "ArrayRecordWriter", full)
    said = refused(*arguments("casme", intact, folder))
    assert f"Cannot write to {folder}: No space left on device" in said
    assert "Free space" in said and "--out" in said
    finished = files(folder)
    assert set(finished) == {f"{SHARDS[0]}.arrayrecord", f"{SHARDS[0]}.json"}
    monkeypatch.undo()
    assert run(*arguments("casme", intact, folder)) == 0
    assert finished.items() <= files(folder).items()
    assert len(manifest_of(folder)) == NUM_CLIPS


def test_a_disk_that_fills_at_the_manifest(intact, tmp_path, refused, monkeypatch):
    folder = tmp_path / "out"
    replace = os.replace

    def full(source, target):
        if Path(target).name == "manifest.parquet":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    said = refused(*arguments("casme", intact, folder))
    assert "No space left on device" in said and "Free space" in said
    finished = files(folder)
    assert len(finished) == 2 * len(SHARDS) and not (folder / "manifest.parquet").exists()
    assert not list(folder.rglob(".*.tmp"))
    monkeypatch.undo()
    assert run(*arguments("casme", intact, folder)) == 0
    assert files(folder) == finished and len(manifest_of(folder)) == NUM_CLIPS


def test_paths_with_blanks_and_letters_of_other_scripts(tmp_path):
    home = tmp_path / "Ünser 'Ordner' 表情 (50%)"
    layout = release("casme", home / "CASME kopie é", resolution_px=32)
    folder = home / "préparé 準備"
    assert run(*arguments("casme", layout, folder)) == 0
    assert len(manifest_of(folder)) == NUM_CLIPS == len(clips_of(folder))
    table = manifest_of(folder)
    assert (table["num_stored"] == table["n_frames"] - table["num_missing_frames"]).all()


@pytest.mark.parametrize("place", ["", "frames", "preparation.json"])
def test_an_output_that_cannot_be_written(place, intact, tmp_path, refused):
    """Permissions do not bind an administrator, so something else stands in the way."""
    folder = tmp_path / "out"
    if place == "preparation.json":
        (folder / place).mkdir(parents=True)
    else:
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text("precious")
    said = refused(*arguments("casme", intact, folder))
    assert "Cannot write" in said and str(folder) in said and "--out" in said
    if place != "preparation.json":
        assert (folder / place).read_text() == "precious"


@pytest.mark.parametrize("header", ["Subject", "Filename"])
@pytest.mark.parametrize("cell", ["../../", "..", "/etc", "a/../../b", "C:\\secrets", "a\\b"])
def test_a_cell_that_leads_out_of_the_release(cell, header, own, out, refused):
    before = files(out)
    edit(own, lambda sheet, columns: sheet.cell(VICTIM + 2, columns[header], cell))
    said = refused(*arguments("casme", own, out))
    assert f"Row {VICTIM + 2} of the spreadsheet" in said and repr(cell) in said
    assert "lead out of the dataset" in said
    assert files(out) == before


def test_a_link_that_leads_out_of_the_release(own, out, refused, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    folder = clip_folder(own, own.expected.iloc[VICTIM])
    shutil.move(folder, elsewhere)
    folder.symlink_to(elsewhere)
    before = files(out)
    said = refused(*arguments("casme", own, out))
    assert "is a link to" in said and str(elsewhere) in said
    assert files(out) == before


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_is_never_unpickled(intact, own, out, refused, tmp_path):
    mark = tmp_path / "exploded"
    given = arguments("casme", intact, tmp_path / "new", "--faces=landmarks")
    before = files(out)
    array, bare = tmp_path / "landmarks.npy", tmp_path / "landmarks.pkl"
    np.save(array, np.array([Bomb(mark)], object), allow_pickle=True)
    bare.write_bytes(pickle.dumps(Bomb(mark)))
    for path in (array, bare):
        said = refused(*given, f"--landmarks={path}")
        assert path.name in said and "CSV" in said
    for name in ("casme.xlsx", "casme.xls", "casme.csv"):
        path = tmp_path / name
        path.write_bytes(bare.read_bytes())
        said = refused(*found_by_itself(own, out), f"--spreadsheet={path}")
        assert name in said
    (out / "manifest.parquet").write_bytes(bare.read_bytes())
    assert run(*arguments("casme", intact, out)) == 0  # made anew
    assert files(out) == before and len(manifest_of(out)) == NUM_CLIPS
    assert not mark.exists()
    pickle.loads(bare.read_bytes())  # the bomb is a real one
    assert mark.exists()

"""No clip, row or unit is lost without a line on the terminal."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from prepared_helpers import manifest_of, run
from small import small_config
from source_helpers import found, read, write_frames, write_sheet

from mexjax.data import loading
from mexjax.data.dataset import Takes
from mexjax.errors import DataError
from mexjax.prepare.sources.losses import Loss, loss_lines
from mexjax.prepare.videos import open_video

HEADER = ["subject", "clip", "onset", "apex", "offset", "emotion", "au"]


def images(folder: Path, count: int = 8) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    for number in range(1, count + 1):
        data = cv2.imencode(".png", np.roll(image, number, axis=1))[1].tobytes()
        (folder / f"img{number}.png").write_bytes(data)


def prepare(name, root, out, *more):
    return run(f"--dataset={name}", f"--root={root}", f"--out={out}", "--faces=precropped", *more)


@pytest.fixture
def table(tmp_path):
    """A workbook with every kind of loss, and forty remarks in front of them."""
    root = tmp_path / "release"
    rows = [[f"p{i:02}", "c1", 1, 99, 8, "fear", "4"] for i in range(40)]  # an apex outside each
    rows += [
        ["anna", "c1", 1, 4, 8, "fear", "4"],
        ["anna", "c1", 1, 4, 8, "fear", "4"],  # twice
        ["", "c2", 1, 4, 8, "fear", "4"],
        ["#REF!", "c3", 1, 4, 8, "fear", "4"],
        ["bert", "c1", "x", 4, "", "fear", "4"],  # no folder, so its range is unknown
        ["carl", "c1", 1, 4, 8, "fear", "4 or 7"],
        ["dora", "c1", 1, 4, 8, "fear", "4(k)+7(k)+1"],
        ["emil", "c1", 1, 4, 8, "fear", "13?+1"],
        ["gone", "c1", 1, 4, 8, "fear", "1"],  # no frames
    ]
    short = [["subject", "clip", "onset", "offset"], ["fritz", "c1", 1, 8], ["fritz", "c2", 1, 8]]
    write_sheet(root / "table.xlsx", [HEADER, *rows], short, names=["main", "fritz"])
    for subject in (*(f"p{i:02}" for i in range(40)), "anna", "carl", "dora", "emil", "fritz"):
        images(root / subject / "c1")
    return root


LOSSES = (
    "Left out: 3 rows of tables with other columns. For example: table.xlsx: the tables fritz",
    "Left out: 2 rows without a subject or a clip. For example: row 44: no subject",
    "Left out: 1 rows that stand twice. For example: anna/c1 (row 43): this row is the same as"
    " row 42",
    "Left out: 1 rows without a range of frames. For example: bert/c1 (row 46): no onset",
    "Left out: 1 clips whose action units cannot be read. For example: carl/c1 (row 47)",
    "Left out: 2 held action units. For example: 2 held action units are held from the first frame"
    " to the last, so nothing moves: AU4 of dora/c1 (row 48), AU7 of dora/c1 (row 48).",
    "Left out: 1 doubtful action units. For example: 1 doubtful action units count with"
    " protocol.is_unsure_present=True alone: AU13 of emil/c1 (row 49).",
)


def test_every_loss_is_on_the_terminal(table, tmp_path, capsys):
    assert prepare("csv", table, tmp_path / "out") == 1
    text = capsys.readouterr().out
    for line in LOSSES:
        assert line in text
    assert "NOT prepared: 1 clip." in text and "csv/gone/c1" in text
    assert "A44" in text or "hold errors of the spreadsheet program" in text
    assert "more" in text.split("remarks of the readers")[1]  # the others are cut off
    assert len(manifest_of(tmp_path / "out")) == 44
    assert run("--dataset=csv", f"--root={table}", "--check") == 1
    text = capsys.readouterr().out
    for line in LOSSES:
        assert line in text


def test_clips_that_left_the_table(tmp_path, capsys):
    root, out = tmp_path / "release", tmp_path / "out"
    rows = [[name, "c1", 1, 4, 8, "fear", "4"] for name in ("anna", "bert", "carl")]
    for subject, *_ in rows:
        images(root / subject / "c1")
    write_sheet(root / "table.csv", [HEADER, *rows])
    assert prepare("csv", root, out) == 0 and "Left out" not in capsys.readouterr().out
    write_sheet(root / "table.csv", [HEADER, *rows[:2]])
    assert prepare("csv", root, out) == 0
    line = "Left out: 1 clips that were prepared before and are not in the release any more:"
    assert f"{line} csv/carl/c1." in capsys.readouterr().out
    assert len(manifest_of(out)) == 2


def test_losses_of_releases(tmp_path):
    rows = [[n, "anger1_1", 1, 5, 9, "4", "negative", kind] for n, kind in ((1, "micro"), (2, "?"))]
    rows += [[3, "anger1_1", 1, 5, 9, "4", "negative", "macro-expression"]] * 3
    notes = [["who", "said"], ["x", "y"]]
    path = tmp_path / "sq/CAS(ME)^2code_final.xlsx"
    write_sheet(path, rows, notes, names=["code", "notes"])
    lines = loss_lines(read("casme_sq", tmp_path / "sq").problems)
    assert [line.partition(". For")[0] for line in lines] == [
        "Left out: 2 rows of tables with other columns",
        "Left out: 1 rows of no kind of expression",
        "Left out: 3 macro-expressions",
    ]
    for place in ("positive/a", "positive/empty", "happy/b"):
        write_frames(tmp_path / "HS/s1/micro" / place, range(0 if "empty" in place else 9))
    lines = loss_lines(read("smic", tmp_path).problems)
    assert [line.partition(". For")[0] for line in lines] == [
        "Left out: 1 folders that are of no emotion",
        "Left out: 1 empty folders",
    ]


def test_a_second_table_that_cannot_be_read_is_named(tmp_path):
    write_sheet(tmp_path / "a.csv", [HEADER, ["anna", "c1", 1, 4, 8, "fear", "4"]])
    (tmp_path / "b.xlsx").write_bytes(b"PK\x03\x04 cut off")
    (line,) = found(read("csv", tmp_path), "also present, and not read")
    assert "b.xlsx" in line and "Cannot read the spreadsheet" in line


def test_losses_are_lines_like_others():
    line = pickle.loads(pickle.dumps(Loss("row 3: nothing", "rows", 2)))
    assert line == "row 3: nothing" and (line.kind, line.num_lost) == ("rows", 2)
    assert loss_lines(["a", line, line]) == ["Left out: 4 rows. For example: row 3: nothing"]
    assert len(loss_lines([Loss("x" * 10_000)])[0]) < 400


# --- names that are no UTF-8


def test_names_with_bytes_that_are_no_letters(tmp_path):
    root = os.fsencode(tmp_path) + b"/Jos\xe9"
    out = os.fsencode(tmp_path) + b"/out"
    for number, clip in enumerate((b"c\xe9", b"c\xe8", b"plain")):
        images(Path(os.fsdecode(root)) / "fear" / os.fsdecode(clip))
        os.rename(
            os.fsdecode(root + b"/fear/" + clip + b"/img1.png"),
            os.fsdecode(root + b"/fear/" + clip + b"/\xe9%d_img1.png" % number),
        )
    command = [sys.executable, "-m", "mexjax.prepare", "--dataset=folder", "--faces=precropped"]
    places = [b"--root=" + root, b"--out=" + out]
    done = subprocess.run([*command, *places], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "Traceback" not in done.stderr.decode()
    assert "'c\\udce9' is read as c%E9" in text
    table = manifest_of(Path(os.fsdecode(out)))
    assert sorted(table["clip"]) == ["c%E8", "c%E9", "plain"]
    assert sorted(table["frame_folder"]) == ["fear/c%E8", "fear/c%E9", "fear/plain"]
    assert table["num_missing_frames"].tolist() == [0, 0, 0]
    for places, says in (
        ([b"--root=" + root + b"/\xe9", b"--out=" + out], "is not a folder"),
        ([b"--root=" + root, b"--out=" + out + b"\xe9"], "out%E9 has bytes in its name"),
    ):
        done = subprocess.run([*command, *places], capture_output=True, check=False)
        text = done.stderr.decode()
        assert done.returncode == 2 and "Traceback" not in text and says in text


def test_a_video_whose_name_is_no_letters(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.avi"))
    path.write_bytes(b"RIFF\0\0\0\0AVI " + bytes(99))
    with pytest.raises(DataError, match=r"%E9\.avi has bytes in its name"), open_video(path):
        pass


def test_a_table_whose_name_is_no_letters(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xe9.csv"))
    path.write_bytes(b"subject;clip;onset;offset\nJos\xe9;c1;1;9\n")
    reading = read("csv", tmp_path)
    assert reading.table["subject"].tolist() == ["csv/Jos\u00e9"]


@pytest.mark.parametrize("suffix", ["csv", "xlsx", "xls"])
def test_rows_above_the_header_are_told(tmp_path, suffix):
    """A title is a remark; what may be clips is a loss; empty rows are neither."""
    for name in ("c1", "c2"):
        images(tmp_path / "anna" / name)
    clip = ["anna", "c1", 1, 4, 8, "fear", "4"]
    for above, text, num_lost in (
        ([["Lab 3, 2026"], ["", "coded by two people"], []], "2 rows above", 0),
        ([clip], "1 row above the row of headers (row 2) was passed over", 1),
        ([["sorted by mood"], clip, clip], "3 rows above the row of headers (row 4)", 2),
        ([[], [""]], "", 0),
    ):
        rows = [*above, HEADER, ["anna", "c2", 1, 4, 8, "fear", "4"]]
        write_sheet(tmp_path / f"t.{suffix}", rows)
        reading = read("csv", tmp_path)
        assert reading.table["clip"].tolist() == ["c2"]
        lines = found(reading, "above the row of headers")
        assert len(lines) == bool(text), reading.problems
        if text:
            assert text in lines[0] and ("Lab" in lines[0] or num_lost)
            assert getattr(lines[0], "num_lost", 0) == num_lost


def test_named_columns_of_a_workbook_without_headers_are_told(tmp_path):
    rows = [["number", "name", "start", "peak", "end", "AU", "feeling", "what", "emotion"]]
    rows += [[1, "anger1_1", 5, 7, 9, "4", "negative", "micro-expression", "anger"]]
    write_sheet(tmp_path / "CAS(ME)^2code_final.xlsx", rows, names=["CASFEcode_final"])
    reading = read("casme_sq", tmp_path)
    assert len(reading.table) == 1
    assert "row 1 was taken for the names" in found(reading, "names of the columns")[0]


def test_copies_of_one_clip_are_told(tmp_path, capsys):
    """The same file under two emotions and two people; names do not tell it, contents do."""
    root, out = tmp_path / "release", tmp_path / "out"
    for place, shift in (
        ("anna/joy/1", 0),
        ("anna/fear/2", 5),
        ("bob/joy/3", 9),
        ("bob/sad/4", 20),
    ):
        images(root / place)
        for path in (root / place).iterdir():
            image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(path), np.roll(image, shift, axis=0) + np.uint8(shift))
    shutil.copytree(root / "anna/joy/1", root / "anna/fear/copy")
    shutil.copytree(root / "anna/joy/1", root / "bob/joy/1 (2)")
    shutil.copytree(root / "bob/sad/4", root / "bob/sad/again")  # with one label it does no harm
    (root / "anna/fear/copy/img1.png").rename(root / "anna/fear/copy/img0.png")
    assert prepare("folder", root, out, "--size_px=32") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("clips have the same frames") == 1
    assert "3 clips have the same frames: folder/anna/copy (fear)" in said
    assert "Their labels differ" in said and "of several subjects" in said
    table = manifest_of(out)
    notes = dict(zip(table["clip"], table["notes"], strict=True))
    assert "same frames as folder/bob/again" in notes["4"] and "same frames" not in notes["2"]
    # Training says it before it begins, and the report has it.
    config = small_config(data__name="prepared", data__root=str(out), protocol__classes="own")
    takes = Takes(model="a model", views=("uniform",), tasks=("emotion", "au"))
    (notice,) = loading.load(config, takes).notices[:1]
    assert "3 clips have the same frames" in notice
    # The same command again does not forget it.
    assert prepare("folder", root, out, "--size_px=32") == 0
    assert "3 clips have the same frames" in " ".join(capsys.readouterr().out.split())


def test_clips_that_no_row_names_are_told(tmp_path):
    for place in ("anna/c1", "anna/c2", "bob/c1", "@eaDir/c1", "bob/notes"):
        images(tmp_path / place)
    for path in (tmp_path / "bob/notes").iterdir():
        path.rename(path.with_suffix(".txt"))
    write_sheet(tmp_path / "t.csv", [["subject", "clip"], ["anna", "c1"]])
    (line,) = found(read("csv", tmp_path), "in no row of")
    assert "2 clips below" in line and "anna/c2, bob/c1." in line and line.num_lost == 2
    write_sheet(tmp_path / "t.csv", [["subject", "path"], ["anna", "anna"], ["bob", "bob/c1"]])
    (line,) = found(read("csv", tmp_path), "in no row of")
    assert "2 clips" in line and "anna/c1" in line  # the folder anna itself holds no images


def test_a_loss_is_one_line_whatever_the_name(tmp_path):
    images(tmp_path / "joy/a")
    images(tmp_path / "joy/deep\n\x1b[31m/er/b")
    (line,) = loss_lines(
        read(
            "folder",
            tmp_path,
        ).problems
    )[:1]
    assert "deep" in line and line.isprintable()

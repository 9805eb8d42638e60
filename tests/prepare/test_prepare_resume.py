"""Preparation that is stopped, starved or given damaged files goes on from what is whole."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pandas as pd
import pytest
from prepared_helpers import (
    NUM_CLIPS,
    arguments,
    clip_folder,
    clips_of,
    copy_of,
    files,
    first_image,
    manifest_of,
    record_of,
    release,
    run,
)
from small import ROOT

from mexjax.files import sealed
from mexjax.prepare import pipeline, shards


@pytest.fixture(scope="module")
def casme2(tmp_path_factory):
    return release("casme2", tmp_path_factory.mktemp("casme2"))


@pytest.fixture(scope="module")
def prepared(casme2, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    assert run(*arguments("casme2", casme2, out)) == 0
    return out


@pytest.fixture
def own_release(casme2, tmp_path):
    """A copy that a test may damage."""
    return copy_of(casme2, tmp_path / "release")


def test_a_finished_preparation_is_not_done_again(casme2, prepared, capsys):
    before, table = files(prepared), manifest_of(prepared)
    assert run(*arguments("casme2", casme2, prepared)) == 0
    assert files(prepared) == before
    assert "frames made now: 0, shards finished before: 3" in capsys.readouterr().out
    pd.testing.assert_frame_equal(manifest_of(prepared), table)


def test_the_contact_sheet_is_drawn_once(casme2, prepared, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(prepared, out)
    drawn = []
    draw = pipeline.contact_sheet

    def counted(*given, **more):
        drawn.append(given)
        return draw(*given, **more)

    monkeypatch.setattr(pipeline, "contact_sheet", counted)
    sheet = out / "contact_sheet.png"
    picture = sheet.read_bytes()
    assert run(*arguments("casme2", casme2, out)) == 0
    assert not drawn and sheet.read_bytes() == picture
    sheet.unlink()
    assert run(*arguments("casme2", casme2, out)) == 0
    assert len(drawn) == 1 and sheet.read_bytes() == picture
    # Another annotation is another picture.
    table = pd.read_parquet(out / "manifest.parquet")
    table.loc[0, "apex"] += 1
    table.to_parquet(out / "manifest.parquet")
    assert run(*arguments("casme2", casme2, out)) == 0
    assert len(drawn) == 2


@pytest.mark.parametrize("harm", ["flip", "cut", "no index", "bad index", "no shard"])
def test_a_damaged_shard_alone_is_made_again(harm, casme2, prepared, tmp_path, capsys):
    out = tmp_path / "copy"
    shutil.copytree(prepared, out)
    shard, index = (out / "frames" / f"casme2-00001{end}" for end in (".arrayrecord", ".json"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    changes = {
        "flip": lambda: shard.write_bytes(data),
        "cut": lambda: shard.write_bytes(data[:1000]),
        "no index": index.unlink,
        "bad index": lambda: index.write_text("[1]"),
        "no shard": shard.unlink,
    }
    changes[harm]()
    # What a killed process left, and a file of a time with more clips.
    (out / "frames" / ".casme2-00002.arrayrecord.999999999.tmp").write_bytes(b"half")
    shutil.copy(out / "frames" / "casme2-00002.arrayrecord", out / "frames" / "x-0.arrayrecord")
    before = files(out)
    assert run(*arguments("casme2", casme2, out)) == 0
    after = files(out)
    assert {name for name in after if after[name] != before.get(name)} == {shard.name, index.name}
    assert len(after) == NUM_CLIPS
    assert manifest_of(out)["sha256"].tolist() == manifest_of(prepared)["sha256"].tolist()
    if harm in ("flip", "cut"):
        assert "casme2-00001.arrayrecord is made again: it is damaged" in capsys.readouterr().out


def test_other_parameters_are_refused(casme2, prepared, capsys):
    before = files(prepared)
    assert run(*arguments("casme2", casme2, prepared, "--size_px=64")) == 2
    said = capsys.readouterr().err
    assert "size_px is 48 there and 64 now" in said and f"--out={prepared}_2" in said.replace(
        "\n", ""
    )
    assert run(*arguments("casme2", casme2, prepared, "--faces=precropped")) == 2
    said = capsys.readouterr().err
    assert "faces is 'landmarks' there and 'precropped' now" in said
    assert files(prepared) == before


def test_other_landmarks_are_refused_in_words(own_release, prepared, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(prepared, out)
    path = own_release.landmarks
    path.write_text(path.read_text() + "\n")
    before = files(out)
    assert run(*arguments("casme2", own_release, out)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the content of --landmarks by which faces are found has changed" in said
    assert files(out) == before


def test_a_damaged_clip_does_not_lose_the_others(own_release, tmp_path, capsys):
    out = tmp_path / "out"
    row = own_release.expected.iloc[2]
    name = f"{row['subject']}/{row['clip']}"
    frame = sorted(clip_folder(own_release, row).iterdir())[3]
    whole = frame.read_bytes()
    frame.write_bytes(whole[: len(whole) // 2])
    assert run(*arguments("casme2", own_release, out)) == 1
    said = capsys.readouterr().out
    assert "NOT prepared: 1 clip." in said and name in said and frame.name in said
    table = manifest_of(out)
    assert len(table) == NUM_CLIPS - 1
    assert row["clip"] not in table["clip"][table["subject"] == row["subject"]].tolist()
    (failed,) = record_of(out)["failed"]
    assert failed["id"] == name and frame.name in failed["problem"]
    assert name in (out / "summary.md").read_text()
    assert len(clips_of(out)) == NUM_CLIPS - 1
    # Repaired, only its shard is made again.
    frame.write_bytes(whole)
    before = files(out)
    assert run(*arguments("casme2", own_release, out)) == 0
    after = files(out)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"casme2-00001.arrayrecord", "casme2-00001.json"}
    assert len(manifest_of(out)) == NUM_CLIPS and not record_of(out)["failed"]


def test_a_release_that_is_put_away_costs_nothing(own_release, prepared, tmp_path, capsys):
    """A disk that is not mounted: the spreadsheet is there, the frames are not."""
    out, empty = tmp_path / "out", tmp_path / "empty"
    shutil.copytree(prepared, out)
    empty.mkdir()
    before, table = files(out), manifest_of(out)
    words = arguments("casme2", own_release, out)
    words[1] = f"--root={empty}"
    assert run(*words) == 0
    assert files(out) == before
    columns = ["sha256", "frame_folder", "num_missing_frames"]
    pd.testing.assert_frame_equal(manifest_of(out)[columns], table[columns])
    assert (out / "contact_sheet.png").is_file()
    assert "shards finished before: 3" in capsys.readouterr().out


def test_a_deleted_frame_is_a_missing_one(own_release, prepared, tmp_path):
    """Also: changed input makes its shard anew, and no other."""
    out = tmp_path / "out"
    shutil.copytree(prepared, out)
    row = own_release.expected.iloc[5]
    first_image(clip_folder(own_release, row)).unlink()
    before = files(out)
    assert run(*arguments("casme2", own_release, out)) == 0
    after = files(out)
    assert {n for n in after if after[n] != before[n]} == {
        "casme2-00002.arrayrecord",
        "casme2-00002.json",
    }
    table = manifest_of(out)
    missing = own_release.expected["num_missing_frames"].tolist()
    assert table["num_missing_frames"].tolist() == [*missing[:5], missing[5] + 1]


def test_an_image_with_other_content_of_the_same_size_is_noticed(
    own_release, prepared, tmp_path, capsys
):
    """Name, size and even the time of the file stay; the frame is another one."""
    out = tmp_path / "out"
    shutil.copytree(prepared, out)
    row = own_release.expected.iloc[3]
    path = first_image(clip_folder(own_release, row))
    about, content = path.stat(), bytearray(path.read_bytes())
    content[-200:-180] = bytes(20)
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_size == about.st_size
    before, table = files(out), manifest_of(prepared)
    assert run(*arguments("casme2", own_release, out)) == 0
    name = f"{row['subject']}/{row['clip']}"
    said = " ".join(capsys.readouterr().out.split())
    assert f"the frames or the annotation of {name} have changed" in said
    after = files(out)
    assert {n for n in after if after[n] != before[n]} == {
        "casme2-00001.arrayrecord",
        "casme2-00001.json",
    }
    assert (manifest_of(out)["sha256"] != table["sha256"]).tolist() == [i == 3 for i in range(6)]


def test_the_video_of_two_clips_with_other_content_is_noticed(tmp_path, capsys):
    """Two frames change places, so that the file keeps its size."""
    root, out = tmp_path / "release", tmp_path / "out"
    root.mkdir()
    (root / "t.csv").write_text(
        "subject,clip,path,onset,offset\nA,c1,v.avi,0,4\nA,c2,v.avi,5,9\nB,c3,w.avi,0,4\n"
    )
    frames = np.random.default_rng(0).integers(0, 255, (10, 32, 32, 3), np.uint8)
    write_video(root / "v.avi", frames)
    write_video(root / "w.avi", frames)
    words = ["--dataset=csv", f"--root={root}", f"--out={out}", "--faces=precropped"]
    words += ["--size_px=48", "--clips-per-shard=1"]
    assert run(*words) == 0
    table = manifest_of(out)
    size = (root / "v.avi").stat().st_size
    write_video(root / "v.avi", frames[[0, 1, 2, 3, 4, 9, 8, 7, 6, 5]])
    assert (root / "v.avi").stat().st_size == size
    capsys.readouterr()
    assert run(*words) == 0
    changed = (manifest_of(out)["sha256"] != table["sha256"]).tolist()
    assert changed == [False, True, False]
    assert "shards finished before: 1" in " ".join(capsys.readouterr().out.split())


def test_what_an_older_version_made_is_made_again_and_said(casme2, prepared, tmp_path, capsys):
    """Its fingerprints know the sizes of files only."""
    out = tmp_path / "out"
    shutil.copytree(prepared, out)
    path = max(out.glob("frames/*.json"))
    content = json.loads(path.read_text())
    for clip in content["clips"]:
        clip["inputs"] = "0" * 64
    path.write_text(json.dumps(sealed(content, shards.SEAL)))
    assert run(*arguments("casme2", casme2, out)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{path.stem}.arrayrecord is made again: an older version made it" in said
    assert "shards finished before: 2" in said


def write_video(path, frames):
    """An .avi file of uncompressed frames."""
    height, width = frames.shape[1:3]
    code = cv2.VideoWriter.fourcc(*"png ")
    writer = cv2.VideoWriter(str(path), code, 25.0, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()


@pytest.mark.slow
def test_killed_half_way_it_goes_on(casme2, tmp_path):
    """SIGKILL between two shards; the finished ones are neither touched nor made again."""
    out = tmp_path / "out"
    given = [*arguments("casme2", casme2, out), "--size_px=384", "--clips-per-shard=1"]
    environment = dict(os.environ, JAX_PLATFORMS="cpu")
    process = subprocess.Popen(
        [sys.executable, "-m", "mexjax.prepare", *given],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(out.glob("frames/*.json"))) >= 2:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    finished = {path.stem for path in out.glob("frames/*.json")}
    assert 2 <= len(finished) < NUM_CLIPS
    assert not (out / "manifest.parquet").exists()
    before = {name: value for name, value in files(out).items() if name.split(".")[0] in finished}
    assert run(*given) == 0
    after = files(out)
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * NUM_CLIPS
    straight = tmp_path / "straight"
    assert run(*arguments("casme2", casme2, straight), *given[-2:], f"--out={straight}") == 0
    assert manifest_of(out)["sha256"].tolist() == manifest_of(straight)["sha256"].tolist()


def test_interrupted_it_is_not_taken_for_whole(casme2, prepared, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    shutil.copytree(prepared, out)
    (out / "frames" / "casme2-00001.json").unlink()

    def stops(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.shards, "write_shard", stops)
    assert run(*arguments("casme2", casme2, out)) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (out / "manifest.parquet").exists() and not record_of(out)["is_finished"]
    monkeypatch.undo()
    assert run(*arguments("casme2", casme2, out)) == 0
    assert manifest_of(out)["sha256"].tolist() == manifest_of(prepared)["sha256"].tolist()


def test_a_full_disk_ends_in_one_message(casme2, tmp_path, capsys):
    """The limit on the size of a file fails as a full disk does: in the middle of a write."""
    out = tmp_path / "out"
    given = arguments("casme2", casme2, out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        assert run(*given) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Error:") == 1 and f"Cannot write to {out}: " in said
    assert "Free space, or choose another --out" in said
    assert not list(out.rglob(".*.tmp")) and not list(out.glob("frames/*"))
    assert run(*given) == 0


def test_shards_of_unknown_making_are_left_alone(casme2, prepared, tmp_path, capsys):
    out = tmp_path / "copy"
    shutil.copytree(prepared, out)
    (out / "preparation.json").unlink()
    for path in out.glob("frames/*.json"):
        path.write_text(path.read_text()[:-9])
    before = files(out)
    assert run(*arguments("casme2", casme2, out)) == 2
    assert "does not say how they were made" in " ".join(capsys.readouterr().err.split())
    assert files(out) == before


@pytest.mark.parametrize("damage", ["missing", "flipped", "emptied", "cut", "a list"])
def test_parameters_are_read_from_the_shards_where_their_record_is_damaged(
    damage, casme2, prepared, tmp_path, capsys
):
    out = tmp_path / "copy"
    shutil.copytree(prepared, out)
    saved = out / "preparation.json"
    content = saved.read_bytes()
    contents = {
        "flipped": content.replace(b'"size_px": 48', b'"size_px": 49'),
        "emptied": b"",
        "cut": content[:-9],
        "a list": b"[]",
    }
    saved.unlink()
    if damage in contents:
        saved.write_bytes(contents[damage])
    before = files(out)
    assert run(*arguments("casme2", casme2, out)) == 0
    assert files(out) == before
    assert saved.read_bytes() == content
    capsys.readouterr()


def test_a_changed_note_of_a_shard_is_noticed(casme2, prepared, tmp_path, capsys):
    """Its description becomes part of the manifest; one of an older version has no digest."""
    out = tmp_path / "copy"
    shutil.copytree(prepared, out)
    manifest = (out / "manifest.parquet").read_bytes()
    path = min(out.glob("frames/*.json"))
    content = path.read_text()
    source = json.loads(content)["clips"][0]["landmark_source"]
    path.write_text(content.replace(f'"{source}"', '"mediapipe"', 1))
    assert run(*arguments("casme2", casme2, out)) == 0
    assert "is made again: it is damaged" in " ".join(capsys.readouterr().out.split())
    assert path.read_text() == content and (out / "manifest.parquet").read_bytes() == manifest
    older = {key: each for key, each in json.loads(content).items() if key != shards.SEAL}
    path.write_text(json.dumps(older))
    assert run(*arguments("casme2", casme2, out)) == 0
    assert "made again" not in capsys.readouterr().out

"""Preparation: what it writes, whatever the release."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pandas as pd
import pytest
from prepared_helpers import (
    NUM_CLIPS,
    arguments,
    clips_of,
    manifest_of,
    record_of,
    release,
    run,
)
from small import ROOT

from mexjax.data import records
from mexjax.data.manifest import COLUMNS
from mexjax.machine import num_cores
from mexjax.prepare import cropping, images, pipeline
from mexjax.prepare.cropping import Failure, Job, Settings
from mexjax.prepare.faces import align, alignment, make_finder
from mexjax.prepare.images import read_frames
from mexjax.prepare.options import Input, Options
from mexjax.prepare.sources import get_source


@pytest.fixture(scope="module")
def casme2(tmp_path_factory):
    return release("casme2", tmp_path_factory.mktemp("casme2"))


@pytest.fixture(scope="module")
def prepared(casme2, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    assert run(*arguments("casme2", casme2, out)) == 0
    return out


def test_a_preparation_writes_its_files(casme2, prepared):
    table = manifest_of(prepared)
    assert list(COLUMNS) == [c for c in table.columns if c in COLUMNS]
    known = ["dataset", "subject", "clip", "onset", "apex", "offset", "emotion", "aus"]
    pd.testing.assert_frame_equal(table[known], casme2.expected[known])
    assert (table["num_stored"] == table["n_frames"] - table["num_missing_frames"]).all()
    assert (table["num_missing_frames"] > 0).any()
    assert set(table["landmark_source"]) == {"landmarks"}
    assert table["shard"].nunique() == NUM_CLIPS // 2
    for name in ("preparation.json", "summary.md", "contact_sheet.png"):
        assert (prepared / name).stat().st_size > 0
    assert not list(prepared.rglob(".*.tmp"))
    assert len(list((prepared / "frames").iterdir())) == NUM_CLIPS
    record = record_of(prepared)
    assert record["is_finished"] and record["num_clips"] == NUM_CLIPS and not record["failed"]
    summary = (prepared / "summary.md").read_text()
    assert f"{NUM_CLIPS} clips" in summary
    assert f"--config.data.name=prepared --config.data.root={prepared}" in summary


def test_crops_are_the_frames_warped_by_the_face_of_the_first(casme2, prepared):
    finder = make_finder("landmarks", landmarker_model=None, landmarks=casme2.landmarks)
    source = get_source("casme2")
    for row in manifest_of(prepared).to_dict("records"):
        clip = records.load_clip(prepared, row)
        frames = source.frames(casme2.root, row)
        assert clip.numbers.tolist() == [frame.number for frame in frames]
        images = read_frames(frames, is_color=True)
        face = finder(images[0], (clip.id, frames[0].number))
        matrix = alignment(face, size_px=48)
        np.testing.assert_array_equal(clip.frames, align(images, matrix, size_px=48))
        expected = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(clip.landmarks[0], expected, atol=1e-3)
        # The eyes are where the crop rule puts them: level, above the middle.
        left, right = clip.landmarks[0, 36], clip.landmarks[0, 45]
        assert abs(left[1] - right[1]) < 0.1 and left[1] < 24
        assert clip.landmark_frames[0] == frames[0].number
        assert clip.landmark_frames[-1] == frames[-1].number


def test_the_contact_sheet_shows_clips_of_every_subject(prepared):
    sheet = cv2.imread(str(prepared / "contact_sheet.png"))
    assert sheet.shape[0] == NUM_CLIPS * 224 and sheet.shape[1] == 4 * 224
    landmarks = (sheet == (0, 220, 255)).all(axis=-1)
    box = (sheet == (120, 220, 0)).all(axis=-1)
    for row in range(NUM_CLIPS):
        rows = slice(224 * row, 224 * (row + 1))
        assert landmarks[rows, :448].sum() > 50 and not landmarks[rows, 448:].any()
        assert box[rows, :224].any()


def test_threads_and_workers_make_the_same_bytes(casme2, prepared, tmp_path):
    out = tmp_path / "workers"
    assert run(*arguments("casme2", casme2, out, "--workers=2")) == 0
    assert manifest_of(out)["sha256"].tolist() == manifest_of(prepared)["sha256"].tolist()


def test_faces_beyond_the_first_may_be_missing(casme2, tmp_path):
    row = casme2.expected.iloc[0]
    table = pd.read_csv(casme2.landmarks, dtype={"clip": str})
    is_clip = table["clip"] == f"{row['subject']}/{row['clip']}"
    kept = table[~is_clip | (table["frame"] != row["apex"])]
    few = tmp_path / "few.csv"
    kept.to_csv(few, index=False)
    out = tmp_path / "out"
    assert run(*arguments("casme2", casme2, out, f"--landmarks={few}")) == 0
    first = manifest_of(out).iloc[0]
    assert f"no landmarks at frame {row['apex']}" in first["notes"]
    clip = records.load_clip(out, first)
    assert clip.landmark_frames.tolist() == [row["onset"], row["offset"]]
    # Without the first face there is no crop.
    table[~is_clip].to_csv(few, index=False)
    assert run(*arguments("casme2", casme2, tmp_path / "other", f"--landmarks={few}")) == 1
    assert len(record_of(tmp_path / "other")["failed"]) == 1


def test_memory_does_not_grow_with_the_number_of_clips():
    """A slow reader holds the workers up: never more results wait than the buffer has places."""
    made, lock = [0], threading.Lock()

    def work(job: Job) -> Failure:
        with lock:
            made[0] += 1
        return Failure(job.id, "")

    jobs = [Job("x", ROOT, {"subject": "s", "clip": str(i)}) for i in range(60)]
    results = pipeline.parallel(work, jobs, 0)
    ahead = 0
    for taken in range(len(jobs)):
        assert next(results).id == f"s/{taken}"
        time.sleep(0.005)
        ahead = max(ahead, made[0] - taken - 1)
    results.close()
    assert 0 < ahead <= 2 * num_cores()


def test_colour_is_that_of_the_release(casme2, prepared, tmp_path):
    assert {clip.shape[-1] for clip in clips_of(prepared)} == {3}
    gray = tmp_path / "gray"
    assert run(*arguments("casme2", casme2, gray, "--color=gray")) == 0
    assert {clip.shape[-1] for clip in clips_of(gray)} == {1}
    samm = release("samm", tmp_path / "samm")
    for color, channels in (("auto", 1), ("rgb", 3)):
        out = tmp_path / color
        assert run(*arguments("samm", samm, out, f"--color={color}")) == 0
        assert {clip.shape[-1] for clip in clips_of(out)} == {channels}


def test_two_releases_become_one_dataset(casme2, tmp_path, capsys):
    smic = release("smic", tmp_path / "smic")
    out = tmp_path / "both"
    given = [
        *("--dataset=casme2,smic", f"--root={casme2.root}", f"--root={smic.root}"),
        *(f"--spreadsheet={casme2.spreadsheet}", "--spreadsheet="),
        *(f"--out={out}", "--faces=precropped", "--size_px=32", "--clips-per-shard=4"),
    ]
    assert run(*given) == 0
    table = manifest_of(out)
    assert table["dataset"].tolist() == ["casme2"] * NUM_CLIPS + ["smic"] * NUM_CLIPS
    assert set(table["shard"]) == {
        f"frames/{name}-0000{i}.arrayrecord" for name in ("casme2", "smic") for i in (0, 1)
    }
    # SMIC has three classes, so the command that is recommended says so.
    assert "--config.protocol.classes=3" in capsys.readouterr().out


def test_a_video_is_read_in_one_pass(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for emotion, name in (("happiness", "one"), ("surprise", "two")):
        folder = tmp_path / "own" / emotion
        folder.mkdir(parents=True)
        writer = cv2.VideoWriter(
            str(folder / f"{name}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 50.0, (64, 48)
        )
        for _ in range(11):
            writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
        writer.release()
    passes = []

    def counted(path, numbers, *, is_color):
        passes.append((path.stem, len(numbers)))
        return images.video_frames(path, numbers, is_color=is_color)

    monkeypatch.setattr(cropping, "video_frames", counted)
    given = ["--dataset=folder", f"--root={tmp_path / 'own'}", "--faces=precropped"]
    assert run(*given, "--size_px=32", f"--out={tmp_path / 'out'}") == 0
    table = manifest_of(tmp_path / "out")
    assert table["num_stored"].tolist() == [11, 11]
    assert table["sha256"].nunique() == 2
    assert sorted(passes) == [("one", 11), ("two", 11)]


def test_progress_counts_clips_and_frames(casme2, tmp_path):
    seen = []
    inputs = (Input("casme2", casme2.root, casme2.spreadsheet),)
    options = Options(inputs, tmp_path / "out", Settings(faces="precropped", size_px=32))
    outcome = pipeline.prepare(options, progress=lambda *counts: seen.append(counts))
    assert [done for done, _, _ in seen] == list(range(1, NUM_CLIPS + 1))
    assert {total for _, total, _ in seen} == {NUM_CLIPS}
    assert seen[-1][2] == outcome.num_frames == outcome.manifest["num_stored"].sum()

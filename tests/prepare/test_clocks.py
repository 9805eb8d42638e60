"""Frame rates and numbers of frames of videos whose containers state something else."""

import math
import struct

import cv2
import numpy as np
import pytest
from source_helpers import found, read, write_sheet

from mexjax.data.manifest import read_manifest
from mexjax.data.records import MANIFEST
from mexjax.prepare import pipeline
from mexjax.prepare.cropping import Settings
from mexjax.prepare.options import Input, Options
from mexjax.prepare.sources.folders import count_video_frames, list_frames, video_fps
from mexjax.prepare.videos import _clock, video_facts

NUM_FRAMES = 40


def write_video(path, fps, codec="MJPG", count=NUM_FRAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (64, 48))
    for _ in range(count):
        writer.write(cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48)))
    writer.release()
    return path


def write_matroska(path, stated_fps, times_ms):
    """A video that states one rate, and whose frames are at these times."""
    codec = "VP80" if path.suffix == ".webm" else "MJPG"
    data = bytearray(write_video(path, 25.0, codec, len(times_ms)).read_bytes())
    at = data.index(b"\x23\xe3\x83\x84") + 4  # DefaultDuration of a frame, in ns
    data[at : at + 4] = struct.pack(">I", round(1e9 / stated_fps))
    place, cluster_ms, count = data.index(b"\x1f\x43\xb6\x75"), 0, 0
    while count < len(times_ms):
        cluster = data.find(b"\x1f\x43\xb6\x75", place, place + 64)
        if cluster >= 0:
            stamp = data.index(b"\xe7", cluster + 4, cluster + 32)
            size = data[stamp + 1] & 0x7F
            cluster_ms = int.from_bytes(data[stamp + 2 : stamp + 2 + size], "big")
            place = stamp + 2 + size
        block = data.index(b"\xa3", place)
        width = 9 - data[block + 1].bit_length()
        size = int.from_bytes(data[block + 1 : block + 1 + width], "big") & ((1 << 7 * width) - 1)
        assert data[block + 1 + width] == 0x81  # the first track
        struct.pack_into(">h", data, block + 2 + width, times_ms[count] - cluster_ms)
        place, count = block + 1 + width + size, count + 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "fps"),
    [
        ("a.avi", "MJPG", 29.97),
        ("a.avi", "MJPG", 200.0),
        ("a.avi", "MJPG", 12.5),
        ("a.mp4", "mp4v", 23.976),
        ("a.mov", "mp4v", 240.0),
        ("a.mkv", "MJPG", 30.0),
        ("a.mkv", "mp4v", 120.0),
        ("a.webm", "VP80", 60.0),
        ("a.wmv", "WMV2", 25.0),
    ],
)
def test_a_rate_that_the_time_stamps_confirm_is_the_stated_one(tmp_path, name, codec, fps):
    facts = video_facts(write_video(tmp_path / name, fps, codec), is_counted=True, limit=1000)
    assert facts.fps == pytest.approx(fps, abs=1e-9) and facts.num_frames == NUM_FRAMES
    assert facts.remarks == () and not facts.is_variable


@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
@pytest.mark.parametrize("rate", [30.0, 15.0, 200.0])
def test_the_unit_of_a_clock_is_no_rate(tmp_path, suffix, rate):
    """As a browser records it: 1000 frames per second, by the header."""
    times = [round(1000 * i / rate) for i in range(NUM_FRAMES)]
    path = write_matroska(tmp_path / f"joy/film{suffix}", 1000, times)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == 1000
    assert video_fps(path) == pytest.approx(rate, rel=0.01)
    reading = read("folder", tmp_path)
    assert reading.table["fps"].tolist() == [pytest.approx(rate, rel=0.01)]
    assert reading.table["n_frames"].tolist() == [NUM_FRAMES]
    assert found(reading, "states 1000 frames per second, but the time stamps")
    assert "assumed" not in reading.table["notes"][0]


def test_a_variable_rate_is_a_mean_and_said(tmp_path):
    times = np.cumsum([0, *([33, 33, 100] * 13)]).tolist()
    write_matroska(tmp_path / "joy/film.webm", 30, times)
    reading = read("folder", tmp_path)
    assert reading.table["fps"].tolist() == [pytest.approx(1000 / (166 / 3), abs=1e-3)]
    assert "variable frame rate" in reading.table["notes"][0]
    assert found(reading, "33 to 100 ms apart (variable frame rate)")
    write_sheet(tmp_path / "t.csv", [["clip", "subject", "onset", "offset"], ["film", "s", 0, 9]])
    again = read("folder", tmp_path)
    assert found(again, "variable frame rate") and again.table["fps"].equals(reading.table["fps"])
    write_sheet(tmp_path / "t.csv", [["clip", "subject", "fps"], ["film", "s", 24]])
    assert read("folder", tmp_path).table["fps"].tolist() == [24.0]


@pytest.mark.parametrize(
    ("stamps", "stated", "fps"),
    [
        ([0.0], 30.0, 30.0),
        ([0.0], 1000.0, math.nan),
        ([0.0] * 20, 90_000.0, math.nan),
        ([0.0] * 20, 25.0, 25.0),
        ([math.nan] * 20, math.nan, math.nan),
        ([*range(0, 800, 40), 0], 90_000.0, 25.0),
        (np.arange(50) * 1e-6, 30.0, 30.0),
    ],
)
def test_time_stamps_that_do_not_tell(stamps, stated, fps):
    np.testing.assert_equal(_clock(np.array(stamps), stated, "film")[0], fps)


def test_a_rate_that_is_unknown_is_said(tmp_path):
    write_matroska(tmp_path / "joy/film.mkv", 1000, [0])
    reading = read("folder", tmp_path)
    assert reading.table["fps"].tolist() == [30.0]
    assert "frames per second unknown" in reading.table["notes"][0]
    assert found(reading, "1000 frames per second, which is no rate")


def promise(path, number):
    """Let the headers of an AVI state another number of frames."""
    data = bytearray(path.read_bytes())
    for name, place in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # dwTotalFrames, dwLength
        at = data.index(name) + place
        data[at : at + 4] = number.to_bytes(4, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("number", [43, 60, 4000])
def test_the_frames_that_decode_are_a_whole_clip(tmp_path, number):
    root, out = tmp_path / "release", tmp_path / "out"
    path = promise(write_video(root / "joy/film.avi", 50.0), number)
    assert count_video_frames(path, is_counted=True) == NUM_FRAMES
    settings = Settings(size_px=32, faces="precropped")
    outcome = pipeline.prepare(Options((Input("folder", root),), out, settings=settings))
    assert outcome.failed == ()
    (row,) = read_manifest(out / MANIFEST).to_dict("records")
    assert (row["num_stored"], row["offset"], row["num_missing_frames"]) == (40, 39, 0)
    text = f"film.avi states {number} frames and holds 40 that can be decoded"
    assert any(text in line for line in outcome.found.problems)
    # Numbers that a table asks for must be there.
    write_sheet(root / "t.csv", [["clip", "subject", "onset", "offset"], ["film", "s", 0, 41]])
    outcome_of_table = pipeline.read_inputs((Input("folder", root),))
    with pytest.raises(Exception, match="it has 40 frames, and numbers up to 41"):
        pipeline.Cropper(settings).crop(outcome_of_table.jobs[0])


def test_a_video_is_decoded_once_however_often_it_is_asked(tmp_path, monkeypatch):
    path = write_video(tmp_path / "film.avi", 50.0)
    facts = video_facts(path, is_counted=True, limit=1000)
    monkeypatch.setattr(cv2, "VideoCapture", None)
    assert video_facts(path, is_counted=True, limit=1000) is facts
    monkeypatch.undo()
    write_video(path, 25.0, count=20)
    assert len(list_frames(path)) == 20 and video_fps(path) == 25.0

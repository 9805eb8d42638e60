"""FIFOs, sockets, devices and odd links among the files of a release."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from source_helpers import found, numbers, read, write_frames, write_sheet

from mexjax.errors import DataError
from mexjax.prepare.images import read_frame
from mexjax.prepare.sources.folders import list_frames

PNG = cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have about a hundred bytes
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


KINDS = {
    "a FIFO": fifo,
    "a socket": bound_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a link to nowhere.png, which is not there": lambda path: path.symlink_to("nowhere.png"),
    "a link that leads to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_frames(tmp_path, kind):
    write_frames(tmp_path / "joy/a", range(1, 10), "{}.png")
    KINDS[kind](tmp_path / "joy/a/10.png")
    reading = read("folder", tmp_path)
    assert found(reading, f"10.png is {kind} and was left out")
    assert numbers("folder", tmp_path, reading.table.iloc[0]) == list(range(1, 10))
    write_sheet(tmp_path / "t.csv", [["clip", "subject", "onset", "offset"], ["a", "s", 1, 10]])
    assert found(read("folder", tmp_path), "1 of 10 frames are missing: 10")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a folder"])
@pytest.mark.parametrize("name", ["10.png", "film.mp4"])
def test_opening_what_is_no_file_gives_a_message_at_once(tmp_path, kind, name):
    KINDS[kind](tmp_path / name)
    with pytest.raises(DataError, match=f"found {kind}"):
        read_frame(tmp_path / name, 0, is_color=True)


# A link that leaves the release, as one to a device, is refused as such.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("a folder", "a device")])
def test_a_video_that_is_no_file_is_a_clip_that_is_reported(tmp_path, kind):
    write_frames(tmp_path / "joy/a", range(1, 10), "{}.png")
    KINDS[kind](tmp_path / "joy/film.mp4")
    reading = read("folder", tmp_path)
    assert reading.table["clip"].tolist() == ["a"]
    (line,) = found(reading, "unknown/film")
    assert f"found {kind}" in line and "left out" in line


def test_a_folder_that_links_to_itself(tmp_path):
    write_frames(tmp_path / "joy/a", range(1, 10), "{}.png")
    (tmp_path / "joy/a/again").symlink_to(tmp_path / "joy", target_is_directory=True)
    (tmp_path / "joy/loop").symlink_to("loop")
    reading = read("folder", tmp_path)
    assert reading.table["clip"].tolist() == ["a"]
    assert found(reading, "loop is in no clip and left out")
    assert len(list_frames(tmp_path / "joy/a")) == 9


def test_a_command_ends_though_a_frame_is_a_fifo(tmp_path):
    for number in range(1, 9):
        path = tmp_path / f"release/joy/a/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    os.mkfifo(tmp_path / "release/joy/a/9.png")
    os.mkfifo(tmp_path / "release/joy/film.avi")
    start = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mexjax.prepare", "--dataset=folder", "--faces=precropped"),
            *(f"--root={tmp_path / 'release'}", f"--out={tmp_path / 'out'}", "--size_px=32"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, text
    assert "9.png is a FIFO and was left out" in text and "found a FIFO" in text
    assert "1 clip of 1 subject, 8 frames" in text and time.monotonic() - start < 110


def test_files_that_are_no_frames_are_named(tmp_path):
    write_frames(tmp_path / "joy/a", range(1, 10), "{}.webp")
    write_frames(tmp_path / "joy/b", range(1, 10), "{}.tif")
    write_frames(tmp_path / "joy", range(1, 4), "photo{}.jpg")
    write_frames(tmp_path / "joy/empty", [])
    reading = read("folder", tmp_path)
    assert reading.table["clip"].tolist() == ["b"]
    (line,) = found(reading, "joy/a holds no images")
    assert ".png, .bmp, .tif" in line and "1.webp and 8 more" in line
    assert found(reading, "photo1.jpg and 2 more are in no clip")
    assert found(reading, "empty holds no images") and found(reading, "it is empty")
    write_sheet(tmp_path / "t.csv", [["subject", "path"], ["s", "joy/photo1.jpg"]])
    assert found(
        read("csv", tmp_path), "photo1.jpg is neither a folder of images nor a video"
    ) or pytest.fail("not named")

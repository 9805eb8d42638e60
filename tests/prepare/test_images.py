"""Frames from files: the right pixels from any path, one clear message from any damaged file."""

import dataclasses
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexjax.errors import DataError
from mexjax.prepare import images

PNG = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Frame:
    number: int
    path: Path


def picture(height=40, width=56, seed=0):
    """u8[H, W, 3], smooth, so that JPEG keeps it to a few levels."""
    coarse = np.random.default_rng(seed).integers(30, 220, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(rgb, suffix):
    return cv2.imencode(suffix, rgb[..., ::-1])[1].tobytes()


def save(path, rgb):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(rgb, path.suffix))
    return path


def write_video(path, count, size=(56, 40)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, size)
    for index in range(count):
        writer.write(np.full((size[1], size[0], 3), 20 * index + 10, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
def test_colour_and_luma_of_each_format(tmp_path, suffix):
    rgb = picture()
    path = save(tmp_path / f"a{suffix}", rgb)
    atol = 12 if suffix == ".jpg" else 0
    color = images.read_frame(path, 0, is_color=True)
    gray = images.read_frame(path, 0, is_color=False)
    assert (color.shape, color.dtype) == ((40, 56, 3), np.uint8)
    assert (gray.shape, gray.dtype) == ((40, 56, 1), np.uint8)
    np.testing.assert_allclose(color.astype(int), rgb, atol=atol)
    np.testing.assert_allclose(gray[..., 0], rgb @ [0.299, 0.587, 0.114], atol=atol + 1)


def test_gray_files_and_16_bits_become_three_equal_8_bit_channels(tmp_path):
    deep = (picture()[..., :1].astype(np.uint16) << 8) | 0x80
    (tmp_path / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    found = images.read_frame(tmp_path / "deep.png", 0, is_color=True)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.repeat(picture()[..., :1], 3, axis=2))


@pytest.mark.parametrize("name", ["with space/a b.png", "Ünïcödé/表情 é.png", "100%/img%03d.png"])
def test_any_path(tmp_path, name):
    path = save(tmp_path / name, picture())
    np.testing.assert_array_equal(images.read_frame(path, 7, is_color=True), picture())


def test_the_content_counts_not_the_ending(tmp_path):
    (tmp_path / "a.bmp").write_bytes(encode(picture(), ".png"))
    np.testing.assert_array_equal(
        images.read_frame(tmp_path / "a.bmp", 0, is_color=True), picture()
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_image_size_reads_headers(suffix):
    assert images.image_size(encode(picture(33, 71), suffix), Path("a")) == (33, 71)


def test_image_size_of_rarer_headers():
    image = encode(picture(33, 71), ".jpg")
    # A thumbnail in a comment, bare restart marks and fill bytes before the frame header.
    note = b"\xff\xfe" + struct.pack(">H", 2 + len(image)) + image
    assert images.image_size(image[:2] + note + b"\xff\xd0\xff\xff" + image[2:], Path("a")) == (
        33,
        71,
    )
    progressive = cv2.imencode(".jpg", picture(33, 71), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    assert images.image_size(progressive.tobytes(), Path("a")) == (33, 71)
    top_down = bytearray(encode(picture(33, 71), ".bmp"))
    struct.pack_into("<i", top_down, 22, -33)
    assert images.image_size(bytes(top_down), Path("a")) == (33, 71)
    old = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 71, 33, 1, 24)
    assert images.image_size(old, Path("a")) == (33, 71)


def huge(kind, side=50_000):
    """A small file whose header claims a side of 50,000 px."""
    data = bytearray(encode(picture(), kind))
    if kind == ".png":
        struct.pack_into(">II", data, 16, side, side)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    elif kind == ".bmp":
        struct.pack_into("<ii", data, 18, side, side)
    else:
        at = data.index(b"\xff\xc0")
        struct.pack_into(">HH", data, at + 5, side, side)
    return bytes(data)


@pytest.mark.parametrize("kind", [".png", ".bmp", ".jpg"])
def test_absurd_size_is_refused_before_decoding(tmp_path, kind, monkeypatch):
    path = tmp_path / f"bomb{kind}"
    path.write_bytes(huge(kind))

    def decode(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"8192 px.*50000 x 50000.*bomb\{kind}"):
            images.read_frame(path, 0, is_color=True)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [".png", ".bmp", ".jpg"])
def test_the_largest_size_is_read_without_a_warning(kind):
    side = images.MAX_SIDE_PX
    assert images.image_size(huge(kind, side), Path("a")) == (side, side)
    # Sizes from which Pillow itself warns, and from which it refuses, give our message.
    for larger in (10_000, 16_000):
        with pytest.raises(DataError, match=f"{larger} x {larger} px"):
            images.image_size(huge(kind, larger), Path("a"))


def test_a_png_header_that_was_changed_is_refused():
    data = bytearray(encode(picture(), ".png"))
    data[19] ^= 1  # the width; its checksum is the old one
    with pytest.raises(DataError, match=r"The image a\.png has no whole header"):
        images.image_size(bytes(data), Path("a.png"))


@pytest.mark.parametrize("kind", [".png", ".bmp", ".jpg"])
def test_size_zero_is_refused(tmp_path, kind):
    path = tmp_path / f"none{kind}"
    path.write_bytes(huge(kind, 0))
    with pytest.raises(DataError, match=rf"none\{kind} has no whole header, or one without pixels"):
        images.read_frame(path, 0, is_color=True)


def test_a_file_too_large_for_an_image_is_not_read(tmp_path):
    path = tmp_path / "film.jpg"
    with open(path, "wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)  # sparse: takes no room
    with pytest.raises(DataError, match=r"at most 257 MiB.*film\.jpg"):
        images.read_frame(path, 0, is_color=True)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.004, 0.5, 0.999])
def test_truncated_at_any_place(tmp_path, suffix, share):
    data = encode(picture(), suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    for is_color in (True, False):
        with pytest.raises(DataError, match=rf"cut\{suffix}.*Copy it again"):
            images.read_frame(path, 0, is_color=is_color)


def test_a_jpeg_without_its_end_is_not_left_to_the_decoder(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(picture(), ".jpg")[:-2])
    # As older versions of OpenCV do it: gray where nothing came, no complaint.
    monkeypatch.setattr(cv2, "imdecode", lambda *_: picture())
    with pytest.raises(DataError, match="cut off"):
        images.read_frame(path, 0, is_color=True)


def test_what_is_no_image(tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"JPEG, PNG or BMP.*a\.jpg \(68 65 6c 6c 6f"):
        images.read_frame(tmp_path / "a.jpg", 0, is_color=True)
    with pytest.raises(DataError, match=r"Cannot read the frame .*b\.jpg: No such file"):
        images.read_frame(tmp_path / "b.jpg", 0, is_color=True)
    (tmp_path / "c.jpg").mkdir()
    with pytest.raises(DataError, match=r"c\.jpg: Is a directory"):
        images.read_frame(tmp_path / "c.jpg", 0, is_color=True)
    for garbage in (b"\xff\xd8" + b"\xff" * 50, b"\xff\xd8" + bytes(50), b"BM" + bytes(100)):
        (tmp_path / "d.jpg").write_bytes(garbage)
        with pytest.raises(DataError, match=r"d\.jpg"):
            images.read_frame(tmp_path / "d.jpg", 0, is_color=True)


@given(st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"BM", PNG]), st.binary())
def test_any_header_gives_a_size_or_one_message(start, rest):
    try:
        height, width = images.image_size(start + rest, Path("frame.jpg"))
    except DataError as error:
        assert "frame.jpg" in str(error)
    else:
        assert 1 <= min(height, width) <= max(height, width) <= images.MAX_SIDE_PX


@pytest.mark.parametrize("filler", [b"\xff", b"\x00", b"\xff\x01", b"\xff\xe0\x00\x02"])
def test_a_jpeg_of_endless_filler_costs_no_time(filler, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + filler * (20_000_000 // len(filler)))
    start = time.process_time()
    with pytest.raises(DataError, match=r"a\.jpg has no whole header"):
        images.read_frame(tmp_path / "a.jpg", 0, is_color=True)
    assert time.process_time() - start < 2


def test_frames_of_a_clip_keep_their_order(tmp_path):
    frames = [Frame(n, save(tmp_path / f"img{n}.png", picture(seed=n))) for n in (3, 1, 2)]
    clip = images.read_frames(frames, is_color=True)
    assert (clip.shape, clip.dtype) == ((3, 40, 56, 3), np.uint8)
    for image, n in zip(clip, (3, 1, 2), strict=True):
        np.testing.assert_array_equal(image, picture(seed=n))
    assert images.read_frames(frames, is_color=False).shape == (3, 40, 56, 1)


def test_frames_of_two_sizes(tmp_path):
    frames = [
        Frame(1, save(tmp_path / "img1.png", picture())),
        Frame(2, save(tmp_path / "img2.png", picture(41, 56))),
    ]
    with pytest.raises(DataError, match=r"56 x 40 px in .*img1.*56 x 41 px in .*img2"):
        images.read_frames(frames, is_color=True)
    with pytest.raises(DataError, match="at least one frame"):
        images.read_frames([], is_color=True)


def test_frames_of_a_video(tmp_path):
    path = write_video(tmp_path / "ü film.avi", 10)
    frames = [Frame(n, path) for n in (9, 0, 4, 4)]
    for is_color in (True, False):
        clip = images.read_frames(frames, is_color=is_color)
        assert clip.shape == (4, 40, 56, 3 if is_color else 1)
        np.testing.assert_allclose(clip.mean((1, 2, 3)), [190, 10, 90, 90], atol=3)
    one = images.read_frame(path, 4, is_color=True)
    np.testing.assert_array_equal(one, images.read_frames(frames, is_color=True)[2])


def test_colours_of_a_video_are_not_swapped(tmp_path):
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (56, 40))
    writer.write(np.full((40, 56, 3), (10, 20, 200), np.uint8))  # BGR
    writer.release()
    found = images.read_frame(path, 0, is_color=True)
    np.testing.assert_allclose(found.mean((0, 1)), [200, 20, 10], atol=8)


def test_a_video_that_ends_early_says_how_long_it_is(tmp_path):
    path = write_video(tmp_path / "short.avi", 6)
    with pytest.raises(DataError, match=r"short\.avi ends early: it has 6 frames.*up to 8"):
        images.read_frames([Frame(n, path) for n in range(2, 9)], is_color=False)
    with pytest.raises(DataError, match=r"from 0 .*-1"):
        images.read_frame(path, -1, is_color=True)


def test_a_damaged_video(tmp_path):
    data = write_video(tmp_path / "whole.avi", 6).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[:100])
    with pytest.raises(DataError, match=r"cut\.avi"):
        images.read_frame(cut, 0, is_color=True)
    cut.write_bytes(b"")
    with pytest.raises(DataError, match=r"Expected a video.*cut\.avi \(empty\)"):
        images.read_frame(cut, 0, is_color=True)


def test_a_video_of_absurd_size(tmp_path):
    path = write_video(tmp_path / "a.avi", 2, size=(8200, 16))
    with pytest.raises(DataError, match=r"8192 px a side, found 8200 x 16 px.*a\.avi"):
        images.read_frame(path, 0, is_color=True)


def test_a_play_list_is_no_video(tmp_path, monkeypatch):
    path = tmp_path / "list.avi"
    path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    monkeypatch.setattr(cv2, "VideoCapture", None)  # must not even be asked
    with pytest.raises(DataError, match="Expected a video"):
        images.read_frame(path, 0, is_color=True)

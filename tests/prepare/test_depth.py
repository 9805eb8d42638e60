"""Images of more than 8 bits, with an opacity, or of kinds that cameras write."""

import io
import json

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from mexjax.data.manifest import read_manifest
from mexjax.data.records import MANIFEST, load_clip
from mexjax.errors import DataError
from mexjax.prepare import pipeline
from mexjax.prepare.cropping import Settings
from mexjax.prepare.images import read_frame, read_frames
from mexjax.prepare.options import Input, Options
from mexjax.prepare.sources.base import Frame

SIZE = 32


def ramp(bits, share=1.0):
    """u16[32, 32] that rises to `share` of the range of so many bits."""
    return np.linspace(0, share * (2**bits - 1), SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)


def save(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, samples)
    else:
        path.write_bytes(cv2.imencode(path.suffix, samples)[1].tobytes())
    return path


def prepare(root, out):
    settings = Settings(size_px=SIZE, faces="precropped")
    return pipeline.prepare(
        Options((Input("folder", root),), out, settings=settings, clips_per_shard=1)
    )


def stored(out, clip):
    rows = read_manifest(out / MANIFEST).to_dict("records")
    (row,) = [row for row in rows if row["clip"] == clip]
    return load_clip(out, row).frames[..., 0].astype(int), row["notes"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_samples_keep_the_bits_that_a_release_uses(tmp_path, suffix, bits):
    root, out = tmp_path / "release", tmp_path / "out"
    for number in range(8):
        save(root / f"joy/bright/{number}{suffix}", ramp(bits))
        save(root / f"joy/dark/{number}{suffix}", ramp(bits, share=0.1 + 0.02 * number))
    outcome = prepare(root, out)
    bright, notes = stored(out, "bright")
    assert (bright.min(), bright.max()) == (0, 255) and len(np.unique(bright[0])) > 200
    # The dark clip has the scale of the release, and its frames stay as bright as they were.
    dark, dark_notes = stored(out, "dark")
    np.testing.assert_allclose(
        dark.max((1, 2)), 255 * (0.1 + 0.02 * np.arange(8)), atol=2 if bits > 8 else 3
    )
    text = f"16-bit images, {bits} bits are used"
    assert text in notes and text in dark_notes
    (line,) = [line for line in outcome.found.problems if "more than 8 bits" in line]
    assert "2 clips" in line and f"{bits} bits are used" in line
    assert f"{bits} bits are used" in (out / "summary.md").read_text()


def test_a_release_that_comes_to_use_more_bits_is_scaled_anew(tmp_path):
    root, out = tmp_path / "release", tmp_path / "out"
    for number in range(8):
        save(root / f"joy/a/{number}.png", ramp(10))
    prepare(root, out)
    before, _ = stored(out, "a")
    again = prepare(root, out)
    assert again.num_frames == 0 and "10 bits are used" in " ".join(again.found.problems)
    for number in range(8):
        save(root / f"joy/b/{number}.png", ramp(12))
    after = prepare(root, out)
    assert "another range" in " ".join(after.redone) and after.num_frames == 16
    scaled, notes = stored(out, "a")
    np.testing.assert_allclose(scaled, before / 4, atol=1)
    assert "12 bits are used" in notes
    assert json.loads((out / "preparation.json").read_text())["problems"] == list(
        after.found.problems
    )


@pytest.mark.parametrize(
    ("samples", "white"),
    [
        (np.linspace(0, 1, SIZE * SIZE, dtype=np.float32), 255),
        (np.linspace(0, 0.5, SIZE * SIZE, dtype=np.float64), 128),
        (np.linspace(0, 255, SIZE * SIZE, dtype=np.float32), 255),
        (np.linspace(0, 4095, SIZE * SIZE).astype(np.int16), 255),
        (np.linspace(0, 1023, SIZE * SIZE).astype(np.uint32), 255),
    ],
)
def test_kinds_of_samples_of_a_tiff(tmp_path, samples, white):
    path = save(tmp_path / "a.tif", samples.reshape(SIZE, SIZE))
    for is_color in (True, False):
        image = read_frame(path, 0, is_color=is_color)
        assert (image.dtype, image.min(), image.max()) == (np.uint8, 0, white)
        assert (np.diff(image[..., 0].ravel().astype(int)) >= 0).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_colours_of_a_tiff(tmp_path, dtype):
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    colors = np.tile(np.array([200, 60, 255]), (SIZE, SIZE, 1))
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, (colors * scale).astype(dtype), photometric="rgb")
    np.testing.assert_allclose(read_frame(path, 0, is_color=True), colors, atol=1)


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (ramp(10).astype(np.int16) - 500, {}, r"below 0 \(the least is -500\)"),
        (np.full((8, 8), np.nan, np.float32), {}, "infinite or no numbers"),
        (np.full((8, 8), 1e20, np.float32), {}, r"samples up to 1e\+20"),
        (np.stack([ramp(10)] * 3), {"photometric": "minisblack"}, "several pages"),
        (
            np.stack([ramp(10)] * 3),
            {"photometric": "rgb", "planarconfig": "separate"},
            "colours in planes",
        ),
        (ramp(10), {"photometric": "miniswhite"}, "negative"),
        (np.zeros((8, 8), np.complex64), {}, "bits"),
    ],
    ids=["negative", "nan", "huge", "pages", "planes", "white", "complex"],
)
def test_tiffs_that_are_no_frames_are_refused_by_name(tmp_path, samples, options, words):
    tifffile.imwrite(tmp_path / "odd.tif", samples, **options)
    with pytest.raises(DataError, match=rf"odd\.tif .*{words}.*Convert"):
        read_frame(tmp_path / "odd.tif", 0, is_color=True)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.98])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_cut_at_any_place(tmp_path, share, dtype):
    tifffile.imwrite(tmp_path / "whole.tif", ramp(8).astype(dtype))
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"cut\.tif.*Copy it again"):
        read_frame(tmp_path / "cut.tif", 0, is_color=True)


def test_transparent_pixels_are_black_and_said(tmp_path):
    root, out = tmp_path / "release", tmp_path / "out"
    faces = np.full((SIZE, SIZE, 4), (20, 60, 200, 255), np.uint8)  # BGRA
    for number in range(8):
        save(root / f"joy/opaque/{number}.png", faces)
        half = faces.copy()
        half[: SIZE // 2, :, 3] = 0
        save(root / f"joy/cut_out/{number}.png", half)
    outcome = prepare(root, out)
    assert "Transparent pixels are black now: folder/unknown/cut_out." in outcome.found.problems
    assert "transparent" in stored(out, "cut_out")[1] and not stored(out, "opaque")[1].count("tran")
    image = read_frame(root / "joy/cut_out/0.png", 0, is_color=True)
    assert image[0, 0].tolist() == [0, 0, 0] and image[-1, 0].tolist() == [200, 60, 20]
    assert read_frame(root / "joy/opaque/0.png", 0, is_color=True)[0, 0].tolist() == [200, 60, 20]


def test_frames_of_different_depths_in_one_clip(tmp_path):
    root, out = tmp_path / "release", tmp_path / "out"
    for number in range(8):
        deep = number % 2
        save(root / f"joy/a/{number}.png", ramp(12) if deep else ramp(8).astype(np.uint8))
    outcome = prepare(root, out)
    line = "Frames of one clip have different depths: folder/unknown/a (16-bit, 8-bit)."
    assert line in outcome.found.problems
    frames, notes = stored(out, "a")
    np.testing.assert_allclose(frames, np.stack([frames[0]] * 8), atol=1)
    assert "frames of different depths" in notes


def test_frames_alone_have_the_scale_of_their_clip(tmp_path):
    paths = [save(tmp_path / f"{n}.png", ramp(10, share)) for n, share in enumerate((1, 0.25))]
    clip = read_frames([Frame(n, path) for n, path in enumerate(paths)], is_color=False)
    assert clip.max((1, 2, 3)).tolist() == [255, 63]


@pytest.mark.parametrize("mode", ["CMYK", "P", "1", "L", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "BMP"])
def test_colour_modes_are_what_other_programs_show(tmp_path, mode, kind):
    picture = Image.new("RGB", (SIZE, SIZE), (200, 60, 20)).convert(mode)
    data = io.BytesIO()
    try:
        picture.save(data, kind, quality=95)
    except (OSError, ValueError):
        pytest.skip("the format has no such mode")
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(data.getvalue())
    image = read_frame(path, 0, is_color=True)
    np.testing.assert_allclose(image, np.array(picture.convert("RGB")).astype(int), atol=8)

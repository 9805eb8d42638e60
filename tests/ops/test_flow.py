"""Optical flow against motion that is known, strain against fields whose strain is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mexjax.data import synthetic
from mexjax.errors import ConfigError
from mexjax.ops.flow import (
    METHODS,
    dense_flow,
    flow_image,
    magnitude,
    resize_flow,
    strain,
)

SIZE = 192


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(onset u8[H, W], apex u8[H, W], true flow f32[H, W, 2]) of four clips."""
    plan = synthetic.make_plan(synthetic.SyntheticConfig(num_subjects=4, num_clips=4, seed=5))
    options = {"resolution_px": SIZE, "without_distractors": True}
    found = []
    for index, clip in enumerate(plan.clips):
        apex = clip.timing.rise
        first, second = synthetic.render_clip(plan, index, [0, apex], **options)[..., 0]
        found.append((first, second, synthetic.flow(plan, index, apex, **options)))
    return found


def fields(size: int = 40) -> dict[str, tuple[np.ndarray, float]]:
    """Linear fields and their strain, worked out by hand."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    zero = np.zeros_like(x)
    return {
        "shift": (np.stack([zero + 2, zero - 1], -1), 0.0),
        "turn": (np.stack([-0.02 * y, 0.02 * x], -1), 0.0),
        "stretch along x": (np.stack([0.03 * x, zero], -1), 0.03),
        "growth": (np.stack([0.03 * x, 0.03 * y], -1), 0.03 * np.sqrt(2)),
        "shear": (np.stack([0.04 * y, zero], -1), 0.04 / np.sqrt(2)),
    }


@pytest.mark.parametrize("method", METHODS)
def test_flow_is_nearer_to_the_truth_than_no_flow(method: str, pairs):
    errors, none = [], []
    for first, second, truth in pairs:
        found = dense_flow(first, second, method=method)
        assert found.shape == (SIZE, SIZE, 2) and found.dtype == np.float32
        errors.append(magnitude(found - truth).mean())
        none.append(magnitude(truth).mean())
    assert np.mean(errors) < 0.8 * np.mean(none), (np.mean(errors), np.mean(none))


@pytest.mark.parametrize("method", METHODS)
def test_a_shift_is_found_with_its_direction(method: str):
    rng = np.random.default_rng(0)
    canvas = cv2.GaussianBlur(rng.uniform(0, 255, (160, 160)).astype(np.float32), (0, 0), 2)
    canvas = (canvas - canvas.min()) / np.ptp(canvas) * 255
    moved = cv2.warpAffine(canvas, np.array([[1, 0, 1.5], [0, 1, -0.75]]), (160, 160))
    first, second = (np.round(x[16:144, 16:144]).astype(np.uint8) for x in (canvas, moved))
    found = dense_flow(first, second, method=method)[16:-16, 16:-16]
    np.testing.assert_allclose(found.mean(axis=(0, 1)), [1.5, -0.75], atol=0.1)
    still = dense_flow(first, first, method=method)[16:-16, 16:-16]
    assert np.abs(still).max() < 0.02


def test_flow_does_not_depend_on_the_number_of_threads(pairs):
    before = cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            found.append([dense_flow(*pairs[0][:2], method=method) for method in METHODS])
    finally:
        cv2.setNumThreads(before)
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("name", fields())
def test_strain_of_known_fields(name: str):
    field, expected = fields()[name]
    found = strain(field.astype(np.float32))
    assert found.dtype == np.float32 and found.shape == field.shape[:2]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_strain_does_not_depend_on_the_resolution():
    field = fields(64)["growth"][0].astype(np.float32)
    np.testing.assert_allclose(strain(resize_flow(field, (32, 32))), 0.03 * np.sqrt(2), atol=1e-6)


def test_resizing_scales_the_vectors():
    field = np.zeros((40, 60, 2), np.float32) + np.array([3, -2], np.float32)
    smaller = resize_flow(field, (20, 20))
    assert smaller.shape == (20, 20, 2)
    np.testing.assert_allclose(smaller, np.broadcast_to([1, -1], smaller.shape), atol=1e-6)
    larger = resize_flow(field, (80, 60))
    np.testing.assert_allclose(larger, np.broadcast_to([3, -4], larger.shape), atol=1e-6)
    np.testing.assert_array_equal(resize_flow(field, (40, 60)), field)


def test_magnitude():
    assert magnitude(np.array([[[3.0, -4.0]]], np.float32))[0, 0] == 5


def ramp() -> np.ndarray:
    """f32[10, 100, 2]: u from -4.95 to 4.95 px along x, v = 0."""
    u = np.tile(np.linspace(-4.95, 4.95, 100, dtype=np.float32), (10, 1))
    return np.stack([u, np.zeros_like(u)], axis=-1)


def test_flow_image_with_a_fixed_scale():
    image = flow_image(ramp(), scale_px=4.0)
    u = ramp()[..., 0]
    np.testing.assert_allclose(image[..., 0], 0.5 + 0.5 * np.clip(u / 4, -1, 1), atol=1e-6)
    np.testing.assert_array_equal(image[..., 1], 0.5)
    np.testing.assert_allclose(image[..., 2], np.clip(np.abs(u) / 4, 0, 1), atol=1e-6)
    assert image.dtype == np.float32 and image.min() == 0 and image.max() == 1


def test_flow_image_scaled_by_itself_is_blind_to_gain_above_the_floor():
    image = flow_image(ramp())
    scale = np.percentile(np.abs(ramp()[..., 0]), 99)
    np.testing.assert_allclose(image[0, 60, 0], 0.5 + 0.5 * ramp()[0, 60, 0] / scale, atol=1e-6)
    np.testing.assert_allclose(flow_image(3 * ramp()), image, atol=1e-6)
    # Below half a pixel the scale stays: noise is not blown up.
    tiny = flow_image(ramp() * 0.01)
    np.testing.assert_allclose(tiny[..., 2], np.abs(ramp()[..., 0]) * 0.01 / 0.5, atol=1e-6)
    still = flow_image(np.zeros((8, 8, 2), np.float32))
    np.testing.assert_array_equal(still, np.broadcast_to([0.5, 0.5, 0], (8, 8, 3)))


def test_flow_image_with_strain():
    field = fields()["growth"][0].astype(np.float32)
    image = flow_image(field, style="strain")
    np.testing.assert_allclose(image[..., 2], 1, atol=1e-5)
    np.testing.assert_array_equal(image[..., :2], flow_image(field)[..., :2])
    shifted = flow_image(fields()["shift"][0].astype(np.float32), style="strain")
    np.testing.assert_array_equal(shifted[..., 2], 0)


def test_flow_image_as_a_colour_wheel():
    angles = np.deg2rad([0, 120, 240, 0])
    field = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None].astype(np.float32)
    field[0, 3] = 0
    wheel = flow_image(field, style="hsv", scale_px=1.0)
    np.testing.assert_allclose(wheel[0], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], atol=1e-4)


def test_bad_arguments_are_described(monkeypatch):
    image = np.zeros((64, 64), np.uint8)
    with pytest.raises(ConfigError, match="Did you mean 'farneback'"):
        dense_flow(image, image, method="farnebeck")
    with pytest.raises(ValueError, match=r"found float32\[64, 64\] and uint8\[64, 64\]"):
        dense_flow(image.astype(np.float32), image)
    with pytest.raises(ValueError, match=r"at least 32 px a side; found \[64, 20\]"):
        dense_flow(image[:, :20], image[:, :20])
    with pytest.raises(ConfigError, match="Unknown style of flow images"):
        flow_image(ramp(), style="rgb")
    with pytest.raises(ConfigError, match="must be positive, found 0"):
        flow_image(ramp(), scale_px=0)
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(ConfigError, match="Install opencv-contrib-python and no other OpenCV"):
        dense_flow(image, image, method="tvl1")

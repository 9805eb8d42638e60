"""Motion magnification against reference numbers and against motion that is known."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mexjax.ops.magnify import (
    gaussian_transfer,
    linear_magnify,
    magnify,
    phase_magnify,
    steerable_filters,
)

with np.load(
    Path(__file__).parents[1] / "golden" / "phase_magnify.npz", allow_pickle=False
) as _file:
    GOLDEN = {name: _file[name] for name in _file.files}
A, B = GOLDEN["frame_a"], GOLDEN["frame_b"]
AS_GOLDEN = {"num_levels": 4, "padding_px": 0}


def texture(shift_px: float, size: int = 64) -> np.ndarray:
    """f64[size, size]: a periodic band-limited texture in [0, 1], moved to the right."""
    rng = np.random.default_rng(3)
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    radius = np.hypot(fx, fy)
    spectrum = np.fft.fft2(rng.standard_normal((size, size)))
    spectrum *= np.exp(-((radius / 0.12) ** 2)) * (radius > 0.03)
    still = np.fft.ifft2(spectrum).real
    moved = np.fft.ifft2(spectrum * np.exp(-2j * np.pi * fx * shift_px)).real
    return 0.5 + 0.45 * moved / np.abs(still).max()


def test_filters_are_the_reference_and_lose_nothing():
    residual, bands = steerable_filters((64, 64), 4, 4)
    np.testing.assert_allclose(bands[0, 0, 0], GOLDEN["band1_orient0_row0"], atol=1e-12)
    np.testing.assert_allclose(bands[1, 1, 3], GOLDEN["band2_orient1_row3"], atol=1e-12)
    for size, levels, orientations in (((64, 64), 4, 4), ((96, 70), 5, 3)):
        residual, bands = steerable_filters(size, levels, orientations)
        mirrored = np.roll(bands[..., ::-1, ::-1], 1, axis=(-2, -1))
        np.testing.assert_allclose(residual + (bands**2 + mirrored**2).sum((0, 1)), 1, atol=1e-12)


@pytest.mark.parametrize("sigma", [0, 2])
def test_equals_the_reference_in_float32(sigma: int):
    out = phase_magnify(jnp.asarray(A), jnp.asarray(B), 3.0, sigma_px=sigma, **AS_GOLDEN)
    assert out.dtype == jnp.float32
    sampled = np.asarray(out).ravel()[:: int(GOLDEN["stride"])]
    np.testing.assert_allclose(sampled, GOLDEN[f"m3_sigma{sigma}"], atol=1e-5)
    total = GOLDEN["m3_sums"][[0, 2].index(sigma)]
    np.testing.assert_allclose(np.asarray(out, np.float64).sum(), total, atol=1e-2)


def test_equals_the_reference_in_float64():
    with jax.enable_x64(True):
        a, b = (jnp.asarray(frame.astype(np.float64)) for frame in (A, B))
        out = np.asarray(phase_magnify(a, b, 3.0, **AS_GOLDEN))
        same = np.asarray(phase_magnify(a, b, 1.0, **AS_GOLDEN))
    assert out.dtype == np.float64
    np.testing.assert_allclose(
        out.ravel()[:: int(GOLDEN["stride"])], GOLDEN["m3_sigma2"], atol=1e-12
    )
    np.testing.assert_allclose(same, B, atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "phase"])
def test_factor_one_changes_nothing(method: str):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (2, 48, 64, 3))
    onset, frame = (jnp.asarray(x, jnp.float32) / 255 for x in levels)
    same = np.asarray(magnify(onset, frame, 1.0, method=method)) * 255
    np.testing.assert_array_equal(np.round(same), levels[1])


def test_still_frames_stay_still():
    out = phase_magnify(jnp.asarray(A), jnp.asarray(A), 5.0)
    np.testing.assert_allclose(out, A, atol=2e-6)


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_phase_moves_further_than_linear_and_nearer_to_the_truth(shift: float):
    a, b, truth = texture(0), texture(shift), texture(3 * shift)
    options = {"sigma_px": 0, "padding_px": 0}
    phase = np.asarray(phase_magnify(a, b, 3.0, **options))
    linear = np.asarray(linear_magnify(a, b, 3.0))

    def error(image: np.ndarray) -> float:
        return float(np.sqrt(((image - truth) ** 2).mean()))

    assert error(phase) < 0.8 * error(linear) and error(phase) < 0.6 * error(b)
    # The displacement that explains each result best, by search over exact shifts.
    shifts = np.linspace(0, 3.6 * shift, 73)
    exact = np.array([texture(s) for s in shifts])

    def moved(image: np.ndarray) -> float:
        return float(shifts[((exact - image) ** 2).sum((1, 2)).argmin()])

    assert 2.4 * shift < moved(phase) <= 3.15 * shift


def test_linear_is_right_for_tiny_motion_and_loud_with_noise():
    a, b, truth = texture(0), texture(0.1), texture(0.3)
    linear = linear_magnify(a, b, 3.0)
    assert np.sqrt(((linear - truth) ** 2).mean()) < 0.002
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 64, 64))
    noisy = [np.asarray(x + n, np.float32) for x, n in zip((a, b), noise, strict=True)]
    loud = np.asarray(linear_magnify(*noisy, 3.0)) - truth
    smooth = np.asarray(phase_magnify(*noisy, 3.0)) - truth
    assert loud.std() > 2 * smooth.std()


def test_leading_axes_vmap_and_jit_give_the_same():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 3, 24, 32), dtype=np.float32)
    factors = jnp.array([1.5, 2.0, 4.0])
    each = jnp.stack([phase_magnify(a[i], b[i], 2.0) for i in range(3)])
    np.testing.assert_allclose(phase_magnify(a, b, 2.0), each, atol=2e-6)
    mapped = jax.jit(jax.vmap(phase_magnify))(a, b, factors)
    np.testing.assert_allclose(mapped[1], each[1], atol=2e-6)
    assert np.abs(np.asarray(mapped[2] - each[2])).max() > 0.01


def test_border_keeps_one_side_from_the_other():
    # Motion at the left edge only; a periodic transform brings it to the right edge.
    a = np.zeros((64, 64), np.float32)
    b = a.copy()
    a[:, 3:5], b[:, 4:6] = 1, 1
    changed = [
        np.abs(np.asarray(phase_magnify(a, b, 3.0, padding_px=pad)) - b)[:, -4:].max()
        for pad in (0, 16)
    ]
    assert changed[1] < 0.4 * changed[0]


def test_colour_keeps_its_chroma():
    rng = np.random.default_rng(2)
    tint = np.array([0.7, 0.5, 0.4])
    a, b = (
        jnp.asarray(0.2 + 0.5 * texture(s)[..., None] * tint + 0.02 * rng.random((64, 64, 3)))
        for s in (0, 1)
    )
    out = np.asarray(magnify(a, b, 3.0))
    change = out - np.asarray(b)
    assert np.abs(change).max() > 0.02
    np.testing.assert_allclose(change, change[..., :1].repeat(3, axis=-1), atol=1e-6)
    gray = np.asarray(magnify(a[..., :1], b[..., :1], 3.0))
    want = phase_magnify(a[..., 0], b[..., 0], 3.0)
    np.testing.assert_allclose(gray[..., 0], np.clip(want, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(magnify(a, b, 3.0, method="none"), b)
    bright = magnify(a + 0.4, b + 0.4, 9.0, method="linear")
    assert float(bright.min()) >= 0 and float(bright.max()) <= 1


def test_gaussian_keeps_the_mean_and_has_its_width():
    kernel = np.fft.ifft2(gaussian_transfer((64, 64), 2.0)).real
    place = np.fft.fftfreq(64, 1 / 64)
    np.testing.assert_allclose(kernel.sum(), 1)
    np.testing.assert_allclose((kernel.sum(axis=0) * place**2).sum(), 4.0, rtol=1e-3)


def test_bad_arguments_are_described():
    with pytest.raises(ValueError, match=r"found \(8, 8\) and \(8, 9\)"):
        phase_magnify(jnp.zeros((8, 8)), jnp.zeros((8, 9)), 2.0)
    with pytest.raises(ValueError, match=r"16x16 px is too small.*padding_px=16"):
        phase_magnify(jnp.zeros((16, 16)), jnp.zeros((16, 16)), 2.0)
    with pytest.raises(ValueError, match="unknown method 'magnet'; known: none, linear, phase"):
        magnify(jnp.zeros((32, 32, 1)), jnp.zeros((32, 32, 1)), 2.0, method="magnet")
    with pytest.raises(ValueError, match=r"expected two f\[\.\.\., H, W, 1 or 3\]"):
        magnify(jnp.zeros((32, 32, 2)), jnp.zeros((32, 32, 2)), 2.0)

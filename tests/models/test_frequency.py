"""The frequency decomposition: identities, equation 3 as printed, and the reference vectors."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import ROOT

from mexjax.data.sampling import sample_indices
from mexjax.errors import ConfigError
from mexjax.models.ac4au.frequency import frd

GOLDEN = json.loads((ROOT / "tests" / "golden" / "ac4au.json").read_text(encoding="utf-8"))
LENGTHS = range(1, 17)


def features(length: int, dtype=np.float32) -> np.ndarray:
    """f[3, l, 5], of mean 2: the mean must not leak into what changes."""
    return (np.random.default_rng(length).standard_normal((3, length, 5)) + 2).astype(dtype)


def by_transform(x: jax.Array) -> jax.Array:
    """AC of f[..., l, C] by a real FFT, bin 0 removed, and back."""
    spectrum = jnp.fft.rfft(x, axis=-2)
    return jnp.fft.irfft(spectrum.at[..., 0, :].set(0), n=x.shape[-2], axis=-2)


def printed_equation(x: np.ndarray) -> np.ndarray:
    """Equation 3 term by term, in float64: f[l, C]."""
    length = len(x)
    spectrum = np.fft.rfft(x.astype(np.float64), axis=0)
    k, t = np.arange(1, length // 2 + 1), np.arange(length)
    waves = np.exp(2j * np.pi * k[:, None] * t / length)
    return np.einsum("kc,kt->tc", spectrum[1:], waves).real


@pytest.mark.parametrize("length", LENGTHS)
def test_the_transform_is_a_mean_subtraction(length: int):
    x = features(length)
    dc, ac = frd(x)
    np.testing.assert_allclose(dc, x.sum(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ac, by_transform(x), atol=1e-5)
    np.testing.assert_allclose(ac, x - x.mean(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(ac.sum(axis=1), 0, atol=2e-5)


def test_the_same_in_double_precision():
    with jax.enable_x64(True):
        for length in LENGTHS:
            x = jnp.asarray(features(length, np.float64))
            np.testing.assert_allclose(frd(x)[1], by_transform(x), rtol=0, atol=1e-12)
            np.testing.assert_allclose(frd(x)[0], x.sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("length", LENGTHS)
def test_equation_3_is_the_transform_times_half_the_length_and_twice_the_last_bin(length: int):
    x = features(length)
    found = frd(x, mode="eq3")[1]
    wanted = [printed_equation(clip) for clip in x]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    _, ac = frd(x)
    last_bin = (x * (-1.0) ** np.arange(length)[:, None]).sum(axis=1, keepdims=True)
    alternating = 0.5 * (-1.0) ** np.arange(length)[:, None] * last_bin
    expected = length / 2 * ac + (alternating if length % 2 == 0 else 0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["frd", "frd_odd"])
def test_reference_vectors(name: str):
    golden = {key: np.array(value) for key, value in GOLDEN[name].items()}
    x = golden["F"].astype(np.float32)
    dc, ac = frd(x)
    np.testing.assert_allclose(dc, golden["dc"], atol=1e-6)
    np.testing.assert_allclose(ac, golden["ac"], atol=1e-6)
    np.testing.assert_allclose(by_transform(x), golden["ac"], atol=1e-6)
    np.testing.assert_allclose(frd(x, mode="eq3")[1], golden["ac_eq3_literal"], atol=1e-5)


@pytest.mark.parametrize("mode", ["irfft", "eq3"])
def test_what_is_the_same_in_every_frame_is_gone(mode: str):
    x = features(8)
    _, ac = frd(x, mode=mode)
    _, shifted = frd(x + 7.5, mode=mode)
    np.testing.assert_allclose(shifted, ac, atol=1e-4)
    _, still = frd(np.repeat(x[:, :1], 8, axis=1), mode=mode)
    np.testing.assert_allclose(still, 0, atol=1e-5)


def test_gradient_and_bfloat16():
    x = features(8)
    slopes = [
        jax.grad(lambda x, changing=changing: (changing(x) ** 3).sum())(x)
        for changing in (lambda x: frd(x)[1], by_transform)
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-3, atol=1e-4)
    for mode in ("irfft", "eq3"):
        assert frd(jnp.asarray(x, jnp.bfloat16), mode=mode)[1].dtype == jnp.bfloat16


def test_bands_are_parts_of_the_whole():
    x = features(8)
    for mode in ("irfft", "eq3"):
        whole = frd(x, mode=mode)[1]
        parts = [frd(x, mode=mode, bands=(k, k))[1] for k in range(1, 5)]
        np.testing.assert_allclose(sum(parts), whole, atol=1e-4)
        np.testing.assert_allclose(frd(x, mode=mode, bands=(1, 4))[1], whole, atol=1e-4)
    # A wave of two turns a clip is in bin 2 alone.
    wave = np.cos(2 * np.pi * 2 * np.arange(8) / 8)[:, None].astype(np.float32)
    np.testing.assert_allclose(frd(wave, bands=(2, 2))[1], wave, atol=1e-6)
    np.testing.assert_allclose(frd(wave, bands=(3, 4))[1], 0, atol=1e-6)


def test_what_cannot_be_decomposed_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'irfft'"):
        frd(features(8), mode="irrft")
    with pytest.raises(ConfigError, match="last <= 4"):
        frd(features(8), bands=(0, 2))
    with pytest.raises(ConfigError, match="l, C"):
        frd(np.zeros(8, np.float32))


@pytest.mark.parametrize("length", [int(n) for n in GOLDEN["sampling"]])
def test_sampled_frames(length: int):
    np.testing.assert_array_equal(sample_indices(length, 8), GOLDEN["sampling"][str(length)])
    stride = {
        9: [0, 1, 2, 3, 4, 5, 6, 7],
        10: [0, 1, 2, 3, 5, 6, 7, 8],
        20: [0, 2, 5, 7, 10, 12, 15, 17],
        100: [0, 12, 25, 37, 50, 62, 75, 87],
    }
    if length in stride:
        np.testing.assert_array_equal(
            sample_indices(length, 8, rule="floor_stride"), stride[length]
        )

"""Approximate rank pooling against its formula and the released target generator."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexjax.ops.rank_pooling import dynamic_image, rank_pool, rank_pooling_weights, scale_to_unit

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fdp.json").read_text())
# Bilen et al. 2016, T = 8, computed by hand.
EIGHT = (-8.4607142857, -1.4607142857, 1.0392857143, 2.0392857143, 2.2892857143, 2.0892857143,
         1.5892857143, 0.875)  # fmt: skip


def golden_clips() -> np.ndarray:
    """f32[2,8,64,64]."""
    rng = np.random.Generator(np.random.PCG64(GOLDEN["seed"]))
    return rng.random((2, 1, 8, 1, 64, 64), dtype=np.float32)[:, 0, :, 0]


def test_weights_of_eight_frames():
    np.testing.assert_allclose(rank_pooling_weights(8), EIGHT, atol=1e-10)


@given(st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_weights_have_the_closed_form_and_sum_to_zero(num_frames: int):
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, num_frames + 1))])
    n = np.arange(1, num_frames + 1)
    closed = 2 * (num_frames - n + 1) - (num_frames + 1) * (harmonic[-1] - harmonic[n - 1])
    np.testing.assert_allclose(rank_pooling_weights(num_frames), closed, atol=1e-9)
    assert abs(rank_pooling_weights(num_frames).sum()) < 1e-9


def test_wrong_shapes_are_named():
    with pytest.raises(AssertionError, match=r"\(64, 64\)"):
        rank_pool(jnp.zeros((64, 64)))
    with pytest.raises(AssertionError, match=r"\(3,\)"):
        scale_to_unit(jnp.zeros((2, 8, 8)), jnp.ones(3))


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="num_frames >= 1; found 0"):
        rank_pooling_weights(0)


def test_equals_the_released_target_generator():
    clips, golden = golden_clips(), GOLDEN["rank_pooling"]
    raw = np.asarray(rank_pool(jnp.asarray(clips))).reshape(2, -1)[:, :8]
    np.testing.assert_allclose(raw.ravel(), golden["raw_first"], atol=1e-5)
    levels = np.asarray(dynamic_image(jnp.asarray(clips), quantize=True)) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    off = np.round(levels).ravel()[:: golden["stride"]] - np.array(golden["uint8"])
    # Cutting to 8 bits turns a rounding error into one gray level.
    assert np.abs(off).max() <= 1
    assert (off != 0).mean() < 0.05


def test_quantizing_cuts_down():
    clips = jnp.asarray(golden_clips())
    lost = np.asarray(dynamic_image(clips) - dynamic_image(clips, quantize=True))
    assert lost.min() >= 0
    assert lost.max() < 1 / 255


def test_range_is_per_clip_and_blind_to_gain_and_offset():
    clips = jnp.asarray(golden_clips())
    image = dynamic_image(clips)
    np.testing.assert_array_equal(image.min(axis=(1, 2)), [0, 0])
    np.testing.assert_array_equal(image.max(axis=(1, 2)), [1, 1])
    scale = jnp.array([0.1, 3.0])[:, None, None, None]
    np.testing.assert_allclose(dynamic_image(0.2 + scale * clips), image, atol=2e-6)


def test_a_still_clip_gives_zeros():
    still = jnp.broadcast_to(jnp.asarray(golden_clips())[:, :1], (2, 8, 64, 64))
    np.testing.assert_array_equal(dynamic_image(still), np.zeros((2, 64, 64)))
    np.testing.assert_array_equal(dynamic_image(jnp.zeros((8, 4, 4))), np.zeros((4, 4)))

"""Augmentation moves all frames of a clip alike and keeps what it should."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_config

from mexjax.data import augment
from mexjax.errors import ConfigError


def clips(batch=6, size=12, key=0):
    return jax.random.uniform(jax.random.key(key), (batch, 3, size, size, 1))


def test_nothing_asked_changes_nothing():
    config = small_config(
        augment__shift_px=0, augment__is_flipped=False, augment__gain_std=0.0
    ).augment
    x = clips()
    np.testing.assert_array_equal(augment.augment(x, jax.random.key(1), config), x)


def test_frames_of_a_clip_are_treated_alike():
    frame = clips()[:, :1]
    x = jnp.repeat(frame, 3, axis=1)
    y = augment.augment(x, jax.random.key(1), small_config().augment)
    np.testing.assert_array_equal(y[:, 0], y[:, 1])
    np.testing.assert_array_equal(y[:, 0], y[:, 2])
    assert not np.array_equal(y, x)


def test_flip_is_a_mirror_and_happens_half_the_time():
    config = small_config(
        augment__shift_px=0, augment__is_flipped=True, augment__gain_std=0.0
    ).augment
    x = clips(batch=200, size=4)
    y = augment.augment(x, jax.random.key(1), config)
    mirrored = np.all(np.asarray(y == x[:, :, :, ::-1]), axis=(1, 2, 3, 4))
    kept = np.all(np.asarray(y == x), axis=(1, 2, 3, 4))
    assert np.all(mirrored | kept) and 70 < mirrored.sum() < 130


def test_shift_stays_within_its_reach():
    config = small_config(
        augment__shift_px=2, augment__is_flipped=False, augment__gain_std=0.0
    ).augment
    ramp = jnp.broadcast_to(jnp.arange(12.0)[None, None, None, :, None], (50, 1, 12, 12, 1))
    y = augment.augment(ramp, jax.random.key(0), config)
    moved = np.asarray(y[:, 0, 6, 6, 0]) - 6
    assert set(moved) <= {-2, -1, 0, 1, 2} and len(set(moved)) == 5


def test_crops():
    config = small_config(
        augment__crop_px=8,
        augment__shift_px=0,
        augment__is_flipped=False,
        augment__gain_std=0.0,
    ).augment
    x = clips(batch=50)
    assert augment.augment(x, jax.random.key(0), config).shape == (50, 3, 8, 8, 1)
    np.testing.assert_array_equal(augment.center_crop(x, config), x[:, :, 2:10, 2:10])


def test_a_clip_is_drawn_alike_in_any_fold_group():
    config = small_config().augment
    x, keys = clips(), jax.random.split(jax.random.key(3), 2)
    together = jax.vmap(lambda key: augment.augment(x, key, config))(keys)
    np.testing.assert_allclose(together[1], augment.augment(x, keys[1], config), rtol=1e-6)


@pytest.mark.parametrize("center", ["onset", "clip_mean"])
def test_centering_leaves_motion_of_unit_size(center):
    y = augment.normalise(clips(), center)
    rms = jnp.sqrt(jnp.mean(y**2, axis=(1, 2, 3, 4)))
    np.testing.assert_allclose(rms, 1.0, rtol=1e-5)
    if center == "onset":
        assert float(jnp.abs(y[:, 0]).max()) == 0.0
    else:
        np.testing.assert_allclose(y.mean(axis=1), 0.0, atol=1e-5)


@pytest.mark.parametrize("center", ["onset", "clip_mean"])
def test_a_still_clip_stays_zero(center):
    still = jnp.repeat(clips()[:, :1], 4, axis=1)
    y = augment.normalise(still, center)
    # Rounding of a mean of equal values is far below a gray level.
    assert float(jnp.abs(y).max()) < 1e-4


def test_scale_is_mean_then_maximum():
    y = augment.normalise(jnp.ones((1, 1, 1, 1, 1)), "none", jnp.array([0.5, 0.25]))
    assert float(y[0, 0, 0, 0, 0]) == 2.0


def test_unknown_center_lists_the_known():
    with pytest.raises(ConfigError, match=r"clip_mean, imagenet, none, onset"):
        augment.normalise(clips(), "onsett")

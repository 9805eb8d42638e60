"""Augmentation moves all frames of a clip alike and keeps what it should."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_config

from mexjax.errors import ConfigError
from mexjax.train import augment


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


def colour_config(**changes):
    still = {"augment__shift_px": 0, "augment__is_flipped": False, "augment__gain_std": 0.0}
    named = {f"augment__{key}": value for key, value in changes.items()}
    return small_config(data__is_color=True, **still, **named)


JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}


def test_rotation_and_jitter_are_drawn_once_a_clip():
    config = colour_config(rotation_deg=10.0, **JITTER).augment
    frame = jax.random.uniform(jax.random.key(0), (4, 1, 16, 16, 3))
    y = augment.augment(jnp.repeat(frame, 8, axis=1), jax.random.key(1), config)
    for t in range(1, 8):
        np.testing.assert_array_equal(y[:, 0], y[:, t])
    changes = np.abs(y[:, :1] - frame).mean(axis=(1, 2, 3, 4))
    assert (changes > 0.01).all() and len(np.unique(changes)) == 4


def test_rotation_turns_about_the_middle():
    config = colour_config(rotation_deg=30.0).augment
    y, x = np.mgrid[:33, :33] - 16.0
    spots = np.exp(-((x - 8) ** 2 + y**2) / 4) + np.exp(-(x**2 + y**2) / 4)
    clip = jnp.asarray(np.broadcast_to(spots, (40, 2, 33, 33))[..., None], jnp.float32)
    turned = np.asarray(augment.augment(clip, jax.random.key(0), config))[:, 0, :, :, 0]
    assert np.all(turned[:, 16, 16] > 0.95), "the middle stays"
    outer = np.hypot(x, y) > 5
    places = np.array([np.unravel_index((t * outer).argmax(), t.shape) for t in turned]) - 16.0
    angles = np.rad2deg(np.arctan2(places[:, 0], places[:, 1]))
    np.testing.assert_allclose(np.hypot(*places.T), 8, atol=0.8)
    assert np.abs(angles).max() < 34 and angles.max() > 15 and angles.min() < -15


def test_jitter_of_each_kind():
    gray = jnp.full((30, 1, 4, 4, 3), 0.5)
    key = jax.random.key(0)
    np.testing.assert_allclose(
        augment.augment(gray, key, colour_config(saturation=0.5, hue=0.1).augment), 0.5, atol=1e-5
    )
    y = augment.augment(gray, key, colour_config(brightness=0.2).augment)
    levels = np.asarray(y[:, 0, 0, 0, 0])
    assert 0.4 <= levels.min() < 0.43 and 0.57 < levels.max() <= 0.6
    x = jax.random.uniform(jax.random.key(1), (30, 2, 8, 8, 3), minval=0.4, maxval=0.6)
    y = augment.augment(x, key, colour_config(contrast=0.2).augment)
    factors = np.asarray(y.std(axis=(1, 2, 3, 4)) / x.std(axis=(1, 2, 3, 4)))
    assert 0.79 < factors.min() < 0.85 and 1.15 < factors.max() < 1.21
    luma = np.array(augment.LUMA)
    y = augment.augment(x, key, colour_config(hue=0.05, saturation=0.2).augment)
    np.testing.assert_allclose(y @ luma, x @ luma, atol=2e-3)  # the matrix is published rounded
    assert np.abs(y - x).max() > 0.01


def test_jitter_keeps_what_an_image_can_hold_and_leaves_gray_images_gray():
    config = colour_config(brightness=0.9, contrast=0.9, saturation=0.9, hue=0.4).augment
    y = augment.augment(clips(batch=20), jax.random.key(2), config)
    assert y.shape == (20, 3, 12, 12, 1)
    assert float(y.min()) >= 0 and float(y.max()) <= 1


def test_what_is_not_asked_for_changes_no_other_draw():
    moved = small_config(augment__shift_px=2)
    x, key = clips(), jax.random.key(5)
    plain = augment.augment(x, key, moved.augment)
    moved.augment.contrast = 1e-7
    np.testing.assert_allclose(augment.augment(x, key, moved.augment), plain, atol=1e-5)

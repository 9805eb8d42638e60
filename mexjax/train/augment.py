"""From stored uint8 clips to the input of a model: drawn once a clip, inside the compiled step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mexjax.cpu.sums import sum_terms
from mexjax.errors import ConfigError, unknown_name

# Keys of `augment` that are numbers of the program: their values may be traced arrays.
NUMBERS = ("rotation_deg", "brightness", "contrast", "saturation", "hue", "gain_std")
CENTERS = ("none", "imagenet", "onset", "clip_mean")
# Mean and deviation of the pixels of ImageNet, by channel: networks for photographs are fed with
# them by convention. The gray values are their luma (ITU-R BT.601).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)
# The map from red, green, blue to luma and two axes of colour (YIQ), where hue is an angle.
YIQ = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
# Products of pixels. A GPU would round them to 10 bits, and a motion is a few of 255 gray levels.
_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def mirror(clips: jax.Array) -> jax.Array:
    """The clips f32[..., H, W, C] with left and right exchanged."""
    return clips[..., ::-1, :]


def augment(
    clips: jax.Array,
    key: jax.Array,
    config: ConfigDict,
    mirror: Callable[[jax.Array], jax.Array] = mirror,
    num_images: int | None = None,
    values: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """Rotates, crops, shifts, flips and recolours each clip at random, all its frames alike.

    A draw for each frame would add change over time where there is none.

    Args:
      clips: f32[B, T, H, W, C] in [0, 1].
      key: one key; each clip has its own derived from it and its place in the batch.
      config: the `augment` section of the configuration.
      mirror: function that flips a clip f32[T, H', W', C].
      num_images: number of first frames that are images, whose brightness may change; None: all.
      values: numbers f32[] that take the place of keys in `NUMBERS`; a key that is zero in `config`
        stays off.

    Returns:
      f32[B, T, H', W', C], H' = `crop_px` or H.
    """
    number: dict[str, Any] = {name: config[name] for name in NUMBERS} | dict(values or {})
    keys = jax.random.split(key, clips.shape[0])
    size = config.crop_px or clips.shape[2]
    margin = clips.shape[2] - size
    reach = 2 * config.shift_px
    # These have random streams of their own, so that settings without them draw the same as before.
    turns, colours = (jax.vmap(jax.random.fold_in, (0, None))(keys, purpose) for purpose in (3, 4))
    if config.rotation_deg > 0:
        rotate = functools.partial(_rotate, largest_deg=number["rotation_deg"])
        clips = jax.vmap(rotate)(clips, turns)
    if config.shift_px:
        pad = (config.shift_px, config.shift_px)
        clips = jnp.pad(clips, ((0, 0), (0, 0), pad, pad, (0, 0)), mode="edge")

    def one(clip: jax.Array, key: jax.Array) -> jax.Array:
        place, flip, gain = jax.random.split(key, 3)
        if margin + reach:
            y, x = jax.random.randint(place, (2,), 0, margin + reach + 1)
            shape = (clip.shape[0], size, size, clip.shape[3])
            clip = jax.lax.dynamic_slice(clip, (0, y, x, 0), shape)
        if config.is_flipped:
            clip = jnp.where(jax.random.bernoulli(flip), mirror(clip), clip)
        if config.gain_std > 0:
            factor = jnp.exp(number["gain_std"] * jax.random.normal(gain))
            images = 0.5 + (clip[:num_images] - 0.5) * factor
            clip = images if num_images is None else clip.at[:num_images].set(images)
        return clip

    clips = jax.vmap(one)(clips, keys)
    amounts = ("brightness", "contrast", "saturation", "hue")
    if any(config[name] for name in amounts):
        turns_colour = bool(config.saturation or config.hue)
        jitter = functools.partial(_jitter, turns_colour=turns_colour)
        amount = [number[name] for name in amounts]
        images = jax.vmap(lambda clip, key: jitter(clip, key, *amount))(
            clips[:, :num_images], colours
        )
        clips = images if num_images is None else clips.at[:, :num_images].set(images)
    return clips


def _rotate(clip: jax.Array, key: jax.Array, *, largest_deg: float) -> jax.Array:
    """The clip f32[T, H, W, C] turned about its middle, bilinear, with repeated edges."""
    frames, height, width, channels = clip.shape
    angle = jnp.deg2rad(jax.random.uniform(key, (), minval=-largest_deg, maxval=largest_deg))
    y, x = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
    )
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = jnp.clip(cos * y + sin * x + (height - 1) / 2, 0, height - 1)
    columns = jnp.clip(cos * x - sin * y + (width - 1) / 2, 0, width - 1)
    top = jnp.minimum(jnp.floor(rows).astype(jnp.int32), height - 2)
    left = jnp.minimum(jnp.floor(columns).astype(jnp.int32), width - 2)
    down, right = (rows - top).reshape(-1, 1), (columns - left).reshape(-1, 1)
    # Frames and channels of a pixel lie side by side: four gathers of rows, not of numbers.
    pixels = clip.transpose(1, 2, 0, 3).reshape(height * width, frames * channels)
    start = (top * width + left).reshape(-1)

    def at(step: int) -> jax.Array:
        return jnp.take(pixels, start + step, axis=0)

    upper = at(0) * (1 - right) + at(1) * right
    lower = at(width) * (1 - right) + at(width + 1) * right
    turned = upper * (1 - down) + lower * down
    return turned.reshape(height, width, frames, channels).transpose(2, 0, 1, 3)


def _jitter(
    clip: jax.Array,
    key: jax.Array,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    *,
    turns_colour: bool,
) -> jax.Array:
    """The clip f32[T, H, W, C] in other colours, in [0, 1], by one draw for all its frames."""
    draws = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
    clip *= 1 + brightness * draws[0]
    is_color = clip.shape[-1] == 3
    mean = _product(clip.mean(axis=(0, 1, 2)), jnp.array(LUMA)) if is_color else clip.mean()
    clip = mean + (clip - mean) * (1 + contrast * draws[1])
    if is_color and turns_colour:
        # Both are linear in colour, so one 3 x 3 matrix does them.
        angle = 2 * np.pi * hue * draws[3]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        plane = (1 + saturation * draws[2]) * jnp.array([[cos, -sin], [sin, cos]])
        turn = jnp.zeros((3, 3)).at[0, 0].set(1.0).at[1:, 1:].set(plane)
        turn = _product(_product(jnp.array(np.linalg.inv(YIQ)), turn), jnp.array(YIQ))
        clip = _product(clip, turn.T)
    return jnp.clip(clip, 0.0, 1.0)


def center_crop(clips: jax.Array, config: ConfigDict) -> jax.Array:
    """The middle `crop_px` square of f32[B, T, H, W, C], which evaluation sees."""
    size = config.crop_px or clips.shape[2]
    start = (clips.shape[2] - size) // 2
    return clips[:, :, start : start + size, start : start + size]


def normalise(frames: jax.Array, center: str, scale: jax.Array | None = None) -> jax.Array:
    """Frames in [0, 1] to the range a network is fed.

    Args:
      frames: f32[B, T, H, W, C].
      center: `none` gives (x - 0.5) / 0.5, `imagenet` (x - mean) / deviation of each channel with
        the constants above. `onset` and `clip_mean` subtract the clip's first frame or its mean
        over time and divide by the standard deviation of the result over the whole clip: only
        motion is left. A clip without motion stays zero.
      scale: f32[2], mean and maximum of a split, applied after `none`: (x - mean) / maximum.

    Returns:
      f32[B, T, H, W, C].
    """
    if center == "none":
        frames = (frames - 0.5) / 0.5
        return frames if scale is None else (frames - scale[0]) / scale[1]
    if center == "imagenet":
        mean, std = jnp.array(IMAGENET_MEAN), jnp.array(IMAGENET_STD)
        if frames.shape[-1] == 1:
            luma = jnp.array(LUMA)
            mean, std = (luma * mean).sum(), (luma * std).sum()
        return (frames - mean) / std
    if center == "onset":
        moved = frames - frames[:, :1]
    elif center == "clip_mean":
        # Frames are added one by one: a reduction over an outer axis is a slow loop on the CPU.
        total = sum_terms(frames[:, t] for t in range(frames.shape[1]))
        moved = frames - total[:, None] / frames.shape[1]
    else:
        raise ConfigError(unknown_name("data.center", center, CENTERS))
    deviation = jnp.sqrt(jnp.mean(jnp.square(moved), axis=(1, 2, 3, 4), keepdims=True))
    # One gray level of 255 is the quantisation step: below it there is no motion to amplify.
    return moved / jnp.maximum(deviation, 1.0 / 255.0)

"""Steps that the views share: choosing stored frames, colour, size, magnification."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import cv2
import jax
import numpy as np

from mexjax.data import keyframes
from mexjax.data.apex_spotting import spot_apex
from mexjax.data.clip_frames import ClipFrames
from mexjax.data.sampling import nearest_frame
from mexjax.errors import ConfigError, DataError, unknown_name
from mexjax.ops import magnify as magnification

MAX_SIZE_PX = 2048
METHODS = (*magnification.METHODS, "magnet", "flow_scale")
PARTS = ("rise", "fall")
CHOICES = ("annotated", "reselected", "fft_apex")


def annotated(clip: ClipFrames) -> np.ndarray:
    """i64[M]: places of the stored frames from onset to offset.

    Raises:
      DataError: none is stored.
    """
    places = np.flatnonzero((clip.numbers >= clip.onset) & (clip.numbers <= clip.offset))
    if not len(places):
        raise DataError(
            f"Clip {clip.id}: no stored frame lies from onset {clip.onset} to offset {clip.offset};"
            f" stored are {clip.numbers.min()} to {clip.numbers.max()}. The annotation changed"
            " after the clip was prepared: prepare the dataset again."
        )
    return places


def key_places(clip: ClipFrames) -> tuple[int, int, int]:
    """Places of the stored frames nearest to onset, apex and offset (a missing frame's neighbour).

    Raises:
      DataError: as `annotated`.
    """
    places = annotated(clip)
    numbers = clip.numbers[places]
    keys = [int(places[nearest_frame(numbers, n)]) for n in (clip.onset, clip.apex, clip.offset)]
    return keys[0], keys[1], keys[2]


def chosen_places(
    clip: ClipFrames, choice: str, rule: keyframes.Rule, is_color: bool
) -> tuple[int, int, int]:
    """Places of onset, apex and offset as annotated, or chosen anew.

    Args:
      clip: stored frames; those outside onset and offset are read only if the rule reads them.
      choice: one of `CHOICES`.
      rule: rule of the choice `reselected`.
      is_color: True if colours are compared, False if luma is.

    Raises:
      ConfigError: an unknown choice.
      DataError: as `annotated`.
    """
    if choice not in CHOICES:
        raise ConfigError(unknown_name("choice of key frames", choice, CHOICES))
    onset, apex, offset = key_places(clip)
    if choice == "reselected":
        frames = with_channels(clip.frames, is_color)
        return keyframes.reselect(frames, onset, apex, offset, rule)
    if choice == "fft_apex":
        luma = with_channels(clip.frames[onset : offset + 1], False)[..., 0]
        apex = onset + spot_apex(luma)
    return onset, apex, offset


def pair_places(clip: ClipFrames, part: str) -> tuple[int, int]:
    """Places of the reference (the onset for `rise`, the offset for `fall`) and of the apex.

    Raises:
      ConfigError: an unknown part.
      DataError: as `annotated`.
    """
    if part not in PARTS:
        raise ConfigError(unknown_name("part of a clip", part, PARTS))
    onset, apex, offset = key_places(clip)
    return (onset if part == "rise" else offset), apex


def with_channels(frames: np.ndarray, is_color: bool) -> np.ndarray:
    """u8[T, H, W, C] -> u8[T, H, W, 3 or 1]: luma (BT.601) of colour, or gray in three channels."""
    if is_color and frames.shape[-1] == 1:
        return np.repeat(frames, 3, axis=-1)
    if not is_color and frames.shape[-1] == 3:
        gray = [cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2GRAY) for f in frames]
        return np.stack(gray)[..., None]
    return frames


def resized(frames: np.ndarray, size_px: int) -> np.ndarray:
    """u8[T, H, W, C] -> u8[T, size, size, C]; averaged when smaller, bilinear when larger.

    Raises:
      ConfigError: a size that is not 1 to 2048.
    """
    if not 1 <= size_px <= MAX_SIZE_PX:
        raise ConfigError(f"size_px must be 1 to {MAX_SIZE_PX}, found {size_px}.")
    height, width, channels = frames.shape[1:]
    if (height, width) == (size_px, size_px):
        return frames
    is_smaller = size_px * size_px < height * width
    way = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    out = [
        cv2.resize(np.ascontiguousarray(f), (size_px, size_px), interpolation=way) for f in frames
    ]
    return np.stack(out).reshape(-1, size_px, size_px, channels)


@dataclasses.dataclass(frozen=True)
class Magnifier:
    """A way to magnify motion.

    Attributes:
      method: one of `METHODS`.
      factor: total displacement, 1 is the identity.
      weights: path of a checkpoint for `magnet` (`mexjax.interop.magnet`).
      gain: meaning of the factor for `magnet`, one of `mexjax.nn.magnet.GAINS`.

    Raises:
      ConfigError: an unknown method, a factor that is not positive, or `magnet` without weights.
    """

    method: str = "none"
    factor: float = 3.0
    weights: str = ""
    gain: str = "port"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(unknown_name("magnification", self.method, METHODS))
        if not self.factor > 0:
            raise ConfigError(f"The factor of magnification must be positive, found {self.factor}.")
        if (self.method == "magnet") != bool(self.weights):
            raise ConfigError(
                f"Magnification {self.method!r} with weights={self.weights!r}: a checkpoint belongs"
                " to the method magnet, and magnet needs one, see docs/papers/micro_au_clip.md."
            )

    @functools.cached_property
    def network(self) -> tuple[Callable[..., jax.Array], Any]:
        """The network of `magnet`, compiled once for each image size, and its variables.

        The object keeps them, so they are read once and go with it.

        Raises:
          DataError: weights that cannot be read or do not fit.
        """
        from mexjax.interop import network_from_torch

        module, variables = network_from_torch("magnet", self.weights)

        def apply(*arguments: Any) -> Any:
            # The view is kept, and must not depend on how a device rounds products.
            with jax.default_matmul_precision("highest"):
                return module.apply(*arguments)

        return jax.jit(apply), jax.device_put(variables)


def magnified(reference: np.ndarray, frames: np.ndarray, magnifier: Magnifier) -> np.ndarray:
    """Magnify the motion of each frame against one reference, at the resolution as stored.

    Args:
      reference: u8[H, W, C].
      frames: u8[T, H, W, C].
      magnifier: `flow_scale` leaves frames as they are: it is applied to flow.

    Returns:
      u8[T, H, W, C].
    """
    method, factor = magnifier.method, magnifier.factor
    if method in ("none", "flow_scale") or (factor == 1 and method != "magnet"):
        return frames
    if method == "magnet":
        return _by_network(reference, frames, magnifier)
    first = reference.astype(np.float32) / 255
    out = []
    for frame in frames:
        # Frames go one at a time: the bands of a frame take fifty times its memory.
        image = frame.astype(np.float32) / 255
        # NumPy arrays go into it as they are, which its annotation does not say.
        moved = magnification.magnify(first, image, factor, method=method)  # pyright: ignore[reportArgumentType]
        out.append(np.round(np.asarray(moved) * 255).astype(np.uint8))
    return np.stack(out)


def _by_network(reference: np.ndarray, frames: np.ndarray, magnifier: Magnifier) -> np.ndarray:
    """`magnified` by MagNet; gray frames go through it in three channels."""
    from mexjax.nn.magnet import MULTIPLE_PX, gain_of

    run, variables = magnifier.network
    height, width = frames.shape[1:3]
    pad = ((0, -height % MULTIPLE_PX), (0, -width % MULTIPLE_PX), (0, 0))
    is_color = frames.shape[-1] == 3

    def network_input(frame: np.ndarray) -> np.ndarray:
        colored = np.pad(with_channels(frame[None], True)[0], pad, mode="symmetric")
        return colored[None].astype(np.float32) / 127.5 - 1

    gain = np.float32(gain_of(magnifier.factor, magnifier.gain))
    out = []
    for frame in frames:
        moved = np.asarray(run(variables, network_input(reference), network_input(frame), gain))[0]
        levels = np.clip(np.round((moved[:height, :width] + 1) * 127.5), 0, 255).astype(np.uint8)
        out.append(with_channels(levels[None], is_color)[0])
    return np.stack(out)

"""Keys of the configuration as parameters of views."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mexjax.data import keyframes
from mexjax.errors import ConfigError
from mexjax.machine import free_bytes


def check_memory(config: ConfigDict, count: int) -> None:
    """Refuse so many clips, before any of them is made, if memory does not hold them.

    Raises:
      ConfigError: they need more memory than is free.
    """
    data = config.data
    side, channels = data.image_size_px, 3 if data.is_color else 1
    needed, free = count * data.num_frames * side * side * channels, free_bytes()
    if needed > free:
        raise ConfigError(
            f"{count} clips of {data.num_frames} frames of {side} px need"
            f" {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free. Lower"
            " data.num_frames or data.image_size_px, or take fewer clips."
        )


def magnifier_params(config: ConfigDict) -> dict[str, Any]:
    """The parameters of views that say how motion is magnified."""
    data = config.data
    return {
        "magnify": data.magnify,
        "factor": data.magnify_factor,
        "weights": data.magnify_weights,
        "gain": data.magnify_gain,
    }


def flow_params(config: ConfigDict) -> dict[str, Any]:
    """The parameters of the view flow_image."""
    data = config.data
    return magnifier_params(config) | {
        "method": data.flow_method,
        "style": data.flow_style,
        "is_scale_fixed": data.is_flow_scale_fixed,
        "size_px": data.image_size_px,
    }


def key_frame_rule(config: ConfigDict) -> keyframes.Rule:
    """The rule of `data.key_frames` by which key frames are chosen anew."""
    keys = config.data.key_frames
    return keyframes.Rule(keys.window, keys.lambda_rise, keys.lambda_fall, keys.difference)


def as_clips(images: np.ndarray) -> np.ndarray:
    """f32[N,S,S,3] in [0, 1] -> u8[N,1,S,S,3]."""
    out = np.empty((len(images), 1, *images.shape[1:]), np.uint8)
    for row, image in enumerate(images):
        out[row, 0] = np.round(image * 255)
    return out

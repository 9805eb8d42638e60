"""Several embedded datasets as one: leaving one of them out is then a test of something.

The sets differ as the public ones do (`flavours`): in size, frame rate, colour, frequencies of
action units and annotators. Here they also differ in camera, light and how still heads are held,
which no flavour copies from a real set: the figures below are made up to be unlike each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd

from mexjax.data import keyframes
from mexjax.data.synthetic.config import SyntheticConfig
from mexjax.data.synthetic.dataset import generate, make_table
from mexjax.data.synthetic.flavours import flavour
from mexjax.data.synthetic.plan import make_plan
from mexjax.errors import ConfigError, unknown_name


@dataclasses.dataclass(frozen=True)
class Camera:
    """A camera, which changes a face that already has its sensor noise.

    Attributes:
      gamma: exponent of the response; below 1 is brighter.
      tint: factors on red, green, blue; their luma-weighted mean acts on gray images.
      blur_px: standard deviation of the blur, at 64 pixels; larger images blur by more.
      settings: fields of SyntheticConfig: noise, compression, light, stillness.
    """

    gamma: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur_px: float = 0.0
    settings: tuple[tuple[str, float], ...] = ()


CAMERAS: dict[str, Camera] = {
    "casme": Camera(0.9, (1.0, 0.98, 0.90), 0.3, (("noise_levels", 2.0), ("jpeg_quality", 80))),
    "casme2": Camera(1.0, (0.97, 1.0, 1.0), 0.0, (("noise_levels", 1.2), ("flicker", 0.006))),
    "samm": Camera(1.15, (1.0, 1.0, 1.0), 0.2, (("noise_levels", 2.5), ("jpeg_quality", 0))),
    "fourd": Camera(0.85, (1.0, 1.0, 1.0), 0.4, (("noise_levels", 1.5), ("pose_deg", 5.0))),
    "mmew": Camera(1.0, (1.0, 0.95, 0.92), 0.1, (("noise_levels", 1.0), ("flicker", 0.018))),
    "casme3a": Camera(1.05, (0.95, 1.0, 1.0), 0.35, (("head_drift_u", 0.0025),)),
}


def make_collection(
    names: Sequence[str],
    *,
    scale: float = 1.0,
    seed: int = 0,
    is_color: bool = True,
    **changes: Any,
) -> list[SyntheticConfig]:
    """Settings of the named sets.

    Args:
      names: keys of `CAMERAS`, each once.
      scale: share of the subjects and clips of each set.
      seed: seed of all sets.
      is_color: False makes all of them gray; True leaves gray ones gray.
      **changes: fields of SyntheticConfig for all sets, over what flavour and camera say.

    Raises:
      ConfigError: an unknown, repeated or unlabelled set, or a bad value.
    """
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"Expected different embedded sets, found {tuple(names)}.")
    configs = []
    for name in names:
        if name not in CAMERAS:
            raise ConfigError(unknown_name("embedded set", name, CAMERAS))
        fields = {**dict(CAMERAS[name].settings), **changes}
        config = flavour(name, scale=scale, seed=seed, **fields)
        configs.append(dataclasses.replace(config, is_color=is_color and config.is_color))
    return configs


def collection_table(configs: Sequence[SyntheticConfig]) -> pd.DataFrame:
    """The clips of all sets, without drawing any; also the column aus_unsure, of empty lists."""
    table = pd.concat([make_table(make_plan(c)) for c in configs], ignore_index=True)
    table["aus_unsure"] = [[] for _ in range(len(table))]  # the coder never doubts
    return table


def generate_collection(
    names: Sequence[str],
    configs: Sequence[SyntheticConfig],
    *,
    view: str = "uniform",
    choice: str = "annotated",
    rule: keyframes.Rule | None = None,
    sampling: str = "linspace",
    is_color: bool = True,
    num_workers: int = 1,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Make the sets, one after the other.

    Args:
      names: names of their cameras, keys of `CAMERAS`.
      configs: from `make_collection`.
      view: frames of each clip, as in `generate`.
      choice: choice of key frames, as in `generate`.
      rule: rule of the choice reselected, as in `generate`.
      sampling: rule of `mexjax.data.sampling` for the view uniform.
      is_color: three channels; those of a gray set are equal.
      num_workers: threads.

    Returns:
      The table of `collection_table` and the clips of all sets, as from `generate`.
    """
    clips = []
    for name, config in zip(names, configs, strict=True):
        _, images = generate(
            config,
            view=view,
            choice=choice,
            rule=rule,
            sampling=sampling,
            num_workers=num_workers,
        )
        images = _through(CAMERAS[name], images)
        is_gray = images.shape[-1] == 1
        clips.append(np.repeat(images, 3, axis=-1) if is_color and is_gray else images)
    return collection_table(configs), np.concatenate(clips)


def _through(camera: Camera, clips: np.ndarray) -> np.ndarray:
    """The clips u8[N, T, H, W, C] as the camera gives them."""
    size, channels = clips.shape[2], clips.shape[-1]
    tint = np.array(camera.tint) if channels == 3 else np.array([0.299, 0.587, 0.114]) @ camera.tint
    levels = np.arange(256) / 255.0
    response = 255 * levels[:, None] ** camera.gamma * np.atleast_1d(tint)
    table = np.clip(np.round(response), 0, 255).astype(np.uint8)  # [256, C]
    out = table[clips, np.arange(channels)]
    sigma = camera.blur_px * size / 64
    if sigma > 0:
        for clip in out:
            for frame in clip:
                frame[...] = cv2.GaussianBlur(frame, (0, 0), sigma).reshape(frame.shape)
    return out

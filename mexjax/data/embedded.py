"""The embedded datasets: `data.name=synthetic` and `synthetic_sets`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax.data import synthetic
from mexjax.data.dataset import Takes
from mexjax.data.synthetic.clip_views import clip_frames, compute_views
from mexjax.data.view_frames import ClipFrames, Magnifier, magnified
from mexjax.data.view_keys import as_clips, check_memory, flow_params, key_frame_rule
from mexjax.errors import ConfigError
from mexjax.machine import num_cores
from mexjax.progress import ClipProgress


def load_one(config: ConfigDict, choice: str, takes: Takes) -> tuple[pd.DataFrame, np.ndarray]:
    """The table and the clips u8[N,T,S,S,C] of `data.name=synthetic`."""
    del takes
    data = config.data
    settings = _settings(config)
    check_memory(config, settings.num_clips)
    if data.view == "flow_image":
        images = embedded_views(config, {"flow_image": flow_params(config)})["flow_image"]
        return synthetic.make_table(synthetic.make_plan(settings)), as_clips(images)
    table, clips = synthetic.generate(
        settings,
        view=data.view,
        choice=choice,
        rule=key_frame_rule(config),
        num_workers=num_cores(),
    )
    how = Magnifier(data.magnify, data.magnify_factor, data.magnify_weights, data.magnify_gain)
    # Only the apex of key frames is magnified, as in prepared clips.
    part = slice(1, 2) if data.view == "key_frames" else slice(None)
    if how.method != "none":
        for clip in clips:
            clip[part] = magnified(clip[0], clip[part], how)
    return table, clips


def load_sets(config: ConfigDict, choice: str, takes: Takes) -> tuple[pd.DataFrame, np.ndarray]:
    """Several embedded datasets, one after the other."""
    data = config.data
    if data.magnify != "none":
        raise ConfigError(f"data.name={data.name} does not magnify: set data.magnify=none.")
    if data.view not in synthetic.VIEWS or takes.clip_views:
        raise ConfigError(
            f"data.name={data.name} has frames alone, {' or '.join(synthetic.VIEWS)}; data.view="
            f"{data.view} of {takes.model} takes more. Set data.name=synthetic."
        )
    settings = _collection(data)
    check_memory(config, sum(each.num_clips for each in settings))
    return synthetic.generate_collection(
        data.collection.sets,
        settings,
        view=data.view,
        choice=choice,
        rule=key_frame_rule(config),
        sampling=data.sampling,
        is_color=data.is_color,
        num_workers=num_cores(),
    )


def embedded_views(config: ConfigDict, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Views of every clip of `data.name=synthetic`, by name, with their parameters."""
    data = config.data
    with ClipProgress("sampling clips", is_shown=config.has_progress, is_kept=False) as progress:
        return compute_views(
            _settings(config),
            dict(params),
            size_px=data.flow_source_px,
            is_still=data.control == "static",
            num_workers=num_cores(),
            progress=progress,
        )


def embedded_table(config: ConfigDict) -> pd.DataFrame:
    """The table of all clips of `data.name=synthetic` or `synthetic_sets`, without any image."""
    if config.data.name == "synthetic_sets":
        return synthetic.collection_table(_collection(config.data))
    return synthetic.make_table(synthetic.make_plan(_settings(config)))


def embedded_clips(config: ConfigDict, names: Sequence[str], *, size_px: int) -> list[ClipFrames]:
    """All frames of the named clips of `data.name=synthetic`."""
    plan = synthetic.make_plan(_settings(config))
    order = [clip.name for clip in plan.clips]
    return [clip_frames(plan, order.index(name), size_px=size_px) for name in names]


def _settings(config: ConfigDict) -> synthetic.SyntheticConfig:
    data = config.data
    try:
        return synthetic.SyntheticConfig(
            num_frames=data.num_frames,
            resolution_px=data.image_size_px,
            is_color=data.is_color and data.view != "flow_image",
            **dict(data.synthetic.items()),
        )
    except ValueError as error:
        raise ConfigError(f"data.synthetic: {error}") from error


def _collection(data: ConfigDict) -> list[synthetic.SyntheticConfig]:
    """Settings of each set; values of `data.synthetic` that differ from their defaults rule."""
    default = dataclasses.asdict(synthetic.SyntheticConfig())
    # A configuration read back from a file has lists where there were tuples.
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in data.synthetic.items()}
    changes = {key: value for key, value in fields.items() if value != default[key]}
    for key in synthetic.FIXED:
        if key in changes:
            raise ConfigError(
                f"data.synthetic.{key} is fixed by each set of data.name={data.name};"
                " data.collection says which sets there are and how large they are."
            )
    size = {"num_frames": data.num_frames, "resolution_px": data.image_size_px}
    try:
        return synthetic.make_collection(
            data.collection.sets,
            scale=data.collection.scale,
            is_color=data.is_color,
            **{**changes, **size},
        )
    except ValueError as error:
        raise ConfigError(f"data.synthetic: {error}") from error

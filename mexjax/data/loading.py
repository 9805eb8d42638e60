"""Where the clips of `mexjax.data.dataset` come from: the embedded dataset and prepared ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax.data import keyframes, synthetic
from mexjax.data.synthetic.clip_views import clip_frames, compute_views
from mexjax.data.view_frames import Magnifier, magnified
from mexjax.data.views import key_frames
from mexjax.errors import ConfigError, DataError, unknown_name
from mexjax.machine import num_cores
from mexjax.models import get_model
from mexjax.ops import flow_frames
from mexjax.ops.flow import MIN_SIDE_PX
from mexjax.progress import ClipProgress


def other_views(config: ConfigDict, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The views beside data.view that the model takes, of every clip of the table."""
    wanted = get_model(config.model.name).clip_views(config)
    if config.data.name == "synthetic":
        return _synthetic_views(config, wanted)
    if "landmark_tokens" in wanted:
        _check_landmarks(config, table)
    return {name: _prepared_view(config, table, name, params) for name, params in wanted.items()}


def _check_landmarks(config: ConfigDict, table: pd.DataFrame) -> None:
    """Refuse landmarks that were found in several ways: clips would differ by how, not by what."""
    counts = table["landmark_source"].value_counts()
    if len(counts) > 1 and not config.data.may_mix_landmarks:
        found = ", ".join(f"{name} ({count} clips)" for name, count in counts.items())
        raise DataError(
            f"The landmarks of these clips come from several sources: {found}. Prepare the dataset"
            " again with one that finds every face, or set data.may_mix_landmarks=True."
        )


def _magnifier(config: ConfigDict) -> dict[str, Any]:
    """The parameters of views that say how motion is magnified."""
    data = config.data
    return {
        "magnify": data.magnify,
        "factor": data.magnify_factor,
        "weights": data.magnify_weights,
        "gain": data.magnify_gain,
    }


def _flow_params(config: ConfigDict) -> dict[str, Any]:
    """The parameters of the view flow_image."""
    data = config.data
    return _magnifier(config) | {
        "method": data.flow_method,
        "style": data.flow_style,
        "is_scale_fixed": data.is_flow_scale_fixed,
        "size_px": data.image_size_px,
    }


def _as_clips(images: np.ndarray) -> np.ndarray:
    """f32[N,S,S,3] in [0, 1] -> u8[N,1,S,S,3]."""
    out = np.empty((len(images), 1, *images.shape[1:]), np.uint8)
    for row, image in enumerate(images):
        out[row, 0] = np.round(image * 255)
    return out


def with_flow(clips: np.ndarray, config: ConfigDict) -> np.ndarray:
    """Key frames and the flow between them, computed once.

    Raises:
      ConfigError: an unknown method, images too small for it, or a treatment of pixels that flow
        does not allow.
    """
    data = config.data
    if data.image_size_px < MIN_SIDE_PX:
        raise ConfigError(
            f"model.feature=flow needs images of at least {MIN_SIDE_PX} pixels; found"
            f" data.image_size_px={data.image_size_px}."
        )
    if data.split_scale != "none":
        raise ConfigError(
            f"data.split_scale={data.split_scale} changes the brightness of pixels; with"
            " model.feature=flow some are no images. Set it to none."
        )
    return flow_frames.with_flow(clips, data.flow_method, num_cores())


def _load_synthetic(config: ConfigDict, choice: str) -> tuple[pd.DataFrame, np.ndarray]:
    data = config.data
    settings = _settings(config)
    if data.view == "flow_image":
        images = _synthetic_views(config, {"flow_image": _flow_params(config)})["flow_image"]
        return synthetic.make_table(synthetic.make_plan(settings)), _as_clips(images)
    table, clips = synthetic.generate(
        settings, view=data.view, choice=choice, rule=_rule(config), num_workers=num_cores()
    )
    how = Magnifier(data.magnify, data.magnify_factor, data.magnify_weights, data.magnify_gain)
    # Of key frames the apex alone, as of prepared clips.
    part = slice(1, 2) if data.view == "key_frames" else slice(None)
    if how.method != "none":
        for clip in clips:
            clip[part] = magnified(clip[0], clip[part], how)
    return table, clips


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


def _synthetic_views(config: ConfigDict, wanted: dict[str, Any]) -> dict[str, np.ndarray]:
    data = config.data
    with ClipProgress("sampling clips", is_shown=config.has_progress, is_kept=False) as progress:
        return compute_views(
            _settings(config),
            wanted,
            size_px=data.flow_source_px,
            is_still=data.control == "static",
            num_workers=num_cores(),
            progress=progress,
        )


def _load_sets(config: ConfigDict, choice: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Several embedded datasets, one after the other."""
    data = config.data
    if data.magnify != "none":
        raise ConfigError(f"data.name={data.name} does not magnify: set data.magnify=none.")
    if data.view not in synthetic.VIEWS or hasattr(get_model(config.model.name), "clip_views"):
        raise ConfigError(
            f"data.name={data.name} has frames alone, {' or '.join(synthetic.VIEWS)}; data.view="
            f"{data.view} of {config.model.name} takes more. Set data.name=synthetic."
        )
    return synthetic.generate_collection(
        data.collection.sets,
        _collection(data),
        view=data.view,
        choice=choice,
        rule=_rule(config),
        sampling=data.sampling,
        is_color=data.is_color,
        num_workers=num_cores(),
    )


def _collection(data: ConfigDict) -> list[synthetic.SyntheticConfig]:
    """Settings of each set; what differs from its default in `data.synthetic` rules."""
    default = dataclasses.asdict(synthetic.SyntheticConfig())
    # A configuration read back from a file has lists where there were tuples.
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in data.synthetic.items()}
    given = {key: value for key, value in fields.items() if value != default[key]}
    for key in synthetic.FIXED:
        if key in given:
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
            **{**given, **size},
        )
    except ValueError as error:
        raise ConfigError(f"data.synthetic: {error}") from error


def load_table(config: ConfigDict) -> pd.DataFrame:
    """The table of all clips of `config.data`, without any image.

    Raises:
      ConfigError, DataError: as of `mexjax.data.dataset.load`.
    """
    data = config.data
    if data.name == "prepared":
        return _manifest(config)
    if data.name == "synthetic_sets":
        return synthetic.collection_table(_collection(data))
    if data.name == "synthetic":
        return synthetic.make_table(synthetic.make_plan(_settings(config)))
    raise ConfigError(unknown_name("dataset", data.name, SOURCES))


def _load_prepared(config: ConfigDict, choice: str) -> tuple[pd.DataFrame, np.ndarray]:
    """The clips of `python -m mexjax.prepare`, each as `num_frames` frames from onset to offset.

    The frames of every clip are sampled and scaled once and kept below the prepared folder, so the
    next run with the same frame count, size and colour maps a file.

    Raises:
      ConfigError: no root, or `data.datasets` names one that is not in it.
      DataError: the folder was not prepared, or is damaged.
    """
    data = config.data
    table = _manifest(config)
    params = {"size_px": data.image_size_px, "is_color": data.is_color, **_magnifier(config)}
    if data.view == "uniform":
        params |= {"num_frames": data.num_frames, "rule": data.sampling}
    if data.view == "flow_image":
        images = _prepared_view(config, table, "flow_image", _flow_params(config))
        return table, _as_clips(images)
    if data.view == "key_frames":
        params |= {"choice": choice}
        if choice == "reselected":
            params |= dataclasses.asdict(_rule(config))
    return table, _prepared_view(config, table, data.view, params)


def _manifest(config: ConfigDict) -> pd.DataFrame:
    """The rows of the prepared datasets that are wanted."""
    # Imported here: the readers of records take a second, and the embedded dataset needs none.
    from mexjax.data.manifest import COLUMNS, read_manifest
    from mexjax.data.records import MANIFEST, RECORD

    data = config.data
    if not data.root:
        raise ConfigError(
            "data.name=prepared needs the folder that python -m mexjax.prepare wrote: add"
            " --config.data.root=FOLDER."
        )
    root = Path(data.root)
    if (root / RECORD).is_file() and not (root / MANIFEST).is_file():
        raise DataError(
            f"The preparation of {root} was not finished: there is no {MANIFEST}. Run the same"
            " python -m mexjax.prepare command again; it goes on from what is there."
        )
    table = read_manifest(root / MANIFEST, required=COLUMNS)
    known = list(dict.fromkeys(table["dataset"]))
    for name in data.datasets:
        if name not in known:
            raise ConfigError(unknown_name("dataset in data.datasets", str(name), known))
    if data.datasets:
        table = table[table["dataset"].isin(list(data.datasets))].reset_index(drop=True)
    return table


def _prepared_view(
    config: ConfigDict, table: pd.DataFrame, name: str, params: dict[str, Any]
) -> np.ndarray:
    from mexjax.data import views

    is_pair = name in ("flow_image", "landmark_tokens")
    if is_pair and config.data.control == "static":
        table = table.assign(apex=table["onset"])
    with ClipProgress("sampling clips", is_shown=config.has_progress, is_kept=False) as progress:
        return views.compute_view(Path(config.data.root), table, name, params, progress=progress)


def _rule(config: ConfigDict) -> keyframes.Rule:
    keys = config.data.key_frames
    return keyframes.Rule(keys.window, keys.lambda_rise, keys.lambda_fall, keys.difference)


def apex_frames(config: ConfigDict, table: pd.DataFrame) -> np.ndarray:
    """u8[M,S,S,C]: the apex of some clips as it is seen, at 112 px, for pictures.

    Args:
      config: the whole configuration.
      table: M rows of the dataset's table.
    """
    params = {"size_px": 112, "is_color": False}
    if config.data.name == "synthetic":
        plan = synthetic.make_plan(_settings(config))
        names = [clip.name for clip in plan.clips]
        clips = [clip_frames(plan, names.index(name), size_px=112) for name in table["clip"]]
    else:
        from mexjax.data import records

        clips = [records.load_clip(Path(config.data.root), row) for row in table.to_dict("records")]
    return np.stack([key_frames(clip, **params)[1] for clip in clips])


SOURCES: dict[str, Callable[[ConfigDict, str], tuple[pd.DataFrame, np.ndarray]]] = {
    "prepared": _load_prepared,
    "synthetic": _load_synthetic,
    "synthetic_sets": _load_sets,
}

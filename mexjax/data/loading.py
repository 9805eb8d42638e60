"""A configuration becomes a `Dataset`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax.data.dataset import Dataset, Takes
from mexjax.data.embedded import (
    embedded_clips,
    embedded_table,
    embedded_views,
    load_one,
    load_sets,
)
from mexjax.data.prepared import load_prepared, prepared_views, read_table
from mexjax.data.same_frames import lines_of_same_frames
from mexjax.data.views import key_frames
from mexjax.errors import ConfigError, DataError, quoted, unknown_name
from mexjax.machine import num_cores
from mexjax.ops import flow_frames
from mexjax.ops.flow import MIN_SIDE_PX
from mexjax.protocol.action_units import numbers_of
from mexjax.protocol.labelling import NO_EMOTION, check_classes, remarks_on
from mexjax.protocol.lookalikes import lines_of_people
from mexjax.protocol.splits import ProtocolConfig, label_table

CONTROLS = ("none", "static", "shuffled_labels")
SPLITS = ("train", "all")
# Values of data.key_frames.choice: for embedded datasets, whose true key frames are known, and for
# prepared ones.
CHOICES = (("annotated", "reselected", "fft_apex", "true"), ("annotated", "reselected", "fft_apex"))
# Some views have a number of frames of their own, which data.num_frames must be.
FRAMES = {"key_frames": (3, "onset, apex and offset"), "flow_image": (1, "one image")}


# A source loads the table and the clips u8[N,T,S,S,C] of a `data.name`.
Source = Callable[[ConfigDict, str, Takes], tuple[pd.DataFrame, np.ndarray]]
SOURCES: dict[str, Source] = {
    "prepared": load_prepared,
    "synthetic": load_one,
    "synthetic_sets": load_sets,
}


def load(config: ConfigDict, takes: Takes) -> Dataset:
    """Load the dataset of `config.data` and keep the clips of the protocol's classes.

    Args:
      config: the whole configuration.
      takes: the parts of a dataset that the model takes.

    Raises:
      ConfigError: an unknown dataset, control or class count.
      DataError: no clip left, or arrays that do not fit the configuration.
    """
    _check(config, takes)
    data = config.data
    choice, splits = data.key_frames.choice, data.key_frames.splits
    is_only_train = data.view == "key_frames" and choice != "annotated" and splits == "train"
    source = SOURCES[data.name]
    table, clips = source(config, "annotated" if is_only_train else choice, takes)
    views = _other_views(config, table, takes)
    labels, class_names = label_table(table, config.protocol)
    is_unit_task = labels.ndim == 2
    keep = np.asarray((labels >= 0).all(axis=1) if is_unit_task else labels >= 0)
    if is_unit_task and not keep.any():
        raise DataError(
            f"{data.name} has no clip whose action units were coded (datasets:"
            f" {', '.join(sorted(set(table['dataset'])))}); a cell that is empty or cannot be read"
            " leaves units unknown. Set protocol.task=emotion, or fill the column of units (0 where"
            " no unit is shown) and prepare again."
        )
    if not keep.any():
        raise DataError(
            f"{data.name} has no clip of the classes {', '.join(class_names)}; its emotions"
            f" are {', '.join(sorted(set(table['emotion'])))}. Set protocol.classes to fit;"
            " own makes every emotion word a class."
        )
    sets = [clips, source(config, choice, takes)[1]] if is_only_train else [clips]
    left_out = count_left_out(table, keep, config.protocol.task)
    remarks: tuple[str, ...] = ()
    if is_unit_task:
        left_out = with_units(left_out, table.loc[keep], config.protocol)
    else:
        choice = {"classes": config.protocol.classes, "protocol": config.protocol.name}
        remarks = remarks_on(table, labels, class_names, **choice)
    table, labels = table.take(np.flatnonzero(keep)).reset_index(drop=True), labels[keep]
    sets = [_as_configured(clips[keep], data) for clips in sets]
    if takes.has_flow:
        sets = [_with_flow(clips, config) for clips in sets]
    if data.control == "shuffled_labels":
        labels = np.random.default_rng([config.seed, 0x5F]).permutation(labels)
    return Dataset(
        name=data.name,
        table=table,
        clips=sets[0],
        labels=labels.astype(np.int32),
        class_names=tuple(class_names),
        train_clips=sets[1] if is_only_train else None,
        views={name: array[keep] for name, array in views.items()},
        left_out=left_out,
        notices=(
            *lines_of_people(table["subject"]),
            *lines_of_same_frames(table, labels),
            *remarks,
            *_mean_faces(table, views, is_unit_task=is_unit_task),
        ),
    )


def _mean_faces(
    table: pd.DataFrame, views: Mapping[str, np.ndarray], *, is_unit_task: bool
) -> tuple[str, ...]:
    """Say how many clips give a model of action units the landmarks of an average face."""
    from mexjax.data.manifest import MEAN_FACE  # the embedded datasets need no Parquet

    names = list(table["landmark_source"]) if "landmark_source" in table else []
    counts = Counter(name for name in names if name in MEAN_FACE)
    has_patches = "landmark_tokens" in views
    if not counts or not (is_unit_task or has_patches):
        return ()
    ways = ", ".join(f"{count} by {name}" for name, count in counts.most_common())
    what = "The patches of their units lie" if has_patches else "Their crops were cut"
    return (
        f"{counts.total()} of {len(names)} clips have no landmarks of their own ({ways}). {what}"
        " where an average face in the box has its eyes and brows, which is coarse for action"
        " units: prepare with --landmarks=FILE or --faces=mediapipe.",
    )


def count_left_out(table: pd.DataFrame, keep: np.ndarray, task: str) -> dict[str, Any]:
    """Count the clips that a protocol does not use; empty where it uses all.

    Args:
      table: all clips, N rows.
      keep: bool[N], the clips that are used.
      task: `protocol.task`.

    Returns:
      `num_clips` left out of `num_clips_in_all`, and `clips`, the most first: their number by
      emotion, which has no class, or for action units by dataset, where they were not coded.
    """
    if keep.all():
        return {}
    column = "dataset" if task == "au" else "emotion"
    names = Counter(str(name) or NO_EMOTION for name in table.loc[~keep, column])
    return {
        "num_clips": int((~keep).sum()),
        "num_clips_in_all": len(keep),
        "clips": dict(sorted(names.items(), key=lambda item: (-item[1], item[0]))),
    }


def with_units(
    left_out: dict[str, Any], table: pd.DataFrame, protocol: ProtocolConfig
) -> dict[str, Any]:
    """Add to `left_out` the coded units of clips in use that are no labels of the protocol.

    Args:
      left_out: see `count_left_out`.
      table: the clips that are used; columns aus and, for doubtful units, aus_unsure.
      protocol: `config.protocol`.

    Returns:
      the same, with `units`: name of the unit, doubtful ones with "?" -> number of clips, if there
      is any.
    """
    names = {str(unit) for unit in numbers_of(protocol.units)}
    counts = Counter(str(au) for aus in table["aus"] for au in aus if str(au) not in names)
    if "aus_unsure" in table.columns:
        counts += Counter(
            f"{au}?"
            for aus in table["aus_unsure"]
            for au in aus
            if str(au) not in names or not protocol.is_unsure_present
        )
    if not counts:
        return left_out
    units = sorted(counts.items(), key=lambda item: (-item[1], int(item[0].strip("?"))))
    clips = left_out or {"num_clips": 0, "num_clips_in_all": len(table), "clips": {}}
    return clips | {"units": {f"AU{au}": count for au, count in units}}


def _check(config: ConfigDict, takes: Takes) -> None:
    """Refuse values of `config.data` that do not exist or that do not go together."""
    data = config.data
    if data.name not in SOURCES:
        raise ConfigError(unknown_name("dataset", data.name, SOURCES))
    for key in ("root", "datasets", "cache"):
        if data[key] and data.name != "prepared":
            raise ConfigError(
                f"data.{key}={quoted(data[key])} is for prepared datasets; data.name={data.name}"
                " takes none. Add --config.data.name=prepared."
            )
    for key, value, choices in (
        ("data.view", data.view, takes.views),
        ("protocol.task", config.protocol.task, takes.tasks),
    ):
        if value not in choices:
            raise ConfigError(f"{key}={value!r}: {takes.model} takes {' or '.join(choices)}.")
    if config.protocol.task == "emotion":
        check_classes(config.protocol.classes, config.protocol.class_map)
    if data.control not in CONTROLS:
        raise ConfigError(unknown_name("data.control", data.control, CONTROLS))
    choice, splits = data.key_frames.choice, data.key_frames.splits
    choices = CHOICES[data.name == "prepared"]
    if choice not in choices:
        raise ConfigError(unknown_name(f"data.key_frames.choice of {data.name}", choice, choices))
    if splits not in SPLITS:
        raise ConfigError(unknown_name("data.key_frames.splits", splits, SPLITS))
    if choice != "annotated" and data.view != "key_frames":
        raise ConfigError(
            f"data.key_frames.choice={choice!r} needs data.view=key_frames, found"
            f" {data.view!r}: {takes.model} takes {' or '.join(takes.views)}."
        )
    _check_frames(config)
    _check_treatment(config, takes)


def _check_treatment(config: ConfigDict, takes: Takes) -> None:
    """Refuse a treatment of pixels that would make images and other arrays of a clip disagree."""
    data = config.data
    if data.magnify == "flow_scale" and data.view != "flow_image":
        raise ConfigError(
            f"data.magnify=flow_scale multiplies flow, and data.view={data.view} has none. Set"
            " data.magnify to linear, phase or magnet."
        )
    if data.view == "flow_image" and data.center != "none":
        raise ConfigError(
            f"data.center={data.center} takes away a mean over the frames of a clip, and"
            " data.view=flow_image has one image, whose middle is no motion. Set data.center=none."
        )
    changes = [f"augment.{key}" for key, value in config.augment.items() if value]
    changes += ["eval.is_flip_averaged"] if config.eval.is_flip_averaged else []
    if changes and (data.view == "flow_image" or takes.clip_views):
        other = ", ".join(takes.clip_views) or "the direction of the flow"
        raise ConfigError(
            f"{', '.join(changes)} changes the images of a clip, but not {other}, so that the two"
            " would disagree. Set it to 0 or False."
        )


def _as_configured(clips: np.ndarray, data: ConfigDict) -> np.ndarray:
    """The clips, checked against the configuration, without motion if that is the control."""
    size = data.image_size_px
    expected = (data.num_frames, size, size, 3 if data.is_color else 1)
    if clips.shape[1:] != expected:
        raise DataError(
            f"{data.name} gave clips of shape {clips.shape[1:]}, expected {expected} from"
            " data.num_frames, data.image_size_px and data.is_color."
        )
    return np.repeat(clips[:, :1], clips.shape[1], axis=1) if data.control == "static" else clips


def _check_frames(config: ConfigDict) -> None:
    """Refuse a frame count or colour that the view does not have."""
    data = config.data
    number, what = FRAMES.get(data.view, (0, ""))
    if number and data.num_frames != number:
        raise ConfigError(
            f"data.view={data.view} gives {what}: set data.num_frames={number}, found"
            f" {data.num_frames}."
        )
    if not number and data.num_frames < 2:
        raise ConfigError(
            f"data.view={data.view} gives frames in time: data.num_frames must be at least 2,"
            f" found {data.num_frames}."
        )
    if data.view == "flow_image" and not data.is_color:
        raise ConfigError("data.view=flow_image has three channels: set data.is_color=True.")


def _other_views(config: ConfigDict, table: pd.DataFrame, takes: Takes) -> dict[str, np.ndarray]:
    """The views beside data.view that the model takes, of every clip of the table."""
    if not takes.clip_views:
        return {}
    if config.data.name == "synthetic":
        return embedded_views(config, takes.clip_views)
    return prepared_views(config, table, takes.clip_views)


def _with_flow(clips: np.ndarray, config: ConfigDict) -> np.ndarray:
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


def load_table(config: ConfigDict) -> pd.DataFrame:
    """The table of all clips of `config.data`, without any image.

    Raises:
      ConfigError, DataError: the same as from `load`.
    """
    if config.data.name not in SOURCES:
        raise ConfigError(unknown_name("dataset", config.data.name, SOURCES))
    return (read_table if config.data.name == "prepared" else embedded_table)(config)


def apex_frames(config: ConfigDict, table: pd.DataFrame) -> np.ndarray:
    """u8[M,S,S,C]: the apex of some clips as it is seen, at 112 px, for pictures.

    Args:
      config: the whole configuration.
      table: M rows of the dataset's table.
    """
    params = {"size_px": 112, "is_color": False}
    if config.data.name == "synthetic":
        clips = embedded_clips(config, list(table["clip"]), size_px=112)
    else:
        from mexjax.data import records

        clips = [records.load_clip(Path(config.data.root), row) for row in table.to_dict("records")]
    return np.stack([key_frames(clip, **params)[1] for clip in clips])


def list_datasets() -> list[str]:
    """Names that `data.name` takes."""
    return sorted(SOURCES)

"""A dataset as it lies on the device: one table and the arrays its rows index."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax.data.loading import SOURCES, other_views, with_flow
from mexjax.errors import ConfigError, DataError, unknown_name
from mexjax.models import get_model
from mexjax.protocol import splits as protocols

CONTROLS = ("none", "static", "shuffled_labels")
SPLITS = ("train", "all")
# Of data.key_frames: of embedded datasets, whose key frames are known, and of prepared ones.
CHOICES = (("annotated", "reselected", "fft_apex", "true"), ("annotated", "reselected", "fft_apex"))
# Views with a number of frames of their own: what data.num_frames must be.
FRAMES = {"key_frames": (3, "onset, apex and offset"), "flow_image": (1, "one image")}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Clips with labels, in the order of the table.

    Attributes:
      name: name of the dataset.
      table: one row a clip (`mexjax.data.manifest.COLUMNS` or, of the embedded dataset, see
        `mexjax.data.synthetic.make_table`).
      clips: u8[N, T, H, W, C], C is 1 or 3.
      labels: i32[N], index into `class_names`; of action units 0/1 i32[N, A].
      class_names: names of the K classes, or of the A units ("AU12").
      train_clips: as `clips`, what training sees of each clip; None: the same.
      views: other arrays of each clip that the model takes, [N, ...], by name.
    """

    name: str
    table: pd.DataFrame
    clips: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    train_clips: np.ndarray | None = None
    views: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def task(self) -> str:
        """What the labels say: `emotion` or `au`."""
        return "au" if self.labels.ndim == 2 else "emotion"

    @property
    def subjects(self) -> np.ndarray:
        """i32[N]: number of the subject of every row, counted over all datasets from 0."""
        return pd.factorize(self.table["subject"], sort=True)[0].astype(np.int32)

    def on_host(self) -> dict[str, Any]:
        """What the compiled step reads: `clips`, `labels`, `subjects`, `views` and, where training
        sees other frames than evaluation, `train_clips`."""
        names = ("clips", "labels", "subjects", "views")
        arrays = {name: getattr(self, name) for name in names}
        return arrays if self.train_clips is None else arrays | {"train_clips": self.train_clips}

    @property
    def clip_ids(self) -> list[str]:
        """`subject/clip` of every row: unique over all datasets."""
        return [f"{s}/{c}" for s, c in zip(self.table["subject"], self.table["clip"], strict=True)]


def load(config: ConfigDict) -> Dataset:
    """Load the dataset of `config.data` and keep the clips of the protocol's classes.

    Raises:
      ConfigError: an unknown dataset, control or class count.
      DataError: no clip left, or arrays that do not fit the configuration.
    """
    data = config.data
    if data.name not in SOURCES:
        raise ConfigError(unknown_name("dataset", data.name, SOURCES))
    for key in ("root", "datasets"):
        if data[key] and data.name != "prepared":
            raise ConfigError(
                f"data.{key}={data[key]!r} is for prepared datasets; data.name={data.name} takes"
                " none. Add --config.data.name=prepared."
            )
    paper = get_model(config.model.name)
    for key, value, takes in (
        ("data.view", data.view, paper.VIEWS),
        ("protocol.task", config.protocol.task, paper.TASKS),
    ):
        if value not in takes:
            raise ConfigError(f"{key}={value!r}: {config.model.name} takes {' or '.join(takes)}.")
    _check_frames(config)
    if data.control not in CONTROLS:
        raise ConfigError(unknown_name("data.control", data.control, CONTROLS))
    choice, splits = data.key_frames.choice, data.key_frames.splits
    known = CHOICES[data.name == "prepared"]
    if choice not in known:
        raise ConfigError(unknown_name(f"data.key_frames.choice of {data.name}", choice, known))
    if splits not in SPLITS:
        raise ConfigError(unknown_name("data.key_frames.splits", splits, SPLITS))
    if choice != "annotated" and data.view != "key_frames":
        raise ConfigError(
            f"data.key_frames.choice={choice!r} needs data.view=key_frames, found"
            f" {data.view!r}: {config.model.name} takes {' or '.join(takes)}."
        )
    is_only_train = data.view == "key_frames" and choice != "annotated" and splits == "train"
    table, clips = SOURCES[data.name](config, "annotated" if is_only_train else choice)
    views = other_views(config, table) if hasattr(paper, "clip_views") else {}
    labels, class_names = protocols.label_table(table, config.protocol)
    keep = labels >= 0 if labels.ndim == 1 else np.ones(len(labels), bool)
    if not keep.any():
        raise DataError(
            f"{data.name} has no clip of the classes {', '.join(class_names)}; its emotions"
            f" are {', '.join(sorted(set(table['emotion'])))}. Set protocol.classes to fit."
        )
    sets = [clips, SOURCES[data.name](config, choice)[1]] if is_only_train else [clips]
    table, labels = table[keep].reset_index(drop=True), labels[keep]
    sets = [_as_configured(clips[keep], data) for clips in sets]
    if config.model.get("feature", "difference") == "flow":
        sets = [with_flow(clips, config) for clips in sets]
    if data.control == "shuffled_labels":
        labels = np.random.default_rng([config.seed, 0x5F]).permutation(labels)
    views = {name: array[keep] for name, array in views.items()}
    if hasattr(paper, "clip_arrays"):
        views |= paper.clip_arrays(labels, config)
    return Dataset(
        name=data.name,
        table=table,
        clips=sets[0],
        labels=labels.astype(np.int32),
        class_names=tuple(class_names),
        train_clips=sets[1] if is_only_train else None,
        views=views,
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


def list_datasets() -> list[str]:
    """Names that `data.name` takes."""
    return sorted(SOURCES)

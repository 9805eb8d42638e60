"""A dataset as it lies on the device: one table and the arrays its rows index."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax import protocols
from mexjax.data import synthetic
from mexjax.errors import ConfigError, DataError, unknown_name

CONTROLS = ("none", "static", "shuffled_labels")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Clips with labels, in the order of the table.

    Attributes:
      name: name of the dataset.
      table: one row a clip (see `mexjax.data.synthetic.make_table` for the columns).
      clips: u8[N, T, H, W, C], C is 1 or 3.
      labels: i32[N], index into `class_names`.
      class_names: names of the K classes.
    """

    name: str
    table: pd.DataFrame
    clips: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

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
    if data.root and data.name == "synthetic":
        raise ConfigError(
            f"data.root={data.root!r} is for prepared datasets; data.name=synthetic takes none."
        )
    if data.control not in CONTROLS:
        raise ConfigError(unknown_name("data.control", data.control, CONTROLS))
    table, clips = SOURCES[data.name](config)
    labels, class_names = protocols.label_table(table, config.protocol)
    keep = labels >= 0
    if not keep.any():
        raise DataError(
            f"{data.name} has no clip of the classes {', '.join(class_names)}; its emotions"
            f" are {', '.join(sorted(set(table['emotion'])))}. Set protocol.classes to fit."
        )
    table, clips, labels = table[keep].reset_index(drop=True), clips[keep], labels[keep]
    size = data.image_size_px
    expected = (data.num_frames, size, size, 3 if data.is_color else 1)
    if clips.shape[1:] != expected:
        raise DataError(
            f"{data.name} gave clips of shape {clips.shape[1:]}, expected {expected} from"
            " data.num_frames, data.image_size_px and data.is_color."
        )
    if data.control == "static":
        clips = np.repeat(clips[:, :1], clips.shape[1], axis=1)
    if data.control == "shuffled_labels":
        labels = np.random.default_rng([config.seed, 0x5F]).permutation(labels)
    return Dataset(data.name, table, clips, labels.astype(np.int32), tuple(class_names))


def list_datasets() -> list[str]:
    """Names that `data.name` takes."""
    return sorted(SOURCES)


def _load_synthetic(config: ConfigDict) -> tuple[pd.DataFrame, np.ndarray]:
    data = config.data
    fields = dict(data.synthetic.items())
    try:
        settings = synthetic.SyntheticConfig(
            num_frames=data.num_frames,
            resolution_px=data.image_size_px,
            is_color=data.is_color,
            **fields,
        )
    except ValueError as error:
        raise ConfigError(f"data.synthetic: {error}") from error
    return synthetic.generate(settings)


SOURCES: dict[str, Callable[[ConfigDict], tuple[pd.DataFrame, np.ndarray]]] = {
    "synthetic": _load_synthetic
}

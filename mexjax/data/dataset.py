"""A dataset as it lies on the device: one table and the arrays its rows index."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


@dataclasses.dataclass(frozen=True)
class Takes:
    """All that a model takes of a dataset, so that data need not know models.

    Attributes:
      model: name of the model, for messages.
      views: values of `data.view` that it takes.
      tasks: values of `protocol.task` that it takes.
      clip_views: further views of each clip, by name, with their parameters.
      has_flow: True if optical flow follows the key frames of a clip.
    """

    model: str
    views: tuple[str, ...]
    tasks: tuple[str, ...]
    clip_views: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    has_flow: bool = False


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Clips with labels, in the order of the table.

    Attributes:
      name: name of the dataset.
      table: one row a clip; its columns are `mexjax.data.manifest.COLUMNS`, or those of
        `mexjax.data.synthetic.make_table` for the embedded dataset.
      clips: u8[N, T, H, W, C], C is 1 or 3.
      labels: i32[N], index into `class_names`; for action units 0/1 i32[N, A].
      class_names: names of the K classes, or of the A units ("AU12").
      train_clips: the clips that training sees, shaped as `clips`; None: the same.
      views: other arrays of each clip that the model takes, [N, ...], by name.
      left_out: the clips that the protocol does not use, see `loading.count_left_out`.
      notices: sentences that a reader of results must know before the numbers.
    """

    name: str
    table: pd.DataFrame
    clips: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    train_clips: np.ndarray | None = None
    views: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    left_out: dict[str, Any] = dataclasses.field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The kind of the labels: `emotion` or `au`."""
        return "au" if self.labels.ndim == 2 else "emotion"

    @property
    def subjects(self) -> np.ndarray:
        """i32[N]: number of the subject of every row, counted over all datasets from 0."""
        return pd.factorize(self.table["subject"], sort=True)[0].astype(np.int32)

    def on_host(self) -> dict[str, Any]:
        """Arrays that are copied to the device for the compiled step.

        They are `clips`, `labels`, `subjects`, `views` and, where training sees other frames than
        evaluation, `train_clips`.
        """
        names = ("clips", "labels", "subjects", "views")
        arrays = {name: getattr(self, name) for name in names}
        return arrays if self.train_clips is None else arrays | {"train_clips": self.train_clips}

    @property
    def clip_ids(self) -> list[str]:
        """`subject/clip` of every row: unique over all datasets."""
        return [f"{s}/{c}" for s, c in zip(self.table["subject"], self.table["clip"], strict=True)]

"""A dataset as it lies on the device: one table and the arrays its rows index."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from mexjax import protocols
from mexjax.data import keyframes, synthetic
from mexjax.errors import ConfigError, DataError, unknown_name
from mexjax.models import get_model
from mexjax.ops import flow_frames
from mexjax.ops.flow import MIN_SIDE_PX

CONTROLS = ("none", "static", "shuffled_labels")
SPLITS = ("train", "all")


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
    """

    name: str
    table: pd.DataFrame
    clips: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    train_clips: np.ndarray | None = None

    @property
    def task(self) -> str:
        """What the labels say: `emotion` or `au`."""
        return "au" if self.labels.ndim == 2 else "emotion"

    @property
    def subjects(self) -> np.ndarray:
        """i32[N]: number of the subject of every row, counted over all datasets from 0."""
        return pd.factorize(self.table["subject"], sort=True)[0].astype(np.int32)

    def on_host(self) -> dict[str, np.ndarray]:
        """What the compiled step reads: `clips`, `labels`, `subjects` and, where training sees
        other frames than evaluation, `train_clips`."""
        arrays = {"clips": self.clips, "labels": self.labels, "subjects": self.subjects}
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
        if data[key] and data.name == "synthetic":
            raise ConfigError(
                f"data.{key}={data[key]!r} is for prepared datasets; data.name=synthetic takes"
                " none. Add --config.data.name=prepared."
            )
    paper = get_model(config.model.name)
    for key, value, takes in (
        ("data.view", data.view, paper.VIEWS),
        ("protocol.task", config.protocol.task, paper.TASKS),
    ):
        if value not in takes:
            raise ConfigError(f"{key}={value!r}: {config.model.name} takes {' or '.join(takes)}.")
    if data.view == "key_frames" and data.num_frames != 3:
        raise ConfigError(
            f"data.view=key_frames gives onset, apex and offset: set data.num_frames=3, found"
            f" {data.num_frames}."
        )
    if data.control not in CONTROLS:
        raise ConfigError(unknown_name("data.control", data.control, CONTROLS))
    choice, splits = data.key_frames.choice, data.key_frames.splits
    if splits not in SPLITS:
        raise ConfigError(unknown_name("data.key_frames.splits", splits, SPLITS))
    if choice != "annotated" and data.view != "key_frames":
        raise ConfigError(
            f"data.key_frames.choice={choice!r} needs data.view=key_frames, found"
            f" {data.view!r}: {config.model.name} takes {' or '.join(takes)}."
        )
    is_only_train = data.view == "key_frames" and choice != "annotated" and splits == "train"
    table, clips = SOURCES[data.name](config, "annotated" if is_only_train else choice)
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
        sets = [_with_flow(clips, config) for clips in sets]
    if data.control == "shuffled_labels":
        labels = np.random.default_rng([config.seed, 0x5F]).permutation(labels)
    train_clips = sets[1] if is_only_train else None
    return Dataset(
        data.name, table, sets[0], labels.astype(np.int32), tuple(class_names), train_clips
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
    for key, value in (
        ("augment.gain_std", config.augment.gain_std),
        ("data.split_scale", data.split_scale),
    ):
        if value not in (0, "none"):
            raise ConfigError(
                f"{key}={value} changes the brightness of pixels; with model.feature=flow some are"
                " no images. Set it to 0 or none."
            )
    return flow_frames.with_flow(clips, data.key_frames.flow_method, len(os.sched_getaffinity(0)))


def list_datasets() -> list[str]:
    """Names that `data.name` takes."""
    return sorted(SOURCES)


def _load_synthetic(config: ConfigDict, choice: str) -> tuple[pd.DataFrame, np.ndarray]:
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
    return synthetic.generate(settings, view=data.view, choice=choice, rule=_rule(config))


def _load_prepared(config: ConfigDict, choice: str) -> tuple[pd.DataFrame, np.ndarray]:
    """The clips of `python -m mexjax.prepare`, each as `num_frames` frames from onset to offset.

    The frames of every clip are sampled and scaled once and kept below the prepared folder, so the
    next run with the same frame count, size and colour maps a file.

    Raises:
      ConfigError: no root, or `data.datasets` names one that is not in it.
      DataError: the folder was not prepared, or is damaged.
    """
    # Imported here: the readers of records take a second, and the embedded dataset needs none.
    from mexjax.data import views
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
    params = {"size_px": data.image_size_px, "is_color": data.is_color}
    if data.view == "uniform":
        params |= {"num_frames": data.num_frames, "rule": data.sampling}
    else:
        params |= {"choice": choice, **dataclasses.asdict(_rule(config))}
    with _view_bar(config.has_progress) as progress:
        return table, views.compute_view(root, table, data.view, params, progress=progress)


def _rule(config: ConfigDict) -> keyframes.Rule:
    keys = config.data.key_frames
    return keyframes.Rule(keys.window, keys.lambda_rise, keys.lambda_fall, keys.difference)


@contextmanager
def _view_bar(is_shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal while frames are sampled; nothing where they were before."""
    console = Console()
    if not (is_shown and console.is_terminal):
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("sampling clips", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


SOURCES: dict[str, Callable[[ConfigDict, str], tuple[pd.DataFrame, np.ndarray]]] = {
    "prepared": _load_prepared,
    "synthetic": _load_synthetic,
}

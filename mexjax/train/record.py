"""From the recorded groups of a finished run to the files that its report reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from mexjax import machine
from mexjax.data.dataset import Dataset
from mexjax.files import digest, sealed
from mexjax.protocol import splits
from mexjax.protocol.scoring import evaluation_scores
from mexjax.protocol.splits import Fold
from mexjax.report.agreement import config_digest
from mexjax.train.study import Study
from mexjax.train.workdir import Workdir

log = logging.getLogger(__name__)

Rows = list[dict[str, np.ndarray]]


def has_record(folder: Workdir) -> bool:
    """True if the run was finished before."""
    return all((folder.path / name).is_file() for name in ("predictions.npz", "run.json"))


def read_rows(fold_ids: Sequence[int], folder: Workdir) -> Rows | None:
    """The record of each fold, in the order of `fold_ids`; None if any is missing."""
    groups = {index: folder.load_group(index) for index in folder.recorded_groups()}
    return rows_of(fold_ids, [group for group in groups.values() if group])


def rows_of(fold_ids: Sequence[int], groups: Iterable[dict[str, np.ndarray]]) -> Rows | None:
    """The record of each fold, out of those of groups; None if any is missing."""
    rows: dict[int, dict[str, np.ndarray]] = {}
    for group in groups:
        for row, fold_id in enumerate(group["fold_id"]):
            rows[int(fold_id)] = {name: array[row] for name, array in group.items()}
    return [rows[i] for i in fold_ids] if set(rows) >= set(fold_ids) else None


def save_vanished(folder: Workdir, groups: Mapping[int, dict[str, np.ndarray]]) -> None:
    """Writes records of groups again that went or were damaged while others were trained.

    Args:
      folder: folder of the run.
      groups: groups by number, from memory.
    """
    for index, group in groups.items():
        if folder.load_group(index) is None:
            log.warning("%s is gone; it is written again.", folder.group_file(index))
            folder.save_group(index, group)


def write_record(
    study: Study, folder: Workdir, records: Rows, compile_s: float, total_s: float
) -> None:
    """Writes `folds.json`, `predictions.npz`, `sheet.npz`, `features.npz` and, last, `run.json`.

    Args:
      study: the run.
      folder: folder of the run.
      records: of each of its folds.
      compile_s: seconds this process spent before training.
      total_s: seconds this process spent.

    Raises:
      WorkdirError: a file cannot be written.
    """
    dataset, config = study.dataset, study.config
    # The files list folds in the protocol's order, whatever order they were trained in.
    order = np.argsort(study.fold_ids)
    folds = [study.folds[i] for i in order]
    rows = [records[i] for i in order]
    where = np.concatenate([fold.test for fold in folds])
    logits = [row["logits"][:, : len(fold.test)] for row, fold in zip(rows, folds, strict=True)]
    curves = [name for name in rows[0] if name.startswith("curve_")]

    listed = splits.folds_to_json(
        study.all_folds, dataset.clip_ids, config.protocol.name, dataset.class_names
    )
    folder.save_json("folds.json", listed)
    digests = {
        "config.json": config_digest(config.to_dict()),
        "folds.json": digest((folder.path / "folds.json").read_bytes()),
    }
    digests["predictions.npz"] = folder.save_arrays(
        folder.path / "predictions.npz",
        {
            "logits": np.concatenate(logits, axis=1).transpose(1, 0, 2),
            "label": dataset.labels[where],
            "clip": np.array(dataset.clip_ids)[where],
            "subject": dataset.table["subject"].to_numpy(dtype=str)[where],
            "fold": np.array([fold.name for fold in folds for _ in fold.test]),
            "epoch": np.array(study.schedule.eval_epochs, np.int32),
            "classes": np.array(dataset.class_names),
            "fold_names": np.array([fold.name for fold in folds]),
            **_validation(dataset, folds, rows),
            **{name: np.stack([row[name] for row in rows]) for name in curves},
        },
    )
    if "extra_dynamic_image" in rows[0] and config.report.num_sheet_clips > 0:
        images = [
            row["extra_dynamic_image"][: len(fold.test)]
            for row, fold in zip(rows, folds, strict=True)
        ]
        sheet = _sheet(study, where, np.concatenate(images))
        digests["sheet.npz"] = folder.save_arrays(folder.path / "sheet.npz", sheet)
    outputs = {
        name.removeprefix("extra_"): np.concatenate(
            [row[name][: len(fold.test)] for row, fold in zip(rows, folds, strict=True)]
        )
        for name in rows[0]
        if name.startswith("extra_") and name != "extra_dynamic_image"
    }
    features = study.paper.features(config, dataset, where, outputs)
    if features:
        digests["features.npz"] = folder.save_arrays(folder.path / "features.npz", features)
    train_s, eval_s, clips = np.sum([row["seconds"] for row in rows], axis=0)
    folder.save_json(
        "run.json",
        sealed(
            {
                "schema": 1,
                "model": config.model.name,
                "preset": config.model.preset,
                "dataset": dataset.name,
                "task": dataset.task,
                "control": config.data.control,
                "protocol": config.protocol.name,
                "classes": list(dataset.class_names),
                "seed": config.seed,
                "num_params": int(rows[0]["num_params"]),
                "notices": [*study.paper.notices(config), *dataset.notices],
                "left_out": dataset.left_out,
                "timing": {
                    "compile_s": compile_s,
                    "train_s": float(train_s),
                    "eval_s": float(eval_s),
                    "total_s": total_s,
                    "clips_per_s": float(clips / max(train_s, 1e-9)),
                },
                "environment": machine.environment()
                | {
                    "devices_used": [device.device_kind for device in study.devices],
                    "strategy": study.strategy,
                },
                "digests": digests,
            }
        ),
    )


def _validation(dataset: Dataset, folds: list[Fold], rows: Rows) -> dict[str, np.ndarray]:
    """Scores f32[F, E] on the inner subjects of each training fold; NaN without such subjects.

    They are accuracies or, for action units, means of F1.
    """
    out = np.full((len(folds), rows[0]["logits"].shape[0]), np.nan, np.float32)
    for f, (fold, row) in enumerate(zip(folds, rows, strict=True)):
        if len(fold.validation):
            start = len(fold.test)
            inner = row["logits"][:, start : start + len(fold.validation)].swapaxes(0, 1)
            out[f] = evaluation_scores(dataset.task, dataset.labels[fold.validation], inner)
    return {"validation_f1" if dataset.task == "au" else "validation_accuracy": out}


def _sheet(study: Study, where: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
    """A few held-out clips of as many classes as can be, with true and constructed images."""
    dataset, config = study.dataset, study.config
    labels = dataset.labels[where]
    places: list[int] = []
    turn = 0
    per_class = [list(np.flatnonzero(labels == k)) for k in range(len(dataset.class_names))]
    while len(places) < min(config.report.num_sheet_clips, len(where)):
        queue = per_class[turn % len(per_class)]
        if queue:
            # Clips come from the middle of a class, so that they are of different subjects.
            places.append(int(queue.pop(len(queue) // 2)))
        turn += 1
    clips = dataset.clips[where[places]]
    crop = config.augment.crop_px or clips.shape[2]
    start = (clips.shape[2] - crop) // 2
    clips = clips[:, :, start : start + crop, start : start + crop]
    frames = jnp.asarray(clips, jnp.float32) / 255.0
    target = study.paper.targets(frames, study.options)["dynamic_image"]
    titles = [f"{dataset.class_names[labels[i]]}, {dataset.clip_ids[where[i]]}" for i in places]
    return {
        "frames": clips.mean(axis=-1).astype(np.uint8),
        "target": np.asarray(target),
        "constructed": images[places],
        "title": np.array(titles),
    }

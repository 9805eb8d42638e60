"""Read the files of a finished run and check them; docs/results_format.md describes them.

Nothing here needs a model or the data: a run folder copied to another machine is enough.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mexjax.errors import DataError, WorkdirError
from mexjax.files import is_folder, open_regular, read_regular
from mexjax.protocol.fold_list import SIDES, checked_folds
from mexjax.protocol.scoring import TASKS
from mexjax.report.agreement import ANEW, check_agreement

# Entries of predictions.npz: kind of dtype ("i" takes any integer) and number of axes.
_ARRAYS = {
    "logits": ("f", 3),
    "label": ("i", 1),
    "clip": ("U", 1),
    "subject": ("U", 1),
    "fold": ("U", 1),
    "epoch": ("i", 1),
    "classes": ("U", 1),
    "fold_names": ("U", 1),
}
_SHEET = {"frames": ("u", 4), "target": ("f", 3), "constructed": ("f", 3), "title": ("U", 1)}
_FEATURES = {
    "emotion_scores": ("f", 2),
    "score_emotion": ("U", 1),
    "emotion": ("i", 1),
    "emotion_classes": ("U", 1),
    "cosines": ("f", 3),
    "landmark_tokens": ("i", 3),
    "face": ("u", 4),
    "face_row": ("i", 1),
}
_RUN_TEXTS = ("model", "preset", "dataset", "protocol", "control")
# Errors of a damaged .npz file.
_DAMAGE = (OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, RuntimeError)
_DAMAGE += (zipfile.BadZipFile, zlib.error)
# Entry of predictions.npz with the scores on inner subjects, by task.
_VALIDATION = {"emotion": "validation_accuracy", "au": "validation_f1"}


@dataclasses.dataclass(frozen=True)
class Run:
    """The content of a run folder; N held-out clips, E evaluations, K classes, F folds trained.

    Attributes:
      path: the folder.
      config: config.json.
      info: run.json.
      folds: the entries of folds.json, in their order.
      logits: f32[N, E, K]; finite at the last evaluation.
      label: i64[N] classes, or 0/1 i64[N, K] action units.
      clip: U[N], "<subject>/<clip>".
      subject: U[N].
      fold: U[N], name of the fold that holds the clip out.
      epoch: i64[E], epochs trained at each evaluation.
      classes: U[K] names, of classes or action units.
      fold_names: U[F], folds that were trained, in the order of `folds`.
      curves: name -> f32[F, epochs], training means per epoch (nan: no such epoch).
      validation_score: f32[F, E] accuracy, or mean F1 of the units, on the inner subjects; None
        without inner subjects.
      sheet: arrays of sheet.npz, or None.
      features: arrays of features.npz of a model that compares units with texts, or None.
    """

    path: Path
    config: dict[str, Any]
    info: dict[str, Any]
    folds: list[dict[str, Any]]
    logits: np.ndarray
    label: np.ndarray
    clip: np.ndarray
    subject: np.ndarray
    fold: np.ndarray
    epoch: np.ndarray
    classes: np.ndarray
    fold_names: np.ndarray
    curves: dict[str, np.ndarray]
    validation_score: np.ndarray | None
    sheet: dict[str, np.ndarray] | None
    features: dict[str, np.ndarray] | None = None

    @property
    def task(self) -> str:
        """`emotion` or `au`."""
        return self.info.get("task", "emotion")

    @property
    def is_partial(self) -> bool:
        """True if some folds of the protocol were not trained."""
        return len(self.fold_names) < len(self.folds)


def read_run(workdir: str | Path) -> Run:
    """Read config.json, folds.json, run.json, predictions.npz and, if there, sheet.npz.

    Raises:
      WorkdirError: a file is missing or unreadable.
      DataError: a file is not of the documented form, or two files contradict each other.
    """
    path = Path(workdir).expanduser()
    if not is_folder(path):
        raise WorkdirError(f"No run folder at {path} (looked from {Path.cwd()}).")
    config, info = _read_json(path / "config.json"), _read_json(path / "run.json")
    for name in _RUN_TEXTS:
        if not isinstance(info.get(name), str):
            raise DataError(
                f"{path / 'run.json'}: expected the text {name!r}, found {info.get(name)!r}."
            )
    if not isinstance(info.get("seed"), int):
        raise DataError(f"{path / 'run.json'}: expected a whole number 'seed'.")
    task = info.get("task", "emotion")
    if task not in TASKS:
        raise DataError(
            f"{path / 'run.json'}: expected a task among {', '.join(TASKS)}, found {task!r}."
        )
    fold_list = checked_folds(_read_json(path / "folds.json"), source=str(path / "folds.json"))
    check_agreement(path, config, info, fold_list)
    source = path / "predictions.npz"
    arrays = read_arrays(source, _ARRAYS | {"label": ("i", 2 if task == "au" else 1)})
    curves = {
        name.removeprefix("curve_"): value
        for name, value in arrays.items()
        if name.startswith("curve_")
    }
    validation = arrays.get(_VALIDATION[task])
    if validation is not None and not np.isfinite(validation).all():
        validation = None
    sheet, features = path / "sheet.npz", path / "features.npz"
    run = Run(
        path=path,
        config=config,
        info=info,
        folds=fold_list["folds"],
        curves=curves,
        validation_score=validation,
        sheet=read_arrays(sheet, _SHEET) if sheet.is_file() else None,
        features=_read_features(features),
        **{name: arrays[name] for name in _ARRAYS},
    )
    _check_shapes(run, source)
    _check_values(run, source, fold_list["classes"])
    _check_clips(run, source)
    if run.sheet is not None:
        _check_sheet(run.sheet, sheet)
    if run.features is not None:
        _check_features(run, features)
    return run


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(path))
    except FileNotFoundError:
        raise WorkdirError(
            f"{path} is missing, so {path.parent} is not the folder of a finished run."
            " Start the run again to finish it, or give another folder."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).rstrip(".")[:200]
        raise WorkdirError(f"{path} cannot be read as JSON: {reason}. {ANEW}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


def read_arrays(path: Path, entries: dict[str, tuple[str, int]]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file of a run.

    Args:
      path: the file.
      entries: arrays that must be there: kind of dtype and number of axes of each.

    Raises:
      WorkdirError: the file is missing or damaged.
      DataError: an array is missing or of another form.
    """
    try:
        with open_regular(path) as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise WorkdirError(
            f"{path} is missing, so {path.parent} is not the folder of a finished run."
            " Start the run again to finish it, or give another folder."
        ) from None
    except _DAMAGE as error:
        raise WorkdirError(
            f"{path} cannot be read as an .npz file of plain arrays: {str(error)[:200]}."
            f" It is damaged or was written by another program. {ANEW}"
        ) from error
    for name, (kind, axes) in entries.items():
        if name not in arrays:
            raise DataError(
                f"{path}: expected the array {name!r}, found {', '.join(sorted(arrays))}."
            )
        array = arrays[name]
        kinds = "iu" if kind == "i" else kind
        if array.dtype.kind not in kinds or array.ndim != axes:
            raise DataError(
                f"{path}: expected {name!r} with {axes} axes and a dtype of kind {kind!r}, found"
                f" shape {array.shape} and dtype {array.dtype}."
            )
        if kind == "i":
            arrays[name] = array.astype(np.int64)
    return arrays


def _read_features(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of features.npz, or None where the report makes nothing of them."""
    if not path.is_file() or "emotion_scores" not in read_arrays(path, {}):
        return None
    return read_arrays(path, _FEATURES)


def _check_shapes(run: Run, source: Path) -> None:
    clips, evaluations, classes = run.logits.shape
    fewest = 1 if run.task == "au" else 2
    if not clips or not evaluations or classes < fewest:
        raise DataError(
            f"{source}: expected logits [clips, evaluations, classes] of at least one clip, one"
            f" evaluation and two classes (one action unit), found {run.logits.shape}."
        )
    expected = {
        "label": (clips, classes) if run.task == "au" else (clips,),
        "clip": (clips,),
        "subject": (clips,),
        "fold": (clips,),
        "epoch": (evaluations,),
        "classes": (classes,),
    }
    for name, shape in expected.items():
        if getattr(run, name).shape != shape:
            raise DataError(
                f"{source}: {name!r} has shape {getattr(run, name).shape}, but logits"
                f" {run.logits.shape} ask for {shape}."
            )
    folds = len(run.fold_names)
    for name, curve in run.curves.items():
        if curve.dtype.kind != "f" or curve.ndim != 2 or len(curve) != folds:
            raise DataError(
                f"{source}: 'curve_{name}' must be an array of floats [{folds} folds, epochs],"
                f" found shape {curve.shape} and dtype {curve.dtype}."
            )
    inner = run.validation_score
    if inner is not None and inner.shape != (folds, evaluations):
        raise DataError(
            f"{source}: {_VALIDATION[run.task]!r} must be [{folds} folds, {evaluations}"
            f" evaluations], found {inner.shape}."
        )


def _check_values(run: Run, source: Path, listed_classes: list[str]) -> None:
    if run.classes.tolist() != listed_classes:
        raise DataError(
            f"{source} has the classes {', '.join(run.classes)}, but folds.json beside it"
            f" {', '.join(listed_classes)}. The files are from different runs."
        )
    largest = 1 if run.task == "au" else len(run.classes) - 1
    if run.label.min() < 0 or run.label.max() > largest:
        raise DataError(
            f"{source}: labels must be in 0..{largest}, found {run.label.min()}..{run.label.max()}."
        )
    if (np.diff(run.epoch) <= 0).any():
        raise DataError(f"{source}: 'epoch' must increase, found {run.epoch.tolist()}.")
    bad = ~np.isfinite(run.logits[:, -1]).all(axis=-1)
    if bad.any():
        folds = ", ".join(np.unique(run.fold[bad]))
        raise DataError(
            f"{source}: the last evaluation has logits that are not finite for {bad.sum()} of"
            f" {bad.size} clips (folds {folds}): training diverged there, and no metric of it"
            " would mean anything. Train again with a smaller train.learning_rate."
        )


def _check_clips(run: Run, source: Path) -> None:
    held_out = {clip: fold["name"] for fold in run.folds for clip in fold["test"]}
    values, counts = np.unique(run.clip, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{source} holds out the clip {str(values[counts > 1][0])!r} twice.")
    columns = (run.clip.tolist(), run.subject.tolist(), run.fold.tolist())
    for clip, subject, fold in zip(*columns, strict=True):
        if held_out.get(clip) != fold:
            raise DataError(
                f"{source}: clip {clip!r} is predicted in fold {fold!r}, but folds.json holds it"
                f" out in {held_out.get(clip)!r}. The files are from different runs."
            )
        if not clip.startswith(f"{subject}/"):
            raise DataError(f"{source}: clip {clip!r} does not belong to subject {subject!r}.")
    for fold in run.folds:
        subjects = {clip.rpartition("/")[0] for side in SIDES[:2] for clip in fold[side]}
        both = subjects & {clip.rpartition("/")[0] for clip in fold["test"]}
        if both:
            raise DataError(
                f"{source.parent / 'folds.json'}: fold {fold['name']!r} tests on subject"
                f" {min(both)!r} and also uses it for training or selection; its numbers would"
                " not be held out."
            )
    order = [fold["name"] for fold in run.folds if fold["name"] in set(run.fold_names)]
    if run.fold_names.tolist() != order:
        raise DataError(
            f"{source}: 'fold_names' must be names of folds.json in its order, found"
            f" {', '.join(run.fold_names)}."
        )
    for fold in run.folds:
        expected = len(fold["test"]) if fold["name"] in order else 0
        count = int((run.fold == fold["name"]).sum())
        if count != expected:
            raise DataError(
                f"{source}: fold {fold['name']!r} has predictions of {count} clips, expected"
                f" {expected}. The run was not finished, or the file is damaged."
            )


def _check_sheet(sheet: dict[str, np.ndarray], source: Path) -> None:
    rows = len(sheet["frames"])
    for name, array in sheet.items():
        if len(array) != rows or not array.size:
            raise DataError(
                f"{source}: {name!r} has shape {array.shape}, but there are {rows} clips."
            )


def _check_features(run: Run, source: Path) -> None:
    arrays = run.features or {}
    clips, units = len(run.clip), len(run.classes)
    expected = {
        "emotion_scores": (clips, len(arrays["score_emotion"])),
        "emotion": (clips,),
        "cosines": (clips, units, 2),
        "landmark_tokens": (clips, units, arrays["landmark_tokens"].shape[-1]),
        "face": (len(arrays["face_row"]), *arrays["face"].shape[1:]),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise DataError(
                f"{source}: {name!r} has shape {arrays[name].shape}, but {clips} clips and {units}"
                f" action units ask for {shape}. The files are from different runs."
            )
    for name, limit in (("emotion", len(arrays["emotion_classes"])), ("face_row", clips)):
        numbers = arrays[name]
        if numbers.size and (numbers.min() < -1 or numbers.max() >= limit):
            raise DataError(f"{source}: {name!r} must be below {limit}, found {numbers.max()}.")

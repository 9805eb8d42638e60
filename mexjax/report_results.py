"""From the saved predictions of a run to its numbers.

Three ways to choose the evaluation that counts, kept apart everywhere:

* `last`: the last evaluation. Nothing was chosen; this is the number to cite.
* `selected`: per fold the evaluation with the best accuracy on inner subjects that were neither
  trained on nor tested. Only in runs with `protocol.num_validation_subjects` > 0.
* `oracle`: per fold the evaluation with the best accuracy *on the test clips*. The released code
  of several papers reports this. It is not an estimate of anything: the test set chose.

Ties go to the first of the best evaluations.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pandas as pd

from mexjax import metrics, stats
from mexjax.report_files import Run

SCHEMA_VERSION = 1
ORACLE_NOTE = "best epoch on the test subjects; selected on the test subjects, not comparable"
NOTES = {
    "last": "last evaluation; nothing was selected",
    "selected": "per fold the evaluation with the best accuracy on inner validation subjects",
    "oracle": "selected on the test subjects: per fold the evaluation with the best accuracy on"
    " its own test clips; not comparable with numbers that were not selected on the test set",
}
SUMMARY = ("acc", "uf1", "uar")  # what is given per fold, per subject and with an interval


def choose_evaluations(run: Run) -> dict[str, np.ndarray]:
    """For `last`, `selected` (if inner subjects exist) and `oracle`: i64[F], the evaluation."""
    prediction = predict(run.logits)
    rows = [run.fold == name for name in run.fold_names]
    # An evaluation with logits that are not finite is never the best one.
    is_usable = np.stack([(prediction[r] >= 0).all(axis=0) for r in rows])
    accuracy = np.stack([(prediction[r] == run.label[r, None]).mean(axis=0) for r in rows])
    chosen = {"last": np.full(len(rows), len(run.epoch) - 1)}
    if run.validation_accuracy is not None:
        chosen["selected"] = np.where(is_usable, run.validation_accuracy, -1).argmax(axis=1)
    chosen["oracle"] = np.where(is_usable, accuracy, -1).argmax(axis=1)
    return chosen


def predict(logits: np.ndarray) -> np.ndarray:
    """Class with the largest logit, i64[...]; -1 (no class) where a logit is not finite."""
    is_finite = np.isfinite(logits).all(axis=-1)
    return np.where(is_finite, np.where(np.isfinite(logits), logits, 0.0).argmax(axis=-1), -1)


def predictions_at(run: Run, evaluation: np.ndarray) -> np.ndarray:
    """Predicted classes i64[N] when fold f is read at evaluation[f]."""
    of_fold = dict(zip(run.fold_names.tolist(), evaluation.tolist(), strict=True))
    index = np.array([of_fold[name] for name in run.fold.tolist()])
    return predict(run.logits[np.arange(len(index)), index])


def group_numbers(names: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Different names in order of appearance, and the number of each row's name."""
    known = list(dict.fromkeys(names.tolist()))
    number = {name: i for i, name in enumerate(known)}
    return known, np.array([number[name] for name in names.tolist()])


def subject_confusions(run: Run, prediction: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Subjects in order of appearance and their confusion matrices i64[G, K, K]."""
    subjects, group = group_numbers(run.subject)
    return subjects, metrics.grouped_confusion(
        run.label, prediction, group, len(subjects), len(run.classes)
    )


def compute_results(run: Run) -> dict[str, Any]:
    """The content of results.json (docs/results_format.md), ready for JSON: nan is null."""
    info = run.info
    chosen = choose_evaluations(run)
    predicted = {name: predictions_at(run, evaluation) for name, evaluation in chosen.items()}
    results: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **{name: info[name] for name in ("model", "preset", "dataset", "protocol")},
        "classes": run.classes.tolist(),
        "seed": info["seed"],
        "control": info["control"],
        "split_scale": run.config.get("data", {}).get("split_scale", "none"),
        "num_params": info.get("num_params"),
        "num_clips": len(run.label),
        "num_subjects": len(set(run.subject.tolist())),
        "num_folds": len(run.fold_names),
        "num_folds_of_protocol": len(run.folds),
        "is_partial": run.is_partial,
        "metrics": {name: _metrics(run, name, predicted[name]) for name in chosen},
        "folds": _folds(run, chosen, predicted),
        "subjects": _subjects(run, predicted),
        "curves": _curves(run),
        "timing": info.get("timing", {}),
        "environment": info.get("environment", {}),
    }
    datasets = np.array([subject.rpartition("/")[0] for subject in run.subject.tolist()])
    if len(set(datasets.tolist())) > 1:
        results["datasets"] = _datasets(run, datasets, predicted)
    paper = paper_results(run)
    if paper:
        results["paper_results"] = paper
    return to_json_value(results)


def paper_results(run: Run) -> dict[str, float]:
    """Published numbers for this dataset and class count, as fractions.

    `config.report.paper_results` is `{"<dataset>_<classes>": {"acc": 87.5, "uf1": 86.2}}`;
    numbers above 1 are read as percent.
    """
    published = run.config.get("report", {}).get("paper_results") or {}
    values = published.get(f"{run.info['dataset']}_{len(run.classes)}") or {}
    return {name: value / 100 if value > 1 else float(value) for name, value in values.items()}


def predictions_csv(run: Run) -> str:
    """predictions.csv: one row a held-out clip at the last evaluation, in the order of the run."""
    table = pd.DataFrame(
        {
            "clip": run.clip,
            "subject": run.subject,
            "fold": run.fold,
            "label": run.classes[run.label],
            "prediction": run.classes[predict(run.logits[:, -1])],
        }
        | {f"logit_{name}": run.logits[:, -1, k] for k, name in enumerate(run.classes)}
    )
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.6g", lineterminator="\n")
    return text.getvalue()


def to_json_value(value: Any) -> Any:
    """Plain JSON types; floats rounded to 6 decimals, those that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json_value(value.tolist())
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _metrics(run: Run, choice: str, prediction: np.ndarray) -> dict[str, Any]:
    _, by_subject = subject_confusions(run, prediction)
    pooled = by_subject.sum(0)
    per_class = metrics.class_scores(pooled)
    return {
        **metrics.scores(pooled),
        "note": NOTES[choice],
        "confusion": pooled,
        "per_class": {
            name: {
                "n": int(per_class["num_true"][k]),
                "precision": per_class["precision"][k],
                "recall": per_class["recall"][k],
                "f1": per_class["f1"][k],
            }
            for k, name in enumerate(run.classes.tolist())
        },
        "subject_mean": metrics.subject_means(by_subject),
        "ci95": stats.bootstrap_intervals(by_subject, metrics=SUMMARY),
    }


def _summary(run: Run, rows: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    confusion = metrics.confusion_matrix(run.label[rows], prediction[rows], len(run.classes))
    values = metrics.scores(confusion)
    return {name: values[name] for name in SUMMARY}


def _folds(
    run: Run, chosen: dict[str, np.ndarray], predicted: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    listed = {fold["name"]: fold for fold in run.folds}
    out = []
    for f, name in enumerate(run.fold_names.tolist()):
        rows = np.flatnonzero(run.fold == name)
        sizes = {f"n_{side}": len(listed[name][side]) for side in ("train", "validation", "test")}
        values = {
            choice: _summary(run, rows, predicted[choice]) | {"epoch": run.epoch[evaluation[f]]}
            for choice, evaluation in chosen.items()
        }
        out.append({"name": name, **sizes, **values})
    return out


def _subjects(run: Run, predicted: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    subjects, group = group_numbers(run.subject)
    out = []
    for g, name in enumerate(subjects):
        rows = np.flatnonzero(group == g)
        values = {choice: _summary(run, rows, p) for choice, p in predicted.items()}
        out.append({"name": name, "n": len(rows), **values})
    return out


def _datasets(
    run: Run, datasets: np.ndarray, predicted: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    out = []
    for name in dict.fromkeys(datasets.tolist()):
        rows = np.flatnonzero(datasets == name)
        values = {choice: _summary(run, rows, p) for choice, p in predicted.items()}
        out.append({"name": name, "n": len(rows), **values})
    return out


def _curves(run: Run) -> dict[str, Any]:
    """Pooled held-out metrics at every evaluation; null where a logit is not finite."""
    values: dict[str, list[float]] = {name: [] for name in SUMMARY}
    for evaluation in range(len(run.epoch)):
        prediction = predict(run.logits[:, evaluation])
        if (prediction < 0).any():
            scores = dict.fromkeys(SUMMARY, float("nan"))
        else:
            scores = metrics.scores(
                metrics.confusion_matrix(run.label, prediction, len(run.classes))
            )
        for name in SUMMARY:
            values[name].append(float(scores[name]))
    return {"epoch": run.epoch, **values}

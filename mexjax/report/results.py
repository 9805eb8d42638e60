"""The saved predictions of a run become its numbers.

There are three ways to choose the evaluation that counts, kept apart everywhere:

* `last`: the last evaluation. Nothing was chosen; this is the number to cite.
* `selected`: per fold the evaluation with the best accuracy on inner subjects that were neither
  trained on nor tested. Only in runs with `protocol.num_validation_subjects` > 0.
* `oracle`: per fold the evaluation with the best accuracy *on the test clips*. The released code
  of several papers reports this. It is not an estimate of anything: the test set chose.

For action units the mean F1 takes the place of the accuracy. Ties go to the first of the best
evaluations.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pandas as pd

from mexjax.protocol import metrics
from mexjax.protocol.scoring import evaluation_scores, pooled_scores, scoring_of
from mexjax.report import stats
from mexjax.report.files import Run
from mexjax.report.zero_shot import zero_shot_results

SCHEMA_VERSION = 1
NOTES = {
    "last": "last evaluation; nothing was selected",
    "selected": "per fold the evaluation with the best {metric} on inner validation subjects",
    "oracle": "selected on the test subjects: per fold the evaluation with the best {metric} on"
    " its own test clips; not comparable with numbers that were not selected on the test set",
}


def choose_evaluations(run: Run) -> dict[str, np.ndarray]:
    """The evaluation of each fold, i64[F], by the way of choosing it.

    `last` and `oracle` are always there, `selected` only if inner subjects exist.
    """
    rows = [run.fold == name for name in run.fold_names]
    scores = np.stack([evaluation_scores(run.task, run.label[r], run.logits[r]) for r in rows])
    evaluations = {"last": np.full(len(rows), len(run.epoch) - 1)}
    if run.validation_score is not None:
        # An evaluation with logits that are not finite is never the best one.
        evaluations["selected"] = np.where(scores >= 0, run.validation_score, -1).argmax(axis=1)
    evaluations["oracle"] = scores.argmax(axis=1)
    return evaluations


def predictions_at(run: Run, evaluation: np.ndarray) -> np.ndarray:
    """Predicted classes i64[N], or units i64[N, A], when fold f is read at evaluation[f]."""
    of_fold = dict(zip(run.fold_names.tolist(), evaluation.tolist(), strict=True))
    index = np.array([of_fold[name] for name in run.fold.tolist()])
    return scoring_of(run.task).predict(run.logits[np.arange(len(index)), index])


def group_numbers(names: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Different names in order of appearance, and the number of each row's name."""
    distinct = list(dict.fromkeys(names.tolist()))
    number = {name: i for i, name in enumerate(distinct)}
    return distinct, np.array([number[name] for name in names.tolist()])


def subject_confusions(run: Run, prediction: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Subjects in order of appearance and their matrices i64[G, K, K], of units [G, A, 2, 2]."""
    subjects, group = group_numbers(run.subject)
    tables = scoring_of(run.task).tables
    return subjects, tables(run.label, prediction, group, len(subjects), len(run.classes))


def compute_results(run: Run) -> dict[str, Any]:
    """The content of results.json (docs/results_format.md), ready for JSON: nan is null."""
    info = run.info
    evaluations = choose_evaluations(run)
    predictions = {
        name: predictions_at(run, evaluation) for name, evaluation in evaluations.items()
    }
    results: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **{name: info[name] for name in ("model", "preset", "dataset", "protocol")},
        "task": run.task,
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
        "metrics": {name: _metrics(run, name, predictions[name]) for name in evaluations},
        "folds": _folds(run, evaluations, predictions),
        "subjects": _subjects(run, predictions),
        "curves": _curves(run),
        "timing": info.get("timing", {}),
        "environment": info.get("environment", {}),
    }
    datasets = np.array([subject.rpartition("/")[0] for subject in run.subject.tolist()])
    if len(set(datasets.tolist())) > 1:
        results["datasets"] = _datasets(run, datasets, predictions)
    paper = paper_results(run)
    if paper:
        results["paper_results"] = paper
    if info.get("left_out"):
        results["left_out"] = info["left_out"]
    if info.get("notices"):
        results["notices"] = list(info["notices"])
    if run.features is not None:
        texts = run.config.get("model", {}).get("mer_text", "combinations")
        emotions = zero_shot_results(run.features, run.subject, texts)
        results |= {"zero_shot": emotions} if emotions else {}
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
    prediction = scoring_of(run.task).predict(run.logits[:, -1])
    columns: dict[str, np.ndarray] = {"clip": run.clip, "subject": run.subject, "fold": run.fold}
    names = run.classes.tolist()
    if run.task == "au":
        for what, values in (("label", run.label), ("prediction", prediction)):
            columns |= {f"{what}_{name}": values[:, k] for k, name in enumerate(names)}
    else:
        columns |= {"label": run.classes[run.label], "prediction": run.classes[prediction]}
    columns |= {f"logit_{name}": run.logits[:, -1, k] for k, name in enumerate(names)}
    table = pd.DataFrame(columns)
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
    scoring = scoring_of(run.task)
    _, by_subject = subject_confusions(run, prediction)
    pooled = by_subject.sum(0)
    return {
        **scoring.scores(pooled),
        "note": NOTES[choice].format(metric="mean F1" if run.task == "au" else "accuracy"),
        **(_units(run, pooled) if run.task == "au" else _classes(run, pooled, by_subject)),
        "ci95": stats.bootstrap_intervals(
            by_subject, metrics=scoring.summary, score=scoring.scores
        ),
    }


def _classes(run: Run, pooled: np.ndarray, by_subject: np.ndarray) -> dict[str, Any]:
    per_class = metrics.class_scores(pooled)
    return {
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
    }


def _units(run: Run, pooled: np.ndarray) -> dict[str, Any]:
    """Scores of each action unit, and the F1 of saying "present" of every clip."""
    details = metrics.unit_details(pooled)
    counts = details.pop("num_true")
    return {
        "f1_always": details["f1_always"].mean(),
        "per_unit": {
            name: {"n": int(counts[k])} | {key: value[k] for key, value in details.items()}
            for k, name in enumerate(run.classes.tolist())
        },
    }


def _summary(run: Run, rows: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    return pooled_scores(run.task, run.label[rows], prediction[rows], len(run.classes))


def _folds(
    run: Run, evaluations: dict[str, np.ndarray], predictions: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    entries = {fold["name"]: fold for fold in run.folds}
    out = []
    for f, name in enumerate(run.fold_names.tolist()):
        rows = np.flatnonzero(run.fold == name)
        sizes = {f"n_{side}": len(entries[name][side]) for side in ("train", "validation", "test")}
        values = {
            choice: _summary(run, rows, predictions[choice]) | {"epoch": run.epoch[evaluation[f]]}
            for choice, evaluation in evaluations.items()
        }
        out.append({"name": name, **sizes, **values})
    return out


def _subjects(run: Run, predictions: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    subjects, group = group_numbers(run.subject)
    out = []
    for g, name in enumerate(subjects):
        rows = np.flatnonzero(group == g)
        values = {choice: _summary(run, rows, p) for choice, p in predictions.items()}
        out.append({"name": name, "n": len(rows), **values})
    return out


def _datasets(
    run: Run, datasets: np.ndarray, predictions: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    out = []
    for name in dict.fromkeys(datasets.tolist()):
        rows = np.flatnonzero(datasets == name)
        entry: dict[str, Any] = {"name": name, "n": len(rows)}
        if run.task == "au":
            always = metrics.binary_counts(run.label[rows], np.ones_like(run.label[rows]))
            entry["f1_always"] = metrics.mean_binary_f1(always)
        values = {choice: _summary(run, rows, p) for choice, p in predictions.items()}
        out.append(entry | values)
    return out


def _curves(run: Run) -> dict[str, Any]:
    """Pooled held-out metrics at every evaluation; null where a logit is not finite."""
    summary = scoring_of(run.task).summary
    everything = np.arange(len(run.label))
    values: dict[str, list[float]] = {name: [] for name in summary}
    for evaluation in range(len(run.epoch)):
        prediction = scoring_of(run.task).predict(run.logits[:, evaluation])
        scores = dict.fromkeys(summary, float("nan"))
        if (prediction >= 0).all():
            scores = _summary(run, everything, prediction)
        for name in summary:
            values[name].append(float(scores[name]))
    return {"epoch": run.epoch, **values}

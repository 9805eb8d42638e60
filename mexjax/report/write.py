"""A run folder becomes results.json, predictions.csv, report.md and figures, without a model.

docs/results_format.md describes every file that is read and written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mexjax.errors import WorkdirError
from mexjax.files import atomic
from mexjax.report import feature_figures, figures, unit_figures
from mexjax.report.files import Run, read_run
from mexjax.report.results import compute_results, predictions_csv
from mexjax.report.tables import is_units
from mexjax.report.text import heading, report_markdown


class ReportError(WorkdirError):
    """A report that was computed and cannot be written.

    Attributes:
      results: the content of results.json.
    """

    def __init__(self, text: str, results: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.results = results or {}


def write_report(workdir: str | Path) -> dict[str, Any]:
    """Build the report of a finished run; the same files in give the same bytes out.

    Args:
      workdir: folder with config.json, folds.json, run.json, predictions.npz and perhaps
        sheet.npz, as `mexjax.run` leaves it.

    Returns:
      The content of results.json.

    Raises:
      WorkdirError: a file is missing or unreadable.
      ReportError: the folder cannot be written; the error has the results.
      DataError: a file is not of the documented form.
    """
    run = read_run(workdir)
    results = compute_results(run)
    try:
        _write_files(run, results)
    except (WorkdirError, OSError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise ReportError(
            f"Cannot write the report of {run.path}: {cause.strerror or cause}. The run itself is"
            f" complete: make the folder writable, or copy it to a place that is, and give its name"
            " to mexjax report.",
            results,
        ) from error
    return results


def _write_files(run: Run, results: dict[str, Any]) -> None:
    captions = _draw(run, results) if run.config.get("report", {}).get("has_figures", True) else {}
    _write(run.path / "predictions.csv", predictions_csv(run))
    _write(run.path / "report.md", report_markdown(results, captions))
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    _write(run.path / "results.json", text + "\n")


def _draw(run: Run, results: dict[str, Any]) -> dict[str, str]:
    """Write the figures; return the path relative to the folder by caption."""
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    last, oracle = results["metrics"]["last"], results["metrics"]["oracle"]
    title = heading(results)
    if is_units(results):
        pictures = {
            "units.png": (
                "F1 of each action unit over all held-out clips",
                unit_figures.units_figure(last, oracle, title),
            )
        }
        names = {"f1": "mean F1", "acc": "mean accuracy"}
    else:
        pictures = {
            "confusion.png": (
                "Confusion matrix of all held-out clips at the last evaluation",
                figures.confusion_figure(np.array(last["confusion"]), results["classes"], title),
            ),
            "subjects.png": (
                "Accuracy of each held-out subject",
                figures.subjects_figure(results["subjects"], last["acc"], title),
            ),
        }
        names = figures.CLASS_METRICS
    if "loss" in run.curves:
        pictures["curves.png"] = (
            "Training loss, and held-out metrics at every evaluation if there are several",
            figures.curves_figure(run.curves["loss"], results["curves"], oracle, title, names),
        )
    if run.features is not None:
        pictures |= _feature_figures(run, results, title)
    if run.sheet is not None:
        pictures["dynamic_images.png"] = (
            "Held-out clips: frames, their dynamic image, and the one the model constructs",
            figures.sheet_figure(
                run.sheet["frames"],
                run.sheet["target"],
                run.sheet["constructed"],
                run.sheet["title"].tolist(),
            ),
        )
    for name, (_, figure) in pictures.items():
        figures.save_figure(figure, folder / name)
    return {caption: f"figures/{name}" for name, (caption, _) in pictures.items()}


def _feature_figures(run: Run, results: dict[str, Any], title: str) -> dict[str, tuple[str, Any]]:
    """Pictures of features.npz: file name -> caption and figure."""
    features, units = run.features or {}, run.classes.tolist()
    pictures = {
        "similarities.png": (
            "Cosines of held-out clips (rows) with the sentence that is right for each clip"
            " (columns), for each action unit; clips without the unit first",
            feature_figures.similarity_figure(features["cosines"], run.label, units, title),
        )
    }
    if "zero_shot" in results:
        emotions = results["zero_shot"]
        pictures["emotions.png"] = (
            "Emotions without emotion labels: confusion matrix of held-out clips",
            figures.confusion_figure(np.array(emotions["confusion"]), emotions["classes"], title),
        )
    if "attention" in features:
        rows = features["face_row"]
        grid = int(run.config.get("model", {}).get("grid", 7))
        pictures["attention.png"] = (
            "Patches that each action unit is read from, and their weights; framed: units that the"
            " clip shows",
            feature_figures.attention_figure(
                features["face"],
                features["landmark_tokens"][rows],
                features["attention"][rows],
                run.label[rows],
                units,
                run.clip[rows].tolist(),
                grid,
                title,
            ),
        )
    if "features" in features:
        names, counts = np.unique(run.fold, return_counts=True)
        rows = run.fold == names[counts.argmax()]
        pictures["features.png"] = (
            f"t-SNE of the action units' features in the held-out clips of {names[counts.argmax()]}"
            " (one model)",
            feature_figures.feature_map_figure(
                features["features"][rows], run.label[rows], units, title
            ),
        )
    return pictures


def _write(path: Path, text: str) -> None:
    with atomic(path) as file:
        file.write(text)

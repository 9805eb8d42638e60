"""The report over the runs of a sweep: a row a setting, and the setting that was chosen.

A setting is chosen for each fold by its inner validation subjects, who are neither trained on nor
tested. The setting with the best score on the test subjects is shown as `oracle`: the test set
chose it, so its score is no estimate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mexjax import terminal
from mexjax.errors import WorkdirError
from mexjax.files import atomic, read_sealed
from mexjax.protocol.scoring import pooled_scores, scoring_of
from mexjax.report import stats
from mexjax.report.files import Run, read_run
from mexjax.report.results import choose_evaluations, predictions_at, to_json_value
from mexjax.report.tables import HEADS, markdown_table, percent, rich_table
from mexjax.terminal import plain

FILE, RESULTS, REPORT, RUNS = "sweep.json", "sweep_results.json", "sweep.md", "runs"
Scores = dict[str, float]
_SHORT = {"acc": "accuracy", "uf1": "UF1", "uar": "UAR", "f1": "F1"}
# The way each number was chosen, in words.
NOTES = {
    "chosen": "per fold the setting with the best score on inner validation subjects, at the last"
    " evaluation",
    "oracle": "the setting with the best score on the test subjects; not comparable with numbers"
    " that were not selected on the test set",
}


def is_sweep(folder: Path) -> bool:
    """True if a folder is that of a sweep."""
    return (folder / FILE).is_file()


def write_sweep_report(folder: str | Path) -> dict[str, Any]:
    """Build `sweep_results.json` and `sweep.md` of a sweep from its finished runs.

    Returns:
      The content of `sweep_results.json` (docs/results_format.md).

    Raises:
      WorkdirError: a file is missing, damaged, or cannot be written.
      DataError: see `read_run`.
    """
    path = Path(folder).expanduser()
    content = read_sealed(path / FILE)
    if content is None:
        raise WorkdirError(
            f"{path / FILE} is missing or damaged, so the runs of this sweep are not known. Start"
            " the sweep again: it keeps what is finished."
        )
    runs = {
        entry["name"]: read_run(path / RUNS / entry["name"])
        for entry in content["runs"]
        if (path / RUNS / entry["name"] / "run.json").is_file()
    }
    results = to_json_value(sweep_results(content, runs))
    try:
        with atomic(path / RESULTS) as file:
            json.dump(results, file, indent=1, ensure_ascii=False, allow_nan=False)
        with atomic(path / REPORT) as file:
            file.write(sweep_markdown(results))
    except OSError as error:
        raise WorkdirError(
            f"Cannot write the report of the sweep {path}: {error.strerror or error}. Its runs are"
            " complete; make the folder writable and start mexjax report again."
        ) from error
    return results


def sweep_results(content: Mapping[str, Any], runs: Mapping[str, Run]) -> dict[str, Any]:
    """The scores of each setting over its seeds, and of the setting that was chosen.

    Args:
      content: content of `sweep.json`.
      runs: its finished runs by name.
    """
    settings: dict[str, dict[str, Any]] = {}
    for entry in content["runs"]:
        key = json.dumps(entry["setting"], sort_keys=True)
        settings.setdefault(key, {"setting": entry["setting"], "names": []})
        settings[key]["names"].append(entry["name"])
    rows = [_row(each, runs, content) for each in settings.values()]
    task = next(iter(runs.values())).task if runs else "emotion"
    out: dict[str, Any] = {"schema_version": 1, "task": task, "settings": rows}
    finished = [each for each in settings.values() if all(name in runs for name in each["names"])]
    if len(settings) > 1 and finished:
        grid = [[runs[name] for name in each["names"]] for each in finished]
        out |= _selection(grid, [each["setting"] for each in finished])
    return out


def _row(
    setting: Mapping[str, Any], runs: Mapping[str, Run], content: Mapping[str, Any]
) -> dict[str, Any]:
    done = [runs[name] for name in setting["names"] if name in runs]
    diverged = {
        name: list(content.get("diverged", {}).get(name, {}).values())
        for name in setting["names"]
        if name in content.get("diverged", {})
    }
    row: dict[str, Any] = {
        "setting": setting["setting"],
        "folders": [f"{RUNS}/{name}" for name in setting["names"]],
        "seeds": [run.info["seed"] for run in done],
        "num_missing": len(setting["names"]) - len(done),
        "diverged": diverged,
    }
    if done:
        choices: dict[str, list[Scores]] = {}
        for run in done:
            for name, evaluation in choose_evaluations(run).items():
                scores = _scores(run, predictions_at(run, evaluation))
                choices.setdefault(name, []).append(scores)
        row["metrics"] = {name: _over_seeds(scores) for name, scores in choices.items()}
        inner = [run.validation_score for run in done]
        if all(scores is not None for scores in inner):
            means = [float(np.mean(s[:, -1])) for s in inner if s is not None]
            row["validation"] = float(np.mean(means))
    return row


def _scores(run: Run, prediction: np.ndarray) -> Scores:
    """The pooled scores of one run."""
    return _pooled(run.task, run.label, prediction, len(run.classes))


def _pooled(task: str, label: np.ndarray, prediction: np.ndarray, num_classes: int) -> Scores:
    values = pooled_scores(task, label, prediction, num_classes)
    return {name: float(value) for name, value in values.items()}


def _over_seeds(scores: Sequence[Scores]) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = stats.over_seeds(scores)
    for entry in out.values():
        entry["ci95"] = stats.interval_over_seeds(entry["mean"], entry["sd"], int(entry["n"]))
    return out


def _selection(
    grid: Sequence[Sequence[Run]], settings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The setting by test subjects, as oracle, and the one of each fold by inner subjects.

    Args:
      grid: the runs of each setting, a run a seed.
      settings: the settings.
    """
    first = grid[0][0]
    by = scoring_of(first.task).chosen_by
    at_end = [
        [_scores(run, scoring_of(run.task).predict(run.logits[:, -1])) for run in runs]
        for runs in grid
    ]
    best = int(np.argmax([np.mean([scores[by] for scores in row]) for row in at_end]))
    out: dict[str, Any] = {
        "oracle": {
            "note": NOTES["oracle"],
            "setting": settings[best],
            "metrics": _over_seeds(at_end[best]),
        }
    }
    reason = _not_comparable(grid)
    if reason:
        return out | {"chosen": None, "reason": reason}
    # Of each fold: the mean over seeds of the score on its inner subjects, for each setting.
    inner = np.array([np.mean([_inner(run) for run in runs], axis=0) for runs in grid])
    choice = np.where(np.isfinite(inner), inner, -1.0).argmax(axis=0)
    of_fold = dict(zip(first.fold_names.tolist(), choice.tolist(), strict=True))
    scores = []
    for seed in range(len(grid[0])):
        label, prediction = [], []
        for name, number in of_fold.items():
            run = grid[number][seed]
            rows = run.fold == name
            label.append(run.label[rows])
            prediction.append(scoring_of(run.task).predict(run.logits[rows, -1]))
        scores.append(
            _pooled(
                first.task, np.concatenate(label), np.concatenate(prediction), len(first.classes)
            )
        )
    chosen = {
        "note": NOTES["chosen"],
        "of_fold": {name: settings[number] for name, number in of_fold.items()},
        "metrics": _over_seeds(scores),
    }
    return out | {"chosen": chosen}


def _inner(run: Run) -> np.ndarray:
    assert run.validation_score is not None
    return run.validation_score[:, -1]


def _not_comparable(grid: Sequence[Sequence[Run]]) -> str:
    """The reason why no setting can be chosen by inner subjects; empty if one can."""
    first = grid[0][0]
    for run in (run for runs in grid for run in runs):
        if run.validation_score is None:
            return (
                "the runs have no inner validation subjects; set"
                " protocol.num_validation_subjects=1 or more"
            )
        if sorted(run.clip.tolist()) != sorted(first.clip.tolist()):
            return f"{run.path.name} holds out other clips than {first.path.name}"
        if run.classes.tolist() != first.classes.tolist():
            return f"{run.path.name} has other classes than {first.path.name}"
        if not np.array_equal(run.label[np.argsort(run.clip)], first.label[np.argsort(first.clip)]):
            return f"{run.path.name} has other labels than {first.path.name}"
        if run.fold_names.tolist() != first.fold_names.tolist():
            return f"{run.path.name} has other folds than {first.path.name}"
    if len({tuple(run.info["seed"] for run in runs) for runs in grid}) > 1:
        return "the settings have other seeds"
    return ""


def sweep_markdown(results: Mapping[str, Any]) -> str:
    """The text of `sweep.md`."""
    parts = ["# Sweep", "Mean ± standard deviation over seeds, and the 95% interval of the mean."]
    parts.append(markdown_table(*sweep_rows(results)))
    parts += sweep_lines(results)
    return "\n\n".join(parts) + "\n"


def print_sweep(results: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print the table of a sweep."""
    console = console or terminal.console()
    console.print(plain("Last evaluation, mean ± standard deviation over seeds (%)", "bold"))
    console.print(rich_table(*sweep_rows(results, is_short=True)))
    for line in sweep_lines(results):
        console.print(plain(line), soft_wrap=True)


def sweep_rows(
    results: Mapping[str, Any], *, is_short: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of settings, in percent.

    Args:
      results: see `sweep_results`.
      is_short: True: without intervals and without the numbers of chosen evaluations.
    """
    scoring = scoring_of(results["task"])
    rows = results["settings"]
    has_inner = any("validation" in row for row in rows)
    choices = [name for name in HEADS if any(name in row.get("metrics", {}) for row in rows)]
    shown = [(choice, m) for choice in choices for m in scoring.summary]
    if is_short:
        shown = [(choice, m) for choice, m in shown if choice == "last"]
    head = ["setting", "seeds", *(["inner subjects"] if has_inner else [])]
    short = {"last": "last", "selected": "inner epoch", "oracle": "oracle (epoch by test)"}
    head += [f"{short[choice]} {_SHORT.get(m, m)}" for choice, m in shown]
    out = []
    for row in rows:
        cells = [setting_text(row["setting"]), ", ".join(map(str, row["seeds"])) or "-"]
        cells += [percent(row.get("validation"))] if has_inner else []
        for choice, m in shown:
            metrics = row.get("metrics", {}).get(choice)
            cells.append(_cell(metrics[m], has_interval=not is_short) if metrics else "-")
        out.append(cells)
    return head, out


def sweep_lines(results: Mapping[str, Any]) -> list[str]:
    """Sentences below the table: the choice of a setting, the oracle, and what is missing."""
    lines = []
    chosen, oracle = results.get("chosen"), results.get("oracle")
    if chosen:
        count: dict[str, int] = {}
        for setting in chosen["of_fold"].values():
            text = setting_text(setting)
            count[text] = count.get(text, 0) + 1
        folds = ", ".join(
            f"{text} in {n} {'fold' if n == 1 else 'folds'}" for text, n in count.items()
        )
        scores = _sentence(chosen["metrics"])
        lines.append(f"Chosen ({chosen['note']}): {scores}. Chosen: {folds}.")
    elif "reason" in results:
        lines.append(f"No setting was chosen: {results['reason']}.")
    if oracle:
        scores = _sentence(oracle["metrics"])
        lines.append(f"oracle ({oracle['note']}): {setting_text(oracle['setting'])}, {scores}.")
    for row in results["settings"]:
        for name, texts in row["diverged"].items():
            lines.append(f"{name} has no result: {texts[0]}")
        others = row["num_missing"] - len(row["diverged"])
        if others:
            lines.append(f"{setting_text(row['setting'])}: {others} runs are not finished.")
    return lines


def setting_text(setting: Mapping[str, Any]) -> str:
    """A setting in words: keys and values."""
    return ", ".join(f"{key}={value}" for key, value in setting.items()) or "the configuration"


def _cell(value: Mapping[str, Any], *, has_interval: bool = True) -> str:
    text = percent(value["mean"])
    if value["sd"] is not None:  # several seeds
        text += f" ± {percent(value['sd'])}"
        low, high = value["ci95"]
        text += f" ({percent(low)} to {percent(high)})" if has_interval else ""
    return text


def _sentence(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{_SHORT.get(name, name)} {_cell(value)}" for name, value in metrics.items())

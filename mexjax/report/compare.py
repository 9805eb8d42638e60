"""Several runs side by side: spread over seeds, and paired tests between configurations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from mexjax import terminal
from mexjax.config import completed, flat
from mexjax.errors import DataError
from mexjax.files import canonical, digest, read_sealed
from mexjax.protocol.scoring import scoring_of
from mexjax.report import stats
from mexjax.report.agreement import INDIFFERENT
from mexjax.report.files import Run, read_run
from mexjax.report.results import subject_confusions, to_json_value
from mexjax.report.tables import percent, rich_table
from mexjax.terminal import plain

# Runs of one configuration may differ in these keys: the seed, and keys that change no number.
_INDIFFERENT = (*INDIFFERENT, "seed", "folds.strategy", "folds.per_chunk", "eval.batch_size")
_INDIFFERENT += ("train.steps_per_call",)
_DATA = "data.digest"  # stands among the keys for the data of a run


@dataclasses.dataclass
class Group:
    """Runs of one configuration that differ in the seed at most."""

    key: str
    config: dict[str, Any]
    runs: list[Run]


def compare(workdirs: Sequence[str | Path]) -> dict[str, Any]:
    """Compare the last evaluations of several runs.

    Runs whose configurations differ in the seed only form a group. Every other group is compared
    with the first one by tests over subjects, when all their runs hold out the same clips with
    the same labels; with several seeds the confusion matrices of a subject are averaged over
    them first.

    Args:
      workdirs: run folders; the first names the group that others are compared with.

    Returns:
      `{"task", "groups": [{"name", "workdirs", "seeds", "differs_in", "metrics": {metric: {mean,
      sd, n}}}], "pairs": [{"one", "two", "num_clips", "metrics": {metric: {difference, ci95,
      p_permutation}}, "mcnemar": {...} or None} or {"one", "two", "reason"}]}`; difference is
      first minus other.

    Raises:
      DataError, WorkdirError: see `read_run`; or one folder given twice.
    """
    paths = [Path(workdir).expanduser().resolve() for workdir in workdirs]
    if len(set(paths)) < len(paths):
        raise DataError("A run folder was given twice; a run cannot be compared with itself.")
    runs = [read_run(workdir) for workdir in workdirs]
    for run in runs[1:]:
        if run.task != runs[0].task:
            raise DataError(
                f"{runs[0].path} is of task {runs[0].task!r} and {run.path} of {run.task!r}: they"
                " have no metric in common."
            )
    groups = _group(runs)
    first, *others = groups
    return to_json_value(
        {
            "task": runs[0].task,
            "groups": [_describe(group, groups) for group in groups],
            "pairs": [_pair(first, other) for other in others],
        }
    )


def print_comparison(comparison: dict[str, Any], *, console: Console | None = None) -> None:
    """Print what `compare` returned."""
    console = console or terminal.console()
    scoring = scoring_of(comparison["task"])
    head = ["configuration", "seeds", "folders"]
    head += [f"{scoring.names[name]} (%)" for name in scoring.summary]
    rows = []
    for group in comparison["groups"]:
        cells = []
        for name in scoring.summary:
            value = group["metrics"][name]
            spread = f" ± {percent(value['sd'])}" if value["sd"] is not None else ""
            cells.append(percent(value["mean"]) + spread)
        seeds = ", ".join(map(str, group["seeds"]))
        rows.append([group["name"], seeds, "\n".join(group["workdirs"]), *cells])
    console.print(plain("Last evaluation, mean ± standard deviation over seeds", "bold"))
    console.print(rich_table(head, rows))
    for group in comparison["groups"]:
        if group["differs_in"]:
            keys = ", ".join(f"{key}={value}" for key, value in group["differs_in"].items())
            console.print(plain(f"{group['name']}: {keys}"))
    for pair in comparison["pairs"]:
        _print_pair(pair, scoring.names, console)


def _print_pair(pair: dict[str, Any], labels: Mapping[str, str], console: Console) -> None:
    names = f"{pair['one']} minus {pair['two']}"
    if "reason" in pair:
        console.print(plain(f"No paired test of {names}: {pair['reason']}"))
        return
    rows = []
    for name, value in pair["metrics"].items():
        low, high = value["ci95"]
        interval = "-" if low is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
        p_value = value["p_permutation"]
        cells = [f"{100 * value['difference']:+.1f}", interval]
        rows.append([labels[name], *cells, "-" if p_value is None else f"{p_value:.3g}"])
    console.print(plain(f"{names}, {pair['num_clips']} clips:", "bold"))
    head = ["metric", "difference (points)", "95% interval", "p (permutation over subjects)"]
    console.print(rich_table(head, rows))
    test = pair["mcnemar"]
    if test:
        console.print(
            plain(
                "McNemar over clips (too optimistic, clips of a person are related): only one"
                f" {test['only_a']}, only two {test['only_b']}, p = {test['p']:.3g}"
            )
        )
    console.print("p values are not corrected for the number of comparisons.", style="dim")


def _group(runs: Sequence[Run]) -> list[Group]:
    groups: dict[str, Group] = {}
    for run in runs:
        config = {
            name: value
            for name, value in completed(flat(ConfigDict(run.config))).items()
            if not name.startswith(_INDIFFERENT)
        }
        if config.get("data.name") == "prepared":
            config[_DATA] = _data_digest(run)
        key = json.dumps([run.info["model"], config], sort_keys=True, default=str)
        groups.setdefault(key, Group(key, config, [])).runs.append(run)
    return list(groups.values())


def _data_digest(run: Run) -> str:
    """A short digest of the table of prepared data that a run is of.

    The place of the data is in its stead where `data.json` is missing or damaged.
    """
    content = read_sealed(run.path / "data.json", "table")
    if content is None or not content.get("table"):
        return f"unknown, from {run.config['data'].get('root', '')}"
    return digest(canonical(content["table"]))[:16]


def _describe(group: Group, groups: Sequence[Group]) -> dict[str, Any]:
    scores = []
    for run in group.runs:
        scoring = scoring_of(run.task)
        _, tables = subject_confusions(run, scoring.predict(run.logits[:, -1]))
        values = scoring.scores(tables.sum(axis=0))
        scores.append({name: float(values[name]) for name in scoring.summary})
    differing = {
        key
        for other in groups
        for key in group.config.keys() | other.config.keys()
        if group.config.get(key) != other.config.get(key)
    }
    return {
        "name": _name(group),
        "workdirs": [str(run.path) for run in group.runs],
        "seeds": [run.info["seed"] for run in group.runs],
        "is_partial": any(run.is_partial for run in group.runs),
        "differs_in": {key: group.config.get(key) for key in sorted(differing)},
        "metrics": stats.over_seeds(scores),
    }


def _name(group: Group) -> str:
    info = group.runs[0].info
    preset = f"/{info['preset']}" if info["preset"] else ""
    control = f" ({info['control']})" if info["control"] != "none" else ""
    partial = " (partial)" if any(run.is_partial for run in group.runs) else ""
    return f"{info['model']}{preset}{control}{partial} {group.runs[0].path.name}"


def _pair(one: Group, two: Group) -> dict[str, Any]:
    names = {"one": _name(one), "two": _name(two)}
    runs = [*one.runs, *two.runs]
    first = runs[0]
    order = np.argsort(first.clip)
    clips, labels, subjects = first.clip[order], first.label[order], first.subject[order]
    for run in runs[1:]:
        rows = np.argsort(run.clip)
        if run.classes.tolist() != first.classes.tolist():
            return names | {"reason": f"{run.path} has other classes than {first.path}"}
        if run.clip[rows].tolist() != clips.tolist():
            return names | {"reason": f"{run.path} holds out other clips than {first.path}"}
        if run.label[rows].tolist() != labels.tolist():
            return names | {"reason": f"{run.path} has other labels than {first.path}"}
    people, group = np.unique(subjects, return_inverse=True)
    means, is_right = [], []
    scoring = scoring_of(first.task)
    for side in (one, two):
        predictions = [scoring.predict(run.logits[np.argsort(run.clip), -1]) for run in side.runs]
        matrices = [
            scoring.tables(labels, p, group, len(people), len(first.classes)) for p in predictions
        ]
        means.append(np.mean(matrices, axis=0))
        # A clip of several action units is right when all of them are.
        is_right.append([(p == labels).reshape(len(p), -1).all(axis=1) for p in predictions])
    is_single = len(one.runs) == len(two.runs) == 1
    return names | {
        "num_clips": len(clips),
        "metrics": stats.paired_comparison(*means, metrics=scoring.summary, score=scoring.scores),
        "mcnemar": stats.mcnemar(is_right[0][0], is_right[1][0]) if is_single else None,
    }

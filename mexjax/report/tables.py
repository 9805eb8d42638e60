"""The tables of a report: rows of text from results, and how they are set."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from mexjax.protocol.scoring import scoring_of
from mexjax.terminal import markdown, plain

Results = Mapping[str, Any]
ORACLE_HEAD = "oracle (best epoch on the test subject; not comparable)"
HEADS = {
    "last": "last",
    "selected": "inner (epoch selected on inner subjects)",
    "oracle": ORACLE_HEAD,
}
# Published tables often say "F1" without the kind of average.
PAPER_NAMES = {"f1": "F1 (as in the paper)"}


def percent(value: float | None) -> str:
    """A share as percent with one decimal; "-" when undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def is_units(results: Results) -> bool:
    """True if the run detects action units instead of telling classes apart."""
    return results["task"] == "au"


def metric_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the main table, in percent: `last` first, then what was selected."""
    choices = [name for name in HEADS if name in results["metrics"]]
    paper: dict[str, float] = results.get("paper_results", {})
    head = ["metric (%)", HEADS["last"], "95% interval of last"]
    head += [HEADS[name] for name in choices if name != "last"]
    head += ["paper"] if paper else []
    rows = []
    names = dict(scoring_of(results["task"]).names)
    units = results["classes"] if is_units(results) else ()
    for name in paper:
        if name not in units:  # the units have a table of their own
            names.setdefault(name, PAPER_NAMES.get(name, name))
    for name, label in names.items():
        values = {choice: results["metrics"][choice].get(name) for choice in choices}
        interval = results["metrics"]["last"]["ci95"].get(name)
        row = [label, percent(values.pop("last")), _interval(interval)]
        row += [percent(value) for value in values.values()]
        row += [percent(paper.get(name))] if paper else []
        rows.append(row)
    if is_units(results):
        always = percent(results["metrics"]["last"]["f1_always"])
        rows.append(["the same of saying present of every clip", always, *["-"] * (len(head) - 2)])
    return head, rows


def subject_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the per-subject table, in percent."""
    choices = [name for name in HEADS if name in results["metrics"]]
    short = {"last": "last", "selected": "inner", "oracle": "oracle"}
    names = short_names([entry["name"] for entry in results["subjects"]])
    head = ["subject", "clips"]
    head += [f"{short[choice]} {name}" for choice in choices for name in ("acc", "UF1")]
    rows = [
        [subject, str(entry["n"])]
        + [percent(entry[choice][name]) for choice in choices for name in ("acc", "uf1")]
        for subject, entry in zip(names, results["subjects"], strict=True)
    ]
    means = [results["metrics"][choice]["subject_mean"] for choice in choices]
    rows.append(
        ["mean over subjects", ""]
        + [percent(mean[name]) for mean in means for name in ("acc", "uf1")]
    )
    return head, rows


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the dataset when all subjects are of one: "synthetic/01" -> "01"."""
    prefixes = {name.rpartition("/")[0] for name in names}
    return [name.rpartition("/")[2] for name in names] if len(prefixes) == 1 else list(names)


def class_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the per-class table at the last evaluation, in percent."""
    per_class = results["metrics"]["last"]["per_class"]
    rows = [
        [name, str(entry["n"])] + [percent(entry[key]) for key in ("precision", "recall", "f1")]
        for name, entry in per_class.items()
    ]
    return ["class", "clips", "precision", "recall", "F1"], rows


def unit_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of action units at the last evaluation, in percent."""
    paper = results.get("paper_results", {})
    keys = ("precision", "recall", "f1", "f1_always", "acc")
    rows = []
    for name, entry in results["metrics"]["last"]["per_unit"].items():
        row = [name, str(entry["n"]), *(percent(entry[key]) for key in keys)]
        rows.append(row + ([percent(paper.get(name))] if paper else []))
    head = ["unit", "clips with it", "precision", "recall", "F1", "F1 of always present"]
    return [*head, "accuracy", *(["paper F1"] if paper else [])], rows


def dataset_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the per-dataset table of a study over several datasets, in percent."""
    entries = results.get("datasets", ())
    if is_units(results):
        keys = [("last", "f1"), ("f1_always",), ("last", "acc")]
        head = ["dataset", "clips", "last mean F1", "F1 of always present", "last mean accuracy"]
    else:
        keys = [("last", name) for name in ("acc", "uf1", "uar")]
        head = ["dataset", "clips", "last acc", "last UF1", "last UAR"]
    values = [[functools.reduce(dict.__getitem__, key, entry) for key in keys] for entry in entries]
    rows = [
        [entry["name"], str(entry["n"]), *map(percent, row)]
        for entry, row in zip(entries, values, strict=True)
    ]
    if is_units(results) and entries:
        means = [sum(column) / len(entries) for column in zip(*values, strict=True)]
        rows.append(["mean over datasets", "", *map(percent, means)])
    return head, rows


def rich_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, dim: str = "") -> Table:
    """A terminal table; columns whose head starts with `dim` are dimmed, numbers to the right."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, text in enumerate(head):
        style = "dim" if dim and text.startswith(dim) else None
        # The column is so narrow that the long oracle heading wraps and pushes no column out.
        width = 24 if text == ORACLE_HEAD else None
        justify = "left" if i == 0 else "right"
        table.add_column(plain(text), justify=justify, style=style, max_width=width, no_wrap=i == 0)
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; first column to the left, the others to the right."""
    lines = [_cells(head), _cells(["---"] + ["---:"] * (len(head) - 1))]
    return "\n".join(lines + [_cells(row) for row in rows])


def _interval(interval: Sequence[float | None] | None) -> str:
    if not interval or None in interval:
        return "-"
    return f"{percent(interval[0])} to {percent(interval[1])}"


def _cells(values: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, values)) + " |"

"""Results as text for people: the terminal tables and report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mexjax.metrics import NAMES

Results = Mapping[str, Any]
ORACLE_HEAD = "oracle (best epoch on the test subject; not comparable)"
HEADS = {
    "last": "last",
    "selected": "inner (epoch selected on inner subjects)",
    "oracle": ORACLE_HEAD,
}
CONTROLS = {
    "static": "CONTROL RUN: every frame is the onset frame, so there is no motion to see."
    " Anything above chance is read off the appearance.",
    "shuffled_labels": "CONTROL RUN: the labels were shuffled. Anything above chance is a leak.",
}
# Published tables often say "F1" without the kind of average.
PAPER_NAMES = {"f1": "F1 (as in the paper)"}


def percent(value: float | None) -> str:
    """A share as percent with one decimal; "-" when undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def heading(results: Results) -> str:
    """One line that names the run."""
    preset = f" ({results['preset']})" if results["preset"] else ""
    return (
        f"{results['model']}{preset} on {results['dataset']}, {results['protocol']},"
        f" {len(results['classes'])} classes, seed {results['seed']}"
    )


def notices(results: Results) -> list[str]:
    """What a reader must know before the numbers; may be empty."""
    out = []
    if results["control"] in CONTROLS:
        out.append(CONTROLS[results["control"]])
    if results.get("split_scale") == "per_split":
        out.append(
            "Held-out clips were scaled by the mean and maximum of their own split"
            " (data.split_scale=per_split), as the released code does: statistics of the test"
            " subject were used."
        )
    if results["is_partial"]:
        out.append(
            f"partial: {results['num_folds']} of {results['num_folds_of_protocol']} folds. Not"
            " the result of the protocol."
        )
    return out


def metric_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the main table, in percent: `last` first, then what was selected."""
    choices = [name for name in HEADS if name in results["metrics"]]
    paper = results.get("paper_results", {})
    head = ["metric (%)", HEADS["last"], "95% interval of last"]
    head += [HEADS[name] for name in choices if name != "last"]
    head += ["paper"] if paper else []
    rows = []
    labels = NAMES | {name: PAPER_NAMES.get(name, name) for name in paper if name not in NAMES}
    for name, label in labels.items():
        values = {choice: results["metrics"][choice].get(name) for choice in choices}
        interval = results["metrics"]["last"]["ci95"].get(name)
        row = [label, percent(values.pop("last")), _interval(interval)]
        row += [percent(value) for value in values.values()]
        row += [percent(paper.get(name))] if paper else []
        rows.append(row)
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
    """Without the dataset when all subjects are of one: "synthetic/01" -> "01"."""
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


def dataset_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the per-dataset table of a study over several datasets, in percent."""
    rows = [
        [entry["name"], str(entry["n"])]
        + [percent(entry["last"][name]) for name in ("acc", "uf1", "uar")]
        for entry in results.get("datasets", ())
    ]
    return ["dataset", "clips", "last acc", "last UF1", "last UAR"], rows


def time_line(results: Results) -> str:
    """Where the time went; empty if the run did not say."""
    timing = results["timing"]
    names = {
        "total_s": "total",
        "compile_s": "compiling",
        "train_s": "training",
        "eval_s": "evaluating",
    }
    parts = [f"{names[key]} {_seconds(timing[key])}" for key in names if timing.get(key)]
    if timing.get("clips_per_s"):
        parts.append(f"{timing['clips_per_s']:,.0f} training clips/s")
    return ", ".join(parts)


def print_results(results: Results, *, console: Console | None = None) -> None:
    """Print the tables of one run: the honest numbers first, the oracle beside them."""
    console = console or Console()
    console.print(f"[bold]{heading(results)}[/]", highlight=False)
    console.print(
        f"{results['num_clips']} held-out clips of {results['num_subjects']} subjects,"
        f" {results['num_folds']} folds, pooled and scored once",
        highlight=False,
    )
    for notice in notices(results):
        console.print(f"[bold yellow]{notice}[/]", highlight=False)
    head, rows = metric_rows(results)
    console.print(rich_table(head, rows, dim=ORACLE_HEAD))
    if "datasets" in results:
        console.print(rich_table(*dataset_rows(results)))
    console.print(rich_table(*subject_rows(results), dim="oracle"))
    if time_line(results):
        console.print(f"Time: {time_line(results)}", highlight=False)


def rich_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, dim: str = "") -> Table:
    """A terminal table; columns whose head starts with `dim` are dimmed, numbers to the right."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, text in enumerate(head):
        style = "dim" if dim and text.startswith(dim) else None
        # Narrow enough that the long oracle heading wraps instead of pushing columns out.
        width = 24 if text == ORACLE_HEAD else None
        justify = "left" if i == 0 else "right"
        table.add_column(text, justify=justify, style=style, max_width=width, no_wrap=i == 0)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; first column to the left, the others to the right."""
    lines = [_cells(head), _cells(["---"] + ["---:"] * (len(head) - 1))]
    return "\n".join(lines + [_cells(row) for row in rows])


def report_markdown(results: Results, figures: Mapping[str, str]) -> str:
    """The text of report.md.

    Args:
      results: content of results.json.
      figures: caption -> path relative to report.md.
    """
    parts = [f"# {heading(results)}"]
    parts += [f"> **{notice}**" for notice in notices(results)]
    parts.append(_what_was_run(results))
    parts += ["## Results", markdown_table(*metric_rows(results)), _how_to_read(results)]
    if "datasets" in results:
        parts += ["### By dataset", markdown_table(*dataset_rows(results))]
    parts += ["### By class (last evaluation)", markdown_table(*class_rows(results))]
    parts += ["### By subject", markdown_table(*subject_rows(results)), _ABOUT_SUBJECTS]
    if figures:
        parts.append("## Figures")
        parts += [f"![{caption}]({path})\n\n*{caption}*" for caption, path in figures.items()]
    parts += ["## Time and machine", _machine(results), "## Before you cite these numbers"]
    parts.append(_caveats(results))
    return "\n\n".join(parts) + "\n"


_ABOUT_SUBJECTS = (
    "Numbers inside one subject run over the classes that subject shows; with few clips they jump"
    " in large steps. The mean over subjects is not the pooled result above."
)


def _what_was_run(results: Results) -> str:
    size = f"{results['num_params']:,} parameters. " if results["num_params"] else ""
    return (
        f"Protocol `{results['protocol']}`: {results['num_folds']} folds,"
        f" {results['num_subjects']} subjects, {results['num_clips']} held-out clips, each"
        f" predicted by a model that never saw its subject. Classes:"
        f" {', '.join(results['classes'])}. {size}All held-out predictions were pooled and scored"
        " once. `config.json` beside this file holds every setting, `predictions.csv` every"
        " prediction."
    )


def _how_to_read(results: Results) -> str:
    lines = [
        "- **last**: the last evaluation of a training of fixed length. Nothing was selected;"
        " this is the number to cite. The interval is a 95 % bootstrap over subjects (other"
        " people, same trained models); it does not contain the spread over seeds.",
    ]
    if "selected" in results["metrics"]:
        lines.append(
            "- **inner**: for each fold the epoch that was best on inner"
            " subjects, which were neither trained on nor tested."
        )
    lines += [
        "- **oracle**: for each fold the epoch that was best *on its own test subject*. The test"
        " set chose the model, so the number is too high by construction and estimates nothing."
        " It stands here because published code of the field often reports it.",
        "- UF1 and UAR weigh all classes alike; WAR is the accuracy under another name. *Macro"
        " precision* is what some released code prints as UAR.",
    ]
    if results.get("paper_results"):
        lines.append(
            "- **paper**: as published. Check how the paper chose its epoch and pooled its folds"
            " before comparing: published numbers are often of the *oracle* kind."
        )
    return "\n".join(lines)


def _machine(results: Results) -> str:
    lines = [f"- {time_line(results)}"] if time_line(results) else []
    for name, value in results["environment"].items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        lines.append(f"- {name}: {text}")
    return "\n".join(lines) or "The run recorded neither."


def _caveats(results: Results) -> str:
    least = min(entry["n"] for entry in results["metrics"]["last"]["per_class"].values())
    lines = [
        "- Give the dataset release, the class map, the protocol, and that metrics are pooled"
        " over held-out clips; give *last*, and *oracle* only under that name.",
        "- One seed is one draw. Run several seeds and give mean and standard deviation"
        " (`python -m mexjax.report RUN1 RUN2 ...` does).",
        f"- The rarest class has {least} held-out clips: one clip more or less right moves its"
        f" recall by {percent(1 / least) if least else '-'} points.",
        "- The classes are what coders of the dataset named, from action units, stimuli and"
        " self-report. They do not show what a person felt, and nothing here detects lies.",
    ]
    if results["dataset"] == "synthetic":
        lines.append(
            "- The faces are rendered. Numbers on the synthetic set show that the method learns"
            " motion; they say nothing about people."
        )
    return "\n".join(lines)


def _interval(interval: Sequence[float | None] | None) -> str:
    if not interval or None in interval:
        return "-"
    return f"{percent(interval[0])} to {percent(interval[1])}"


def _cells(values: Sequence[str]) -> str:
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"

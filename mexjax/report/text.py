"""Results as text for people: the terminal tables and report.md."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from mexjax import terminal
from mexjax.report.tables import (
    ORACLE_HEAD,
    Results,
    class_rows,
    dataset_rows,
    is_units,
    markdown_table,
    metric_rows,
    percent,
    rich_table,
    subject_rows,
    unit_rows,
)
from mexjax.report.zero_shot import zero_shot_rows
from mexjax.terminal import markdown, plain

CONTROLS = {
    "static": "CONTROL RUN: every frame is the onset frame, so there is no motion to see."
    " Anything above chance is read off the appearance.",
    "shuffled_labels": "CONTROL RUN: the labels were shuffled. Anything above chance is a leak.",
}


def heading(results: Results) -> str:
    """One line that names the run."""
    preset = f" ({results['preset']})" if results["preset"] else ""
    kind = "action units" if is_units(results) else "classes"
    return (
        f"{results['model']}{preset} on {results['dataset']}, {results['protocol']},"
        f" {len(results['classes'])} {kind}, seed {results['seed']}"
    )


def notices(results: Results) -> list[str]:
    """Notices that a reader must see before the numbers; may be empty."""
    out = []
    if results["control"] in CONTROLS:
        out.append(CONTROLS[results["control"]])
    if results.get("split_scale") == "per_split":
        out.append(
            "Held-out clips were scaled by the mean and maximum of their own split"
            " (data.split_scale=per_split), as the released code does: statistics of the test"
            " subject were used."
        )
    if is_units(results) and "left_out" in results:
        out.append(left_out_line(results))
    out += results.get("notices", [])
    if results["is_partial"]:
        out.append(
            f"partial: {results['num_folds']} of {results['num_folds_of_protocol']} folds. Not"
            " the result of the protocol."
        )
    return out


def left_out_line(results: Results) -> str:
    """The clips and units that the protocol does not use, counted; empty if it uses all."""
    left_out = results.get("left_out")
    if not left_out:
        return ""
    clips, units = (
        ", ".join(f"{count} {name}" for name, count in left_out.get(kind, {}).items())
        for kind in ("clips", "units")
    )
    why = ", their action units were not coded" if is_units(results) else ""
    number = f"{left_out['num_clips_in_all']} clips, {left_out['num_clips']} left out"
    parts = [f"{number}{why}: {clips}"] if left_out["num_clips"] else []
    parts += [f"action units that are coded and no label of the protocol: {units}"] if units else []
    return "; ".join(parts)


def time_line(results: Results) -> str:
    """The time that each part of the run took; empty if the run did not say."""
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
    console = console or terminal.console()
    console.print(plain(heading(results), "bold"))
    console.print(
        plain(
            f"{results['num_clips']} held-out clips of {results['num_subjects']} subjects,"
            f" {results['num_folds']} folds, pooled and scored once"
        )
    )
    if left_out_line(results) and not is_units(results):
        console.print(plain(left_out_line(results)))
    for notice in notices(results):
        console.print(plain(notice, "bold yellow"))
    head, rows = metric_rows(results)
    console.print(rich_table(head, rows, dim=ORACLE_HEAD))
    if "datasets" in results:
        console.print(rich_table(*dataset_rows(results)))
    if is_units(results):
        console.print(rich_table(*unit_rows(results)))
        if "zero_shot" in results:
            console.print(rich_table(*zero_shot_rows(results["zero_shot"])))
    else:
        console.print(rich_table(*subject_rows(results), dim="oracle"))
    if time_line(results):
        console.print(plain(f"Time: {time_line(results)}"))


def report_markdown(results: Results, figures: Mapping[str, str]) -> str:
    """The text of report.md.

    Args:
      results: content of results.json.
      figures: caption -> path relative to report.md.
    """
    parts = [f"# {markdown(heading(results))}"]
    parts += [f"> **{markdown(notice)}**" for notice in notices(results)]
    parts.append(_what_was_run(results))
    parts += ["## Results", markdown_table(*metric_rows(results)), _how_to_read(results)]
    if "datasets" in results:
        parts += ["### By dataset", markdown_table(*dataset_rows(results))]
    if is_units(results):
        parts += ["### By action unit (last evaluation)", markdown_table(*unit_rows(results))]
        if "zero_shot" in results:
            emotions = results["zero_shot"]
            names = ", ".join(map(markdown, emotions["classes"]))
            about = f"{emotions['num_clips']} clips of {names}: {emotions['note']}."
            parts += ["### Emotions, without emotion labels", about]
            parts += [markdown_table(*zero_shot_rows(emotions))]
    else:
        parts += ["### By class (last evaluation)", markdown_table(*class_rows(results))]
        parts += ["### By subject", markdown_table(*subject_rows(results)), _ABOUT_SUBJECTS]
    if figures:
        parts.append("## Figures")
        captions = {markdown(caption): path for caption, path in figures.items()}
        parts += [f"![{caption}]({path})\n\n*{caption}*" for caption, path in captions.items()]
    parts += ["## Time and machine", _machine(results), "## Before you cite these numbers"]
    parts.append(_caveats(results))
    return "\n\n".join(parts) + "\n"


_ABOUT_SUBJECTS = (
    "Numbers inside one subject run over the classes that subject shows; with few clips they jump"
    " in large steps. The mean over subjects is not the pooled result above."
)


def _what_was_run(results: Results) -> str:
    size = f"{results['num_params']:,} parameters. " if results["num_params"] else ""
    kind = "Action units" if is_units(results) else "Classes"
    left_out = left_out_line(results)
    left_out = f" The dataset has {markdown(left_out)}." if left_out else ""
    return (
        f"Protocol `{results['protocol']}`: {results['num_folds']} folds,"
        f" {results['num_subjects']} subjects, {results['num_clips']} held-out clips, each"
        f" predicted by a model that never saw its subject.{left_out} {kind}:"
        f" {', '.join(map(markdown, results['classes']))}. {size}All held-out predictions were"
        " pooled and scored once. `config.json` beside this file holds every setting,"
        " `predictions.csv` every prediction."
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
    ]
    if is_units(results):
        lines.append(
            "- Each unit has one binary F1 of its presence over all held-out clips; the mean over"
            " the units is plain. Predicting every unit in every clip scores above zero, so read"
            " F1 beside that figure. A unit that a dataset lacks counts 0 in its mean."
        )
    else:
        lines.append(
            "- UF1 and UAR weigh all classes alike; WAR is the accuracy under another name. *Macro"
            " precision* is what some released code prints as UAR."
        )
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
        lines.append(f"- {name}: {markdown(text)}")
    return "\n".join(lines) or "The run recorded neither."


def _caveats(results: Results) -> str:
    last = results["metrics"]["last"]
    kind, by_name = ("unit", "per_unit") if is_units(results) else ("class", "per_class")
    least = min(entry["n"] for entry in last[by_name].values())
    lines = [
        "- Give the dataset release, the class map, the protocol, and that metrics are pooled"
        " over held-out clips; give *last*, and *oracle* only under that name.",
        "- One seed is one draw. Run several seeds and give mean and standard deviation"
        " (`python -m mexjax.report RUN1 RUN2 ...` does).",
        f"- The rarest {kind} has {least} held-out clips: one clip more or less right moves its"
        f" recall by {percent(1 / least) if least else '-'} points.",
        "- The classes are what coders of the dataset named, from action units, stimuli and"
        " self-report. They do not show what a person felt, and nothing here detects lies."
        if kind == "class"
        else "- Action units are movements as coders saw them. They do not show what a person felt,"
        " and nothing here detects lies.",
    ]
    if results["dataset"].startswith("synthetic"):
        lines.append(
            "- The faces are rendered. Numbers on the synthetic set show that the method learns"
            " motion; they say nothing about people."
        )
    return "\n".join(lines)


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"

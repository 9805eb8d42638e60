"""What a prepared dataset holds, in words: `summary.md`, and how to train on it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from mexjax.errors import DataError
from mexjax.prepare.options import Options, Outcome
from mexjax.protocol.classes import label_clips

CARD = "configs/fdp.py"
CARD_CLASSES = 5  # the default of protocol.classes
_MAX_LINES = 200  # of problems; the whole list is in preparation.json


def plural(count: int, noun: str) -> str:
    """ "1 clip", "2 clips"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """One row a dataset: clips, subjects, missing frames, clips that miss any, frames a clip."""
    rows = []
    for dataset, own in table.groupby("dataset", sort=False):
        missing = own["num_missing_frames"]
        rows.append(
            {
                "dataset": dataset,
                "clips": len(own),
                "subjects": own["subject"].nunique(),
                "missing frames": int(missing.sum()),
                "clips with missing frames": int((missing > 0).sum()),
                "clips without frames": int((missing >= own["n_frames"]).sum()),
                "frames a clip (least, median, most)": (
                    f"{own['n_frames'].min()}, {own['n_frames'].median():g},"
                    f" {own['n_frames'].max()}"
                ),
            }
        )
    return pd.DataFrame(rows)


def emotion_counts(table: pd.DataFrame) -> dict[str, int]:
    """Clips of each emotion, the most frequent first; "" is shown as "(none)"."""
    return dict(Counter(word or "(none)" for word in table["emotion"]).most_common())


def unit_counts(table: pd.DataFrame) -> dict[str, int]:
    """Clips with each action unit (`4` and not `AU4`), by number."""
    found = Counter(au for aus in table["aus"] for au in aus)
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def class_count(table: pd.DataFrame) -> int | None:
    """The number of classes to train with: that of the recipe card if the datasets have a map
    to so many, else the first of 3, 4 and 7 that they have; None if there is none."""
    for classes in (CARD_CLASSES, 3, 4, 7):
        try:
            labels, _ = label_clips(table, classes)
        except DataError:
            continue
        if (labels >= 0).any():
            return classes
    return None


def training_command(out: str, table: pd.DataFrame) -> str:
    """The command that trains on the prepared dataset; "" if its emotions have no class map."""
    classes = class_count(table)
    if classes is None:
        return ""
    words = ["python", "-m", "mexjax.main", f"--config={CARD}"]
    words += ["--config.data.name=prepared", f"--config.data.root={out}"]
    if classes != CARD_CLASSES:
        words.append(f"--config.protocol.classes={classes}")
    return shlex.join(words)


def summary(options: Options, outcome: Outcome) -> str:
    """The text of `summary.md`."""
    table = outcome.manifest
    sources = Counter(table["landmark_source"])
    settings = options.settings
    lines = [
        "# Prepared dataset",
        "",
        f"{plural(len(table), 'clip')} of {plural(table['subject'].nunique(), 'subject')},"
        f" {int(table['num_stored'].sum())} frames of {settings.size_px} x {settings.size_px} px.",
        "",
        *markdown(counts(table)),
        "",
        "Faces: "
        + ", ".join(f"{plural(count, 'clip')} by {name}" for name, count in sources.items())
        + ".",
    ]
    if len(sources) > 1:
        lines.append(
            "**Faces were found in different ways**, so crops differ between clips for reasons"
            " that are not in the data."
        )
    lines += ["", "![Originals, crops and differences](contact_sheet.png)", ""]
    for title, values in (
        ("Emotions", emotion_counts(table)),
        ("Action units", unit_counts(table)),
    ):
        if values:
            frame = pd.DataFrame({title.lower(): list(values), "clips": list(values.values())})
            lines += [f"## {title}", "", *markdown(frame), ""]
    failed = [f"- `{item.id}`: {item.problem}" for item in outcome.failed]
    if failed:
        lines += ["## Not prepared", "", *failed, "", REPAIR, ""]
    if outcome.found.problems:
        lines += ["## Remarks of the readers", "", *_bullets(outcome.found.problems), ""]
    command = training_command(str(options.out), table)
    lines += ["## Training", ""]
    lines += ["```", command, "```"] if command else [NO_CLASSES]
    lines += ["", "## Parameters", ""]
    lines += [f"- {key}: `{value}`" for key, value in outcome.parameters.items() if value != ""]
    return "\n".join(lines) + "\n"


def closing_lines(options: Options, outcome: Outcome) -> list[str]:
    """What the command says when it is done: numbers, failures, and what to do next."""
    table, out = outcome.manifest, options.out
    frames = int(table["num_stored"].sum())
    lines = [
        f"{plural(len(table), 'clip')} of {plural(table['subject'].nunique(), 'subject')},"
        f" {frames} frames, in {out} ({outcome.seconds:.1f} s; frames made now:"
        f" {outcome.num_frames}, shards finished before: {outcome.num_kept})."
    ]
    if outcome.found.problems:
        lines.append(
            f"{plural(len(outcome.found.problems), 'remark')} of the readers: {out}/summary.md."
        )
    sources = Counter(table["landmark_source"])
    if len(sources) > 1:
        lines.append(
            "Faces were found in different ways: "
            + ", ".join(f"{count} by {name}" for name, count in sources.items())
            + ". Do not compare these clips without thinking of it."
        )
    if outcome.failed:
        lines.append(f"NOT prepared: {plural(len(outcome.failed), 'clip')}.")
        lines += [f"  {item.id}: {item.problem}" for item in outcome.failed[:MAX_FAILED]]
        if len(outcome.failed) > MAX_FAILED:
            lines.append(f"  and {len(outcome.failed) - MAX_FAILED} more in {out}/summary.md")
        lines.append(REPAIR)
    lines.append(f"Look at {out}/contact_sheet.png and {out}/summary.md.")
    command = training_command(str(out), table)
    lines += ["Train with", f"  {command}"] if command else [NO_CLASSES]
    return lines


MAX_FAILED = 50  # lines on the terminal
REPAIR = (
    "Copy damaged files again, or delete single damaged frames (a clip is prepared from the frames"
    " that are left), and run the same command: only the shards with these clips are made again."
)
NO_CLASSES = (
    "The emotions of this dataset have no map to classes (mexjax/protocol/classes.py), so nothing"
    " can be trained on them yet. Give the clips emotions and a dataset name that have one."
)


def markdown(table: pd.DataFrame) -> list[str]:
    """Lines of a Markdown table."""
    columns = [str(column) for column in table.columns]
    rows = [[str(value) for value in row] for row in table.itertuples(index=False)]
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _bullets(lines: Sequence[str]) -> list[str]:
    shown = [f"- {line}" for line in lines[:_MAX_LINES]]
    if len(lines) > _MAX_LINES:
        shown.append(f"- and {len(lines) - _MAX_LINES} more, in preparation.json")
    return shown

"""A prepared dataset in words: `summary.md`, the last lines of the command, how to train on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mexjax import terminal
from mexjax.errors import one_line
from mexjax.prepare.face_check import face_notes
from mexjax.prepare.next_step import class_lines, training_command
from mexjax.prepare.options import Options, Outcome
from mexjax.prepare.sources.losses import first_lines, loss_lines

_MAX_LINES = 200  # remarks in summary.md; the whole list is in preparation.json


def plural(count: int, noun: str) -> str:
    """Return the number with its noun: "1 clip", "2 clips"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Count clips, subjects, missing frames, clips that miss any and frames, one row a dataset."""
    rows = []
    for dataset, clips in table.groupby("dataset", sort=False):
        missing = clips["num_missing_frames"].to_numpy(int)
        lengths = clips["n_frames"].to_numpy(int)
        rows.append(
            {
                "dataset": dataset,
                "clips": len(clips),
                "subjects": _num_subjects(clips),
                "missing frames": int(missing.sum()),
                "clips with missing frames": int((missing > 0).sum()),
                "clips without frames": int((missing >= lengths).sum()),
                "frames a clip (least, median, most)": (
                    f"{lengths.min()}, {np.median(lengths):g}, {lengths.max()}"
                ),
            }
        )
    return pd.DataFrame(rows)


def _num_subjects(table: pd.DataFrame) -> int:
    return len(set(table["subject"]))


def _num_frames(table: pd.DataFrame) -> int:
    return int(table["num_stored"].to_numpy(int).sum())


def emotion_counts(table: pd.DataFrame) -> dict[str, int]:
    """Count the clips of each emotion, the most frequent first; "" is shown as "(none)"."""
    return dict(Counter(word or "(none)" for word in table["emotion"]).most_common())


def unit_counts(table: pd.DataFrame) -> dict[str, int]:
    """Count the clips with each action unit (`4` and not `AU4`), by number."""
    numbers = Counter(au for aus in table["aus"] for au in aus)
    return dict(sorted(numbers.items(), key=lambda item: int(item[0])))


def summary(options: Options, outcome: Outcome) -> str:
    """Write the text of `summary.md`."""
    table = outcome.manifest
    sources = Counter(table["landmark_source"])
    settings = options.settings
    lines = [
        "# Prepared dataset",
        "",
        f"{plural(len(table), 'clip')} of {plural(_num_subjects(table), 'subject')},"
        f" {_num_frames(table)} frames of {settings.size_px} x {settings.size_px} px.",
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
    remarks = face_lines(outcome)
    if remarks:
        lines += ["", "## Face boxes to look at", "", *_bullets(remarks), "", LOOK]
    lines += ["", "![Originals, crops and differences](contact_sheet.png)", ""]
    for title, values in (
        ("Emotions", emotion_counts(table)),
        ("Action units", unit_counts(table)),
    ):
        if values:
            frame = pd.DataFrame({title.lower(): list(values), "clips": list(values.values())})
            lines += [f"## {title}", "", *markdown(frame), ""]
    failed = [
        f"- {terminal.markdown(item.id)}: {terminal.markdown(item.problem)}"
        for item in outcome.failed
    ]
    if failed:
        lines += ["## Not prepared", "", *failed, "", REPAIR, ""]
    if outcome.found.problems:
        lines += ["## Remarks of the readers", "", *_bullets(outcome.found.problems), ""]
    remarks = class_lines(table)
    lines += ["## Training", "", *(f"{line}\n" for line in remarks)]
    command, why = training_command(str(options.out), table)
    lines += ["```", command, "```"] if command else [why]
    lines += ["", "## Parameters", ""]
    lines += [f"- {key}: `{value}`" for key, value in outcome.parameters.items() if value != ""]
    return "\n".join(lines) + "\n"


def closing_lines(options: Options, outcome: Outcome) -> list[str]:
    """Write the last lines of the command: numbers, failures, and what to do next."""
    table, out = outcome.manifest, options.out
    lines = [
        f"{plural(len(table), 'clip')} of {plural(_num_subjects(table), 'subject')},"
        f" {_num_frames(table)} frames, in {out} ({outcome.seconds:.1f} s; frames made now:"
        f" {outcome.num_frames}, shards finished before: {outcome.num_kept})."
    ]
    lines += loss_lines(outcome.found.problems)
    if outcome.found.problems:
        lines.append(
            f"{plural(len(outcome.found.problems), 'remark')} of the readers, in {out}/summary.md:"
        )
        shown = first_lines(outcome.found.problems, MAX_REMARKS)
        lines += [f"  {one_line(line)}" for line in shown]
        if len(outcome.found.problems) > len(shown):
            lines.append(f"  and {len(outcome.found.problems) - len(shown)} more")
    sources = Counter(table["landmark_source"])
    if len(sources) > 1:
        lines.append(
            "Faces were found in different ways: "
            + ", ".join(f"{count} by {name}" for name, count in sources.items())
            + ". Do not compare these clips without thinking of it."
        )
    remarks = face_lines(outcome)
    if remarks:
        lines.append(f"{plural(len(remarks), 'remark')} on face boxes. {LOOK}")
        lines += [f"  {line}" for line in remarks[:MAX_REMARKS]]
        if len(remarks) > MAX_REMARKS:
            lines.append(f"  and {len(remarks) - MAX_REMARKS} more in {out}/summary.md")
    if outcome.failed:
        lines.append(f"NOT prepared: {plural(len(outcome.failed), 'clip')}.")
        lines += [f"  {one_line(f'{x.id}: {x.problem}')}" for x in outcome.failed[:MAX_FAILED]]
        if len(outcome.failed) > MAX_FAILED:
            lines.append(f"  and {len(outcome.failed) - MAX_FAILED} more in {out}/summary.md")
        lines.append(REPAIR)
    lines.append(f"Look at {out}/contact_sheet.png and {out}/summary.md.")
    lines += class_lines(table)
    command, why = training_command(str(out), table)
    lines += ["Train with", f"  {command}"] if command else [why]
    return lines


def face_lines(outcome: Outcome) -> list[str]:
    """Write a line for each clip or subject whose face boxes were off, and one for lost points."""
    table = outcome.manifest
    names = [
        f"{subject}/{clip}" for subject, clip in zip(table["subject"], table["clip"], strict=True)
    ]
    lines = [
        f"{name}: {note}"
        for name, notes in zip(names, table["notes"], strict=True)
        for note in face_notes(notes)
    ]
    lines += [
        f"{subject}: face boxes differ by up to {gap:.0%} of their size between clips and have no"
        " usual place, so none was corrected"
        for subject, gap in outcome.scattered.items()
    ]
    lost = [name for name, notes in zip(names, table["notes"], strict=True) if NO_POINTS in notes]
    if lost:
        lines.append(
            f"{plural(len(lost), 'clip')} without landmarks at the apex or at the end (see notes in"
            f" the manifest): {', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}"
        )
    return lines


LOOK = "Their rows come first in contact_sheet.png; --landmarks=FILE gives a box of your own."
NO_POINTS = "no landmarks at frame"
MAX_FAILED = 50  # lines on the terminal
MAX_REMARKS = 30
REPAIR = (
    "Copy damaged files again, or delete single damaged frames (a clip is prepared from the frames"
    " that are left), and run the same command: only the shards with these clips are made again."
)


def markdown(table: pd.DataFrame) -> list[str]:
    """Make the lines of a Markdown table."""
    columns = [str(column) for column in table.columns]
    rows = [[str(value) for value in row] for row in table.itertuples(index=False)]
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(map(terminal.markdown, row))} |" for row in rows),
    ]


def _bullets(lines: Sequence[str]) -> list[str]:
    bullets = [f"- {terminal.markdown(line)}" for line in lines[:_MAX_LINES]]
    if len(lines) > _MAX_LINES:
        bullets.append(f"- and {len(lines) - _MAX_LINES} more, in preparation.json")
    return bullets

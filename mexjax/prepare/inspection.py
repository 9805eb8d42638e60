"""A look before a preparation: `--check` counts what releases hold, `--dry-run` tries one clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from mexjax.errors import DataError, one_line
from mexjax.prepare import shards
from mexjax.prepare.cropping import Cropper
from mexjax.prepare.options import Input, Options
from mexjax.prepare.pipeline import make_parameters, read_inputs
from mexjax.prepare.sources.counts import published
from mexjax.prepare.sources.losses import first_lines, loss_lines
from mexjax.prepare.summary import counts, emotion_counts, plural, unit_counts
from mexjax.protocol.classes import OWN_DATASETS
from mexjax.terminal import plain, say

MAX_PROBLEMS = 100  # lines on the terminal
UNPUBLISHED = "not published"  # where the publications give no such number


def check(inputs: Sequence[Input], console: Console) -> int:
    """Print what the releases hold; no image is opened and nothing is written.

    Returns:
      0; 1 if there are clips without any frame.

    Raises:
      DataError: a release that cannot be read.
    """
    reading = read_inputs(inputs)
    table = counts(reading.table)
    # Each dataset is a column: the names of the numbers are long, and one line has to hold them.
    sideways = with_published(table).set_index("dataset").T.rename_axis("number of")
    console.print(rich_table(sideways.reset_index(), "What the readers found"))
    for dataset, clips in reading.table.groupby("dataset", sort=False):
        numbers = published()["datasets"].get(dataset, {})
        is_own = dataset in OWN_DATASETS
        words = emotion_table(clips, numbers.get("emotions", {}))
        units = unit_table(clips, numbers.get("aus", ()))
        if is_own:  # nobody but the user can say how many there should be
            words, units = (each.drop(columns="published") for each in (words, units))
        total = sum(numbers.get("emotions", {}).values())
        of = (
            f" (published: {total} clips)"
            if total not in (0, *numbers.get("clips", ())[:1])
            else ""
        )
        console.print(rich_table(words, f"{dataset}: clips of each emotion{of}"))
        if len(units):
            console.print(rich_table(units, f"{dataset}: clips with each action unit"))
    for line in loss_lines(reading.problems):
        console.print(line, markup=False, soft_wrap=True)
    if reading.problems:
        console.print(f"{plural(len(reading.problems), 'remark')}:")
    shown = first_lines(reading.problems, MAX_PROBLEMS)
    for line in shown:
        say(console, f"  {one_line(line)}")
    if len(reading.problems) > len(shown):
        console.print(f"  and {len(reading.problems) - len(shown)} more")
    absent = int(table["clips without frames"].to_numpy(int).sum())
    if absent:
        console.print(
            f"{plural(absent, 'clip')} without any frames cannot be prepared. Check --root, and"
            " whether the release was unpacked whole.",
            soft_wrap=True,
        )
    return 1 if absent else 0


def dry_run(options: Options, console: Console) -> int:
    """Say what a preparation would do, and prepare one clip of each dataset in memory.

    Returns:
      0; 1 if such a clip could not be prepared.
    """
    options.check()
    reading = read_inputs(options.inputs)
    plan = shards.plan_shards(options.out, reading.jobs, options.clips_per_shard)
    cropper, status = Cropper(options.settings), 0
    parameters = make_parameters(options, cropper)
    num_finished = sum(shards.finished(shard, parameters)[0] is not None for shard in plan)
    for release in options.inputs:
        jobs = [job for job in reading.jobs if job.source == release.name]
        try:
            crop = cropper.crop(jobs[0])
        except DataError as error:
            say(console, one_line(f"{jobs[0].id}: {error}"))
            status = 1
            continue
        frames = sum(int(job.row["n_frames"]) - int(job.row["num_missing_frames"]) for job in jobs)
        size = len(crop.record) / crop.num_stored * frames
        say(
            console,
            f"{release.name}: {plural(len(jobs), 'clip')}, {frames} frames, about"
            f" {size / 2**20:.0f} MiB;"
            f" {crop.id} was prepared for a try (face by {crop.landmark_source}).",
        )
    say(
        console,
        f"{plural(len(plan), 'shard')} in {options.out}, {num_finished} finished. Nothing was"
        " written.",
    )
    return status


def with_published(table: pd.DataFrame) -> pd.DataFrame:
    """Add the published numbers of clips and subjects to the table of `counts`.

    Clips of a user's own have none; a table of nothing else stays as it is.
    """
    names = table["dataset"].tolist()
    if set(names) <= set(OWN_DATASETS):
        return table
    entries = [published()["datasets"].get(name, {}) for name in names]
    blank = ["" if name in OWN_DATASETS else UNPUBLISHED for name in names]
    clips = [
        " or ".join(map(str, entry.get("clips", ()))) or other
        for entry, other in zip(entries, blank, strict=True)
    ]
    subjects = [
        str(entry.get("subjects", other)) for entry, other in zip(entries, blank, strict=True)
    ]
    out = table.copy()
    out.insert(2, "published clips", clips)
    out.insert(4, "published subjects", subjects)
    return out


def emotion_table(table: pd.DataFrame, known: Mapping[str, int]) -> pd.DataFrame:
    """Make a table with the columns emotion, clips and published.

    An emotion that the publication does not list has 0 there; without any numbers of emotions every
    row says so in words.

    Args:
      table: clips of one dataset.
      known: published numbers of clips by emotion, or nothing.
    """
    numbers = emotion_counts(table)
    words = list(dict.fromkeys([*numbers, *known]))
    return pd.DataFrame(
        {
            "emotion": words,
            "clips": [numbers.get(word, 0) for word in words],
            "published": [str(known.get(word, 0)) if known else UNPUBLISHED for word in words],
        }
    )


def unit_table(table: pd.DataFrame, known: Sequence[int]) -> pd.DataFrame:
    """Make a table with the columns AU, clips, with doubtful and published.

    "with doubtful" counts units such as "13?" too, as the published numbers do.

    Args:
      table: clips of one dataset.
      known: published numbers of the units `published()["action_units"]`, or nothing.
    """
    sure = unit_counts(table)
    both = Counter(
        au
        for present, unsure in zip(table["aus"], table["aus_unsure"], strict=True)
        for au in {*present, *unsure}
    )
    numbers = {str(au): n for au, n in zip(published()["action_units"], known, strict=False)}
    units = sorted({*both, *numbers}, key=int)
    return pd.DataFrame(
        {
            "AU": units,
            "clips": [sure.get(au, 0) for au in units],
            "with doubtful": [both[au] for au in units],
            "published": [str(numbers.get(au, UNPUBLISHED)) for au in units],
        }
    )


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """Make a table for the terminal; numbers stand at the right."""
    out = Table(title=plain(title), title_justify="left")
    for column in table.columns:
        is_number = pd.api.types.is_numeric_dtype(table[column])
        out.add_column(plain(column), justify="right" if is_number else "left")
    for row in table.itertuples(index=False):
        out.add_row(*map(plain, row))
    return out

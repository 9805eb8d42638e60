"""Looking before preparing: `--check` counts what the releases hold, `--dry-run` tries one clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from mexjax.errors import DataError
from mexjax.prepare import shards
from mexjax.prepare.cropping import Cropper
from mexjax.prepare.options import Input, Options
from mexjax.prepare.pipeline import make_parameters, read_inputs
from mexjax.prepare.sources.counts import published
from mexjax.prepare.summary import counts, emotion_counts, plural, unit_counts

MAX_PROBLEMS = 100  # lines on the terminal


def check(inputs: Sequence[Input], console: Console) -> int:
    """Print what the releases hold; no image is opened and nothing is written.

    Returns:
      0; 1 if there are clips without any frame.

    Raises:
      DataError: a release that cannot be read.
    """
    found = read_inputs(inputs)
    table = counts(found.table)
    # A column a dataset: the names of the numbers are long, and one line has to hold them.
    sideways = with_published(table).set_index("dataset").T.rename_axis("number of")
    console.print(rich_table(sideways.reset_index(), "What the readers found"))
    for dataset, own in found.table.groupby("dataset", sort=False):
        known = published()["datasets"].get(dataset, {})
        words = emotion_table(own, known.get("emotions", {}))
        console.print(rich_table(words, f"{dataset}: clips of each emotion"))
        units = unit_table(own, known.get("aus", ()))
        if len(units):
            console.print(rich_table(units, f"{dataset}: clips with each action unit"))
    if found.problems:
        console.print(f"{plural(len(found.problems), 'remark')}:")
    for line in found.problems[:MAX_PROBLEMS]:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if len(found.problems) > MAX_PROBLEMS:
        console.print(f"  and {len(found.problems) - MAX_PROBLEMS} more")
    absent = int(table["clips without frames"].sum())
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
    found = read_inputs(options.inputs)
    planned = shards.plan_shards(options.out, found.jobs, options.clips_per_shard)
    cropper, status = Cropper(options.settings), 0
    parameters = make_parameters(options, cropper)
    kept = sum(shards.finished(shard, parameters)[0] is not None for shard in planned)
    for release in options.inputs:
        own = [job for job in found.jobs if job.source == release.name]
        try:
            crop = cropper.crop(own[0])
        except DataError as error:
            console.print(f"{own[0].id}: {error}", markup=False, soft_wrap=True)
            status = 1
            continue
        frames = sum(int(job.row["n_frames"]) - int(job.row["num_missing_frames"]) for job in own)
        size = len(crop.record) / crop.num_stored * frames
        console.print(
            f"{release.name}: {plural(len(own), 'clip')}, {frames} frames, about"
            f" {size / 2**20:.0f} MiB;"
            f" {crop.id} was prepared for a try (face by {crop.landmark_source}).",
            markup=False,
            soft_wrap=True,
        )
    console.print(
        f"{plural(len(planned), 'shard')} in {options.out}, {kept} finished. Nothing was written.",
        markup=False,
        soft_wrap=True,
    )
    return status


def with_published(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `counts` with the published numbers of clips and subjects where known."""
    known = [published()["datasets"].get(dataset, {}) for dataset in table["dataset"]]
    clips = [" or ".join(map(str, entry.get("clips", ()))) for entry in known]
    subjects = [str(entry.get("subjects", "")) for entry in known]
    out = table.copy()
    out.insert(2, "published clips", clips)
    out.insert(4, "published subjects", subjects)
    return out


def emotion_table(table: pd.DataFrame, known: Mapping[str, int]) -> pd.DataFrame:
    """Columns emotion, clips, published ("" where it is not known)."""
    found = emotion_counts(table)
    words = list(dict.fromkeys([*found, *known]))
    return pd.DataFrame(
        {
            "emotion": words,
            "clips": [found.get(word, 0) for word in words],
            "published": [str(known.get(word, "")) for word in words],
        }
    )


def unit_table(table: pd.DataFrame, known: Sequence[int]) -> pd.DataFrame:
    """Columns AU, clips, with doubtful ("13?" counted, as the published numbers do), published.

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
            "published": [str(numbers.get(au, "")) for au in units],
        }
    )


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """A table for the terminal; numbers to the right."""
    out = Table(title=title, title_justify="left")
    for column in table.columns:
        is_number = pd.api.types.is_numeric_dtype(table[column])
        out.add_column(str(column), justify="right" if is_number else "left")
    for row in table.itertuples(index=False):
        out.add_row(*(str(value) for value in row))
    return out

"""Deviation of re-selected key frames from the annotated ones: GAMDSS, Sec. IV and Eq. 15-17.

For every clip, key frame and lambda: the deviation in percent of the clip, D% = |new - annotated| /
L * 100, and in milliseconds, Dms = |new - annotated| * 1000 / fps; the mean Dms of a clip is that
over onset, apex and offset. A dataset's values are means over its clips. L counts the frames from
annotated onset to offset. The true key frames of the embedded dataset are known, so there the error
of the annotation and of every rule is given too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from mexjax.data import keyframes
from mexjax.data.keyframes import Rule
from mexjax.errors import DataError
from mexjax.files import atomic
from mexjax.progress import ClipProgress
from mexjax.report.tables import markdown_table, rich_table
from mexjax.studies import keyframes_figures as figures
from mexjax.studies import options
from mexjax.studies.annotated_clips import AnnotatedClip, embedded_clips, prepared_clips
from mexjax.terminal import say, table_console

KEYS = ("onset", "apex", "offset")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study: tables on the terminal; report.md, CSV files and pictures in `--out`."""
    arguments = options.keyframes().read(argv)
    rules = [
        Rule(arguments.window, share, share, arguments.difference) for share in arguments.lambdas
    ]
    strip_rule = Rule(
        arguments.window, arguments.strip_lambda, arguments.strip_lambda, arguments.difference
    )
    if arguments.root:
        total, clips = prepared_clips(arguments.root, arguments.clips)
    else:
        most = max(*arguments.lambdas, arguments.strip_lambda)
        total, clips = embedded_clips(arguments.preset, arguments.seed, arguments.clips, reach=most)
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = table_console()
    strips = Strips(arguments.strips, strip_rule)
    with ClipProgress(console=console, is_kept=False) as progress:
        table = deviations(strips.watch(counted(clips, total, progress)), rules)
    write(arguments.out / "clips.csv", table.to_csv(index=False))
    summary = summarise(table)
    write(arguments.out / "summary.csv", summary.to_csv(index=False))
    paths = figures.draw(summary, arguments.out)
    paths += strips.draw(arguments.out)
    head, rows = deviation_rows(summary)
    texts = [f"# Re-selected key frames ({arguments.window}, {arguments.difference})", ""]
    texts += [markdown_table(head, rows), ""]
    console.print(rich_table(head, rows))
    if "error_apex_ms" in summary:
        head, rows = error_rows(summary)
        texts += ["Mean error against the true key frames, ms:", "", markdown_table(head, rows), ""]
        console.print("Mean error against the true key frames, ms:")
        console.print(rich_table(head, rows))
    texts += [f"![{path.stem}]({path.name})\n" for path in paths]
    write(arguments.out / "report.md", "\n".join(texts))
    say(console, f"Tables and pictures: {arguments.out / 'report.md'}")
    return 0


def counted(
    clips: Iterable[AnnotatedClip], total: int, progress: ClipProgress
) -> Iterator[AnnotatedClip]:
    """Pass the clips on; each is counted when the next one is asked for."""
    for done, clip in enumerate(clips, start=1):
        yield clip
        progress(done, total)


def deviations(clips: Iterable[AnnotatedClip], rules: Sequence[Rule]) -> pd.DataFrame:
    """One row a clip and rule.

    Columns: dataset, subject, clip, fps, L (frames), lambda; onset, apex, offset (annotated) and
    new_onset ... (frame numbers); D_onset_percent ... (Eq. 15), D_onset_ms ...
    (Eq. 16), D_mean_ms (Eq. 17); where the truth is known annotated_error_onset_ms ... and
    error_onset_ms ..., absolute.

    Args:
      clips: any number of clips.
      rules: with distinct `lambda_rise`.

    Raises:
      DataError: there is no clip.
    """
    rows: list[dict[str, Any]] = []
    for clip in clips:
        numbers = np.array(clip.numbers)
        annotated = numbers[list(clip.places)]
        length = annotated[2] - annotated[0] + 1
        for rule in rules:
            new = numbers[list(keyframes.reselect(clip.frames, *clip.places, rule))]
            row: dict[str, Any] = {
                "dataset": clip.dataset,
                "subject": clip.subject,
                "clip": clip.name,
                "fps": clip.fps,
                "L": length,
                "lambda": rule.lambda_rise,
            }
            row |= dict(zip(KEYS, annotated.tolist(), strict=True))
            row |= {f"new_{key}": n for key, n in zip(KEYS, new.tolist(), strict=True)}
            shift = np.abs(new - annotated)
            row |= {
                f"D_{key}_percent": 100 * s / length for key, s in zip(KEYS, shift, strict=True)
            }
            row |= {f"D_{key}_ms": 1000 * s / clip.fps for key, s in zip(KEYS, shift, strict=True)}
            row["D_mean_ms"] = 1000 * float(shift.mean()) / clip.fps
            if clip.truth is not None:
                for name, frames in (("annotated_error", annotated), ("error", new)):
                    errors = 1000 * np.abs(frames - np.array(clip.truth)) / clip.fps
                    row |= {f"{name}_{key}_ms": e for key, e in zip(KEYS, errors, strict=True)}
            rows.append(row)
    if not rows:
        raise DataError("There is no clip to study. Check --root and --clips.")
    return pd.DataFrame(rows)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the clips of each dataset and lambda.

    The column `changed` is the share of clips whose key frames are not all the annotated ones.
    """
    is_changed = np.zeros(len(table), bool)
    for key in KEYS:
        is_changed |= (table[key] != table[f"new_{key}"]).to_numpy()
    places = [*KEYS, *(f"new_{key}" for key in KEYS)]
    values = table.assign(changed=is_changed.astype(float)).drop(
        columns=["subject", "clip", *places]
    )
    groups = values.groupby(["dataset", "lambda"], sort=False)
    means = cast(pd.DataFrame, groups.mean())  # its annotation allows single values too
    return means.assign(clips=groups.size()).reset_index()


def deviation_rows(summary: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of deviations."""
    head = ["dataset", "lambda", "clips", "changed"]
    head += [f"D% {key}" for key in KEYS] + [f"Dms {key}" for key in KEYS] + ["mean Dms"]
    rows = [
        [row["dataset"], f"{row['lambda']:g}", str(row["clips"]), f"{100 * row['changed']:.0f}%"]
        + [f"{row[f'D_{key}_percent']:.2f}" for key in KEYS]
        + [f"{row[f'D_{key}_ms']:.1f}" for key in KEYS]
        + [f"{row['D_mean_ms']:.1f}"]
        for _, row in summary.iterrows()
    ]
    return head, rows


def error_rows(summary: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the errors: of the annotation, then of each lambda."""
    head = ["dataset", "key frames", *KEYS, "mean"]
    rows = []
    for dataset, part in summary.dropna(subset=["error_apex_ms"]).groupby("dataset", sort=False):
        first = part.iloc[0]
        lines = [("annotated", "annotated_error", first)]
        lines += [(f"lambda {row['lambda']:g}", "error", row) for _, row in part.iterrows()]
        for name, prefix, row in lines:
            values = [row[f"{prefix}_{key}_ms"] for key in KEYS]
            cells = [f"{value:.1f}" for value in (*values, np.mean(values))]
            rows.append([str(dataset), name, *cells])
    return head, rows


class Strips:
    """A collector of the clips that a rule moves most; it draws them in the end."""

    def __init__(self, count: int, rule: Rule) -> None:
        self.count, self.rule = count, rule
        self.kept: list[tuple[float, AnnotatedClip, tuple[int, int, int]]] = []

    def watch(self, clips: Iterable[AnnotatedClip]) -> Iterator[AnnotatedClip]:
        """Pass the clips on, and keep those that the rule moves most."""
        for clip in clips:
            if self.count > 0:
                new = keyframes.reselect(clip.frames, *clip.places, self.rule)
                share = np.abs(np.subtract(new, clip.places)).sum() / len(clip.frames)
                # Only a few frames of a clip are kept, not the clip.
                self.kept.append((float(share), clip.only([*clip.places, *new]), new))
                self.kept.sort(key=lambda item: -item[0])
                del self.kept[self.count :]
            yield clip

    def draw(self, folder: Path) -> list[Path]:
        """Write `strips.png` and return its path; nothing if no clip was kept."""
        if not self.kept:
            return []
        strips = [(clip, new) for _, clip, new in self.kept]
        return [figures.draw_strips(strips, self.rule.lambda_rise, folder)]


def write(path: Path, text: str) -> None:
    """Write a text file that appears whole."""
    with atomic(path) as file:
        file.write(text)

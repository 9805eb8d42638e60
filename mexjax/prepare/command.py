"""The command: `python -m mexjax.prepare --dataset=casme2 --root=CASME2 --out=prepared/casme2`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mexjax.errors import ConfigError, MexjaxError

if TYPE_CHECKING:
    from mexjax.prepare.options import Input, Options

LINE_EVERY_S = 10.0  # where there is no bar

EXAMPLES = """
Look first, at no cost:
  python -m mexjax.prepare --dataset=casme2 --root=CASME2 --check
Then prepare (the same command goes on if it was interrupted), here two datasets into one:
  python -m mexjax.prepare --dataset=casme2,samm --root=CASME2 --root=SAMM --out=prepared/both
Without any release, the embedded faces in the files and folders of one:
  python -m mexjax.prepare --dataset=synthetic --layout=casme2 --out=release
"""


def parser() -> argparse.ArgumentParser:
    """Every option, with its meaning."""
    from mexjax.prepare.cropping import COLORS
    from mexjax.prepare.faces import KINDS

    options = argparse.ArgumentParser(
        prog="python -m mexjax.prepare",
        description="Prepare releases of micro-expression datasets for training.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add(
        "--dataset",
        action="append",
        required=True,
        help="name of a reader, or several with commas; may be repeated",
    )
    add("--root", action="append", type=Path, default=[], help="folder of each release, in order")
    add(
        "--spreadsheet",
        action="append",
        default=[],
        help="annotation file of each release, in order; empty: looked for under the root",
    )
    add("--out", type=Path, help="folder to write")
    add(
        "--faces",
        choices=KINDS,
        default="auto",
        help="auto: landmarks if a file is given, else mediapipe if there is a model, else cascade",
    )
    add("--landmarker-model", type=Path, help="MediaPipe's face_landmarker.task")
    add("--landmarks", type=Path, help="csv: clip,frame,x0,y0,...,x67,y67 or clip,frame,x,y,w,h")
    add("--size_px", "--size-px", type=int, default=256, help="side of the stored crop")
    add("--color", choices=COLORS, default="auto", help="auto: gray if the release is")
    add("--clips-per-shard", type=int, default=16)
    add("--workers", type=int, default=0, help="processes; 0: threads, which start at once")
    add("--check", action="store_true", help="only look at the releases and count")
    add("--dry-run", action="store_true", help="prepare one clip of each in memory, write nothing")
    add("--layout", help="with --dataset=synthetic: the release whose files to imitate")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
      argv: arguments without the program's name.

    Returns:
      0; 1 if clips could not be prepared; 2 after an error, whose message was printed.
    """
    errors = Console(stderr=True, highlight=False)
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as stopped:  # of --help, or with its message printed
        return int(stopped.code or 0)
    try:
        return _run(arguments, Console(highlight=False))
    except KeyboardInterrupt:
        errors.print("Stopped. Finished shards are kept; the same command goes on.", style="yellow")
        return 130
    except (MexjaxError, OSError) as error:
        errors.print("[bold red]Error:[/]", end=" ")
        errors.print(_message(error), markup=False, soft_wrap=True)
        return 2


def _message(error: Exception) -> str:
    if isinstance(error, MexjaxError):
        return " ".join(str(error).split())
    return f"{getattr(error, 'filename', None) or 'A file'}: {getattr(error, 'strerror', error)}."


def _run(arguments: argparse.Namespace, console: Console) -> int:
    # Imported here: --help must not wait for them.
    from mexjax.prepare.cropping import Settings
    from mexjax.prepare.inspection import check, dry_run
    from mexjax.prepare.options import Options

    names = [name.strip() for text in arguments.dataset for name in text.split(",")]
    if "synthetic" in names:
        return _write_synthetic(names, arguments, console)
    if arguments.layout:
        raise ConfigError("--layout goes with --dataset=synthetic.")
    inputs = _inputs(names, arguments)
    if arguments.check:
        return check(inputs, console)
    if arguments.out is None:
        raise ConfigError("Where to? Give --out=FOLDER (or --check, which writes nothing).")
    settings = Settings(
        size_px=arguments.size_px,
        color=arguments.color,
        faces=arguments.faces,
        landmarker_model=arguments.landmarker_model,
        landmarks=arguments.landmarks,
    )
    options = Options(
        inputs=inputs,
        out=arguments.out,
        settings=settings,
        clips_per_shard=arguments.clips_per_shard,
        num_workers=arguments.workers,
    )
    if arguments.dry_run:
        return dry_run(options, console)
    return _prepare(options, console)


def _inputs(names: Sequence[str], arguments: argparse.Namespace) -> tuple[Input, ...]:
    from mexjax.prepare.options import Input

    roots, spreadsheets = arguments.root, arguments.spreadsheet
    if len(roots) != len(names):
        raise ConfigError(
            f"{len(names)} datasets ({', '.join(names)}) and {len(roots)} roots: give one"
            " --root=FOLDER for each, in the same order."
        )
    if spreadsheets and len(spreadsheets) != len(names):
        raise ConfigError(
            f"{len(names)} datasets and {len(spreadsheets)} spreadsheets: give one"
            " --spreadsheet=FILE for each, in the same order (--spreadsheet= where it lies under"
            " the root), or none."
        )
    given = [Path(text) if text else None for text in spreadsheets] or [None] * len(names)
    return tuple(Input(*item) for item in zip(names, roots, given, strict=True))


def _prepare(options: Options, console: Console) -> int:
    from mexjax.prepare import pipeline, summary

    with PrepareProgress(console) as progress:
        outcome = pipeline.prepare(options, progress=progress)
    for line in outcome.redone:
        console.print(line, markup=False, soft_wrap=True)
    for line in summary.closing_lines(options, outcome):
        console.print(line, markup=False, soft_wrap=True)
    return 1 if outcome.failed else 0


def _write_synthetic(names: Sequence[str], arguments: argparse.Namespace, console: Console) -> int:
    from mexjax.prepare.layouts import LAYOUTS, write_layout

    if list(names) != ["synthetic"] or not arguments.layout or arguments.out is None:
        raise ConfigError(
            "The embedded data are written alone, as a release of your choice:"
            f" --dataset=synthetic --layout=NAME --out=FOLDER; layouts: {', '.join(LAYOUTS)}."
        )
    layout = write_layout(arguments.layout, arguments.out)
    words = ["python", "-m", "mexjax.prepare", f"--dataset={arguments.layout}"]
    words += [f"--root={layout.root}", f"--spreadsheet={layout.spreadsheet}"]
    words.append(f"--landmarks={layout.landmarks}")
    console.print(
        f"{len(layout.expected)} rendered clips lie in {layout.root} as {arguments.layout} would."
        f" Prepare them with\n  {shlex.join(words)} --out=FOLDER",
        markup=False,
        soft_wrap=True,
    )
    return 0


class PrepareProgress:
    """Clips, frames a second and the time left: a bar on a terminal, a line now and then else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeRemainingColumn(compact=True),
                console=console,
            )
            self._task = self._bar.add_task("reading", total=None, detail="")

    def __enter__(self) -> PrepareProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, total: int, frames: int) -> None:
        """Count: `done` clips of `total`, with `frames` frames."""
        now = time.monotonic()
        detail = f"{frames / max(now - self._start, 1e-9):.0f} frames/s"
        if self._bar:
            self._bar.update(
                self._task, description="clips", completed=done, total=total, detail=detail
            )
        elif now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            left = (now - self._start) / done * (total - done)
            self._console.print(f"{done} of {total} clips, {detail}, {left:.0f} s left")


def entry_point() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry_point()

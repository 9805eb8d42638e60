"""The command `mexjax prepare --dataset=casme2 --root=CASME2 --out=prepared/casme2`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from mexjax import cli, terminal
from mexjax.errors import ConfigError
from mexjax.progress import ClipProgress

if TYPE_CHECKING:
    from mexjax.prepare.options import Input, Options

# A key is the name of a reader, its value the dataset's own name. They stand here, like the choices
# below, because --help must not wait for the readers; a test compares them.
DATASETS = {
    "casme": "CASME",
    "casme2": "CASME II",
    "casme3a": "CAS(ME)3 part A",
    "casme3c": "CAS(ME)3 part C",
    "casme_sq": "CAS(ME)2",
    "csv": "your own table of clips",
    "folder": "your own folders of classes",
    "fourd": "4DME",
    "mmew": "MMEW",
    "samm": "SAMM",
    "smic": "SMIC",
}
FACES = ("auto", "mediapipe", "landmarks", "precropped", "cascade")
COLORS = ("auto", "gray", "rgb")

EXAMPLES = """
Look first, at no cost:
  mexjax prepare --dataset=casme2 --root=CASME2 --check
Then prepare (the same command goes on if it was interrupted), here two datasets into one:
  mexjax prepare --dataset=casme2,samm --root=CASME2 --root=SAMM --out=prepared/both
Clips of your own, in folders by person and emotion:
  mexjax prepare --dataset=folder --root=clips --layout=subject/emotion/clip --out=prepared/mine
Without any release, the embedded faces in the files and folders of one:
  mexjax prepare --dataset=synthetic --layout=casme2 --out=release
Formats, folders and tables are explained in docs/datasets.md. python -m mexjax.prepare is the same.
"""


def parser() -> cli.Parser:
    """Make the parser with every option and its meaning."""
    names = "\n".join(f"  {name:10}{title}" for name, title in DATASETS.items())
    options = cli.Parser(
        "mexjax prepare",
        "Prepare releases of micro-expression datasets for training.\n\n"
        f'Datasets; spellings such as CASME2 or "CASME II" are taken too:\n{names}\n'
        "  synthetic the embedded faces, written as a release (with --layout)",
        EXAMPLES,
    )
    add = options.add_argument
    add(
        "--dataset",
        action="append",
        required=True,
        metavar="NAME",
        help="name of a dataset above, or several with commas; may be repeated",
    )
    add(
        "--root",
        action="append",
        type=cli.path,
        default=[],
        help="folder of each release, in order",
    )
    add(
        "--spreadsheet",
        action="append",
        default=[],
        help="annotation file of each release, in order; empty: looked for under the root",
    )
    add("--out", type=cli.path, help="folder to write")
    add(
        "--faces",
        choices=FACES,
        default="auto",
        help="auto: landmarks if a file is given, else mediapipe if there is a model, else cascade",
    )
    add("--landmarker-model", type=cli.path, help="MediaPipe's face_landmarker.task")
    add(
        "--landmarks", type=cli.path, help="csv: clip,frame,x0,y0,...,x67,y67 or clip,frame,x,y,w,h"
    )
    add("--size_px", "--size-px", type=int, default=256, help="side of the stored crop (256)")
    add("--color", choices=COLORS, default="auto", help="auto: gray if the release is")
    add("--clips-per-shard", type=int, default=16, help="clips of one file on disk (16)")
    add("--workers", type=int, default=0, help="processes; 0: threads, which start at once")
    add("--check", action="store_true", help="only look at the releases and count")
    add("--dry-run", action="store_true", help="prepare one clip of each in memory, write nothing")
    add(
        "--layout",
        metavar="LAYOUT",
        help="with --dataset=folder: the meaning of the names on the way to a clip, for example"
        " emotion/clip, subject/emotion/clip or emotion/subject_clip (else it is guessed, and"
        " said); with --dataset=synthetic: the release whose files to imitate",
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
      argv: arguments without the program's name.

    Returns:
      0; 1 if clips could not be prepared; 2 after an error, whose message was printed.
    """
    return cli.run_command(
        lambda: _run(parser().read(argv), terminal.console()),
        when_stopped="Stopped. Finished shards are kept; the same command goes on.",
    )


def _run(arguments: argparse.Namespace, console: Console) -> int:
    names = [_canonical(name) for text in arguments.dataset for name in text.split(",")]
    if "synthetic" in names:
        return _write_synthetic(names, arguments, console)
    if arguments.layout and "folder" not in names:
        raise ConfigError("--layout goes with --dataset=synthetic and --dataset=folder.")
    # These are imported here because --help must not wait for them.
    from mexjax.prepare.cropping import Settings
    from mexjax.prepare.inspection import check, dry_run
    from mexjax.prepare.options import Options

    inputs = _inputs(names, arguments)
    if arguments.check:
        raise SystemExit(check(inputs, console))  # its output is all that was asked for
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


def _canonical(name: str) -> str:
    """Return the name of a reader for any spelling that the table of datasets knows."""
    from mexjax.protocol.classes import canonical_dataset

    return name.strip() if name.strip() in DATASETS else canonical_dataset(name)


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
    files = [cli.path(text) if text else None for text in spreadsheets] or [None] * len(names)
    layouts = [arguments.layout or "" if name == "folder" else "" for name in names]
    return tuple(Input(*item) for item in zip(names, roots, files, layouts, strict=True))


def _prepare(options: Options, console: Console) -> int:
    from mexjax.prepare import pipeline, summary

    with ClipProgress(console=console) as progress:
        progress.say("reading the releases")
        outcome = pipeline.prepare(options, progress=progress)
    for line in outcome.redone:
        terminal.say(console, line)
    for line in summary.closing_lines(options, outcome):
        terminal.say(console, line)
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
        terminal.plain(
            f"{len(layout.expected)} rendered clips lie in {layout.root} as {arguments.layout}"
            f" would. Prepare them with\n  {shlex.join(words)} --out=FOLDER"
        ),
        soft_wrap=True,
    )
    return 0

"""Options of every study, apart from the studies: --help must not wait for what they import."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from mexjax.cli import Parser, path

LAMBDAS = (0.05, 0.1, 0.15, 0.2)  # those of the paper's Figures 7 and 8
# Names that the studies and mexjax.data.keyframes know; a test compares them.
TABLES = ("ablation", "gamma", "controls")
WINDOWS = ("inward", "eq2", "alg1", "apex")
DIFFERENCES = ("signed", "uint8_wrap", "same_light")
PREPARED = "folder that mexjax prepare wrote"


def ac4au_tables() -> Parser:
    """Options of the study `ac4au_tables`."""
    options = Parser(
        "mexjax study ac4au_tables",
        "The ablations and the sweep of gamma of AC4AU, in the form of the paper's tables.",
        """
Each row and seed is a run: five minutes with the tiny preset on two cores.
  mexjax study ac4au_tables --out=runs/ac4au_tables --tables gamma --seeds 0 1 2
  mexjax study ac4au_tables --out=runs/one_row --only "no FRD" --set train.num_epochs=2
""",
    )
    add = options.add_argument
    add("--out", type=path, required=True, help="folder of the runs and the tables")
    add("--card", default="ac4au", help="recipe card, with variant (ac4au)")
    add("--tables", nargs="+", default=list(TABLES), help=f"of {', '.join(TABLES)}; default: all")
    add("--only", nargs="+", default=[], help="rows by name; a wrong name lists all of them")
    add("--seeds", nargs="+", type=int, default=[0], help="seeds of each row (0)")
    add("--set", nargs="*", default=[], help="key=value for every row")
    return options


def au() -> Parser:
    """Options of the study `au`."""
    options = Parser(
        "mexjax study au",
        "Action units of a dataset, and what the features of a finished run know.",
        """
  mexjax study au --root=prepared/casme2 --units=1,2,4,12
  mexjax study au --run=runs/ac4au_tiny --out=studies/au
""",
    )
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=path, help="folder of a finished run of task au")
    source.add_argument("--root", type=path, help=PREPARED)
    add = options.add_argument
    add("--units", default="cd6me", help="with --root: a set of units by name, or 1,2,4 (cd6me)")
    add("--out", type=path, help="folder to write; default: au_study below what is read")
    add("--seed", type=int, default=0, help="seed of t-SNE and of the split of the probe (0)")
    return options


def keyframes() -> Parser:
    """Options of the study `keyframes`."""
    options = Parser(
        "mexjax study keyframes",
        "Deviation of re-selected key frames from annotated ones, over lambda.",
        """
  mexjax study keyframes --lambdas=0.05,0.1 --out=studies/keyframes
  mexjax study keyframes --root=prepared/casme2 --clips=50
""",
    )
    add = options.add_argument
    add(
        "--root",
        action="append",
        type=path,
        default=[],
        help=f"{PREPARED}; may be repeated; none: the embedded dataset",
    )
    add("--preset", default="keyframes", help="embedded dataset: default or keyframes")
    add("--seed", type=int, default=0, help="seed of the embedded dataset (0)")
    add("--clips", type=_count, default=0, help="only so many clips of each dataset; 0: all")
    add("--lambdas", type=_numbers, default=LAMBDAS, help="with commas, each from 0 to 1")
    add("--window", choices=WINDOWS, default="inward", help="where key frames are searched")
    add("--difference", choices=DIFFERENCES, default="signed", help="how frames are compared")
    add("--strips", type=int, default=4, help="film strips: clips that move most at one lambda")
    add("--strip-lambda", type=float, default=0.1, help="lambda of the film strips")
    add("--out", type=path, default=Path("studies/keyframes"), help="folder to write")
    return options


def magnify() -> Parser:
    """Options of the study `magnify`."""
    options = Parser(
        "mexjax study magnify",
        "Motion magnification looked at: faces before and after, and the flow between them.",
        """
  mexjax study magnify --methods=phase --factor=2 --out=studies/phase
  mexjax study magnify --root=prepared/casme2 --clips=8
""",
    )
    add = options.add_argument
    add("--root", type=path, help=f"{PREPARED}; none: embedded clips")
    add("--methods", default="linear,phase", help="linear, phase, magnet; with commas")
    add("--factor", type=float, default=3.0, help="magnified displacement over the real one (3)")
    add("--weights", type=os.path.expanduser, default="", help="checkpoint file of magnet")
    add("--gain", default="port", help="what the factor means for magnet: port or official")
    add("--clips", type=int, default=4, help="rows of the picture (4)")
    add("--size-px", type=int, default=224, help="side of embedded clips (224)")
    add("--amplitude", type=float, default=0.5, help="motion of embedded clips (0.5)")
    add("--out", type=path, default=Path("studies/magnify"), help="folder to write")
    return options


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(item) for item in text.split(",") if item.strip())
    except ValueError:
        values = ()
    if not values or len(set(values)) != len(values):
        # A ValueError would not do: argparse would show the name of this function alone.
        raise argparse.ArgumentTypeError(f"takes distinct numbers with commas, found {text!r}")
    return tuple(sorted(values))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"takes a whole number, 0 for all, found {text!r}")
    return int(text)


PARSERS: dict[str, Callable[[], Parser]] = {
    "ac4au_tables": ac4au_tables,
    "au": au,
    "keyframes": keyframes,
    "magnify": magnify,
}

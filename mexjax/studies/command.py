"""The command: `mexjax study NAME [options]`; the studies are the modules in `mexjax/studies/`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from mexjax import cli
from mexjax.errors import ConfigError, unknown_name
from mexjax.studies.options import PARSERS

# Each name has one line about its study, which is the module of this name in `mexjax.studies`.
STUDIES: dict[str, str] = {
    "ac4au_tables": "the ablations and the sweep of gamma of AC4AU, beside the paper's",
    "au": "action units of a dataset, and what the features of a finished run know",
    "keyframes": "how far re-selected key frames lie from annotated ones, over lambda",
    "magnify": "pairs of frames before and after motion magnification",
}
EXAMPLES = """
  mexjax study magnify --out=studies/magnify          on the embedded dataset
  mexjax study keyframes --root=prepared/casme2       on a prepared one
  mexjax study au --run=runs/ac4au_tiny               on a finished run
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a study.

    Args:
      argv: arguments without the program's name: the study, then its own options.

    Returns:
      The exit status, see `mexjax.cli.run_command`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return cli.run_command(
        lambda: _run(arguments), when_stopped="Stopped; files that were written before are kept."
    )


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h"):
        print("usage: mexjax study NAME [options]    (NAME --help explains the options)\n")
        for name, about in STUDIES.items():
            print(f"  {name:14}{about}")
        print(EXAMPLES, end="")
        raise SystemExit(0 if arguments else cli.ERROR)
    name = arguments[0]
    if name not in STUDIES:
        raise ConfigError(unknown_name("study", name, STUDIES))
    if {"--help", "-h"} & set(arguments):
        PARSERS[name]().print_help()
        raise SystemExit(0)
    return importlib.import_module(f"mexjax.studies.{name}").main(arguments[1:])

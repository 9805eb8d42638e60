"""The command: `python -m mexjax.studies NAME [options]`; the studies are in `mexjax/studies/`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from rich.console import Console

from mexjax.errors import ConfigError, MexjaxError, unknown_name

# Name -> what it tells. A study is the module of its name in `mexjax.studies`.
STUDIES: dict[str, str] = {
    "ac4au_tables": "the ablations and the sweep of gamma of AC4AU, beside the paper's",
    "au": "action units of a dataset, and what the features of a finished run know",
    "keyframes": "how far re-selected key frames lie from annotated ones, over lambda",
    "magnify": "pairs of frames before and after motion magnification",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a study.

    Args:
      argv: arguments without the program's name: the study, then its own options.

    Returns:
      The study's exit status: 0, or 2 after an error, whose message was printed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    errors = Console(stderr=True, highlight=False)
    if not arguments or arguments[0] in ("--help", "-h"):
        print("Usage: python -m mexjax.studies NAME [options]; NAME --help explains the options.\n")
        for name, about in STUDIES.items():
            print(f"  {name:14}{about}")
        return 0 if arguments else 2
    try:
        name = arguments[0]
        if name not in STUDIES:
            raise ConfigError(unknown_name("study", name, STUDIES))
        return importlib.import_module(f"mexjax.studies.{name}").main(arguments[1:])
    except SystemExit as stopped:  # of --help, or with its message printed
        return int(stopped.code or 0)
    except KeyboardInterrupt:
        errors.print("Stopped; files that were written before are kept.", style="yellow")
        return 130
    except (MexjaxError, OSError) as error:
        errors.print("[bold red]Error:[/]", end=" ")
        errors.print(_message(error), markup=False, soft_wrap=True)
        return 2


def _message(error: Exception) -> str:
    if isinstance(error, MexjaxError):
        return " ".join(str(error).split())
    return f"{getattr(error, 'filename', None) or 'A file'}: {getattr(error, 'strerror', error)}."


if __name__ == "__main__":
    sys.exit(main())

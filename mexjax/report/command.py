"""The command that rebuilds and compares reports.

python -m mexjax.report RUN            rebuild and print the report of a run
python -m mexjax.report RUN1 RUN2 ...  the same for each, then compare them
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mexjax.errors import MexjaxError
from mexjax.report.compare import compare, print_comparison
from mexjax.report.text import print_results
from mexjax.report.write import write_report


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mexjax.report",
        description="Rebuild reports from saved predictions; compare several runs.",
    )
    parser.add_argument("workdir", nargs="+", type=Path, help="folder of a finished run")
    options = parser.parse_args(argv)
    console = Console()
    try:
        for workdir in options.workdir:
            print_results(write_report(workdir), console=console)
            console.print(f"Written: {workdir / 'report.md'}\n", highlight=False, markup=False)
        if len(options.workdir) > 1:
            print_comparison(compare(options.workdir), console=console)
    except MexjaxError as error:
        errors = Console(stderr=True, highlight=False)
        errors.print(f"Error: {error}", style="bold red", markup=False, soft_wrap=True)
        return 2
    return 0

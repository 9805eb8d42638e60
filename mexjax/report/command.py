"""The command that rebuilds and compares reports.

mexjax report RUN            rebuild and print the report of a run
mexjax report RUN1 RUN2 ...  the same for each, then compare them
mexjax report SWEEP          the same for the folder of a sweep: a row a setting
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mexjax import cli, terminal

EXAMPLES = """
The report of one run, from its saved predictions; nothing is trained:
  mexjax report runs/fdp_tiny
Several runs: seeds of one configuration are one group, others are compared with the first:
  mexjax report runs/fdp_seed0 runs/fdp_seed1 runs/tsfmicro_seed0
What the files of a run hold is explained in docs/results_format.md. python -m mexjax.report is the
same command.
"""


def parser() -> cli.Parser:
    """Every option, with its meaning."""
    options = cli.Parser(
        "mexjax report", "Rebuild reports from saved predictions; compare several runs.", EXAMPLES
    )
    options.add_argument("workdir", nargs="+", type=cli.path, help="folder of a finished run")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return cli.run_command(lambda: _run(parser().read(argv).workdir))


def _run(workdirs: Sequence[Path]) -> int:
    # They are imported here, because --help must not wait for them.
    from mexjax.report.compare import compare, print_comparison
    from mexjax.report.sweep import REPORT, is_sweep, print_sweep, write_sweep_report
    from mexjax.report.text import print_results
    from mexjax.report.write import ReportError, write_report

    console, problems = terminal.console(), []
    sweeps = [workdir for workdir in workdirs if is_sweep(workdir)]
    for sweep in sweeps:
        print_sweep(write_sweep_report(sweep), console=console)
        terminal.say(console, f"Written: {sweep / REPORT}\n")
    workdirs = [workdir for workdir in workdirs if workdir not in sweeps]
    for workdir in workdirs:
        try:
            results, end = write_report(workdir), f"Written: {workdir / 'report.md'}\n"
        except ReportError as error:
            results, end = error.results, ""
            problems.append(error)
        print_results(results, console=console)
        terminal.say(console, end)
    if len(workdirs) > 1:
        print_comparison(compare(workdirs), console=console)
    for problem in problems[1:]:
        terminal.say(terminal.console(is_error=True), cli.message(problem))
    if problems:
        raise problems[0]
    return 0

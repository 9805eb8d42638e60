"""The command: `python -m mexjax.main --config=configs/fdp.py[:variant] --workdir=runs/fdp`."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

import jax
from absl import flags
from rich.console import Console

from mexjax import machine
from mexjax.cpu.heap import run_in_calling_thread
from mexjax.errors import ConfigError, Interrupted, MexjaxError

_CONFIG = flags.DEFINE_string(
    "config", None, "Recipe card, with an optional variant: configs/fdp.py:paper."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; by default runs/<card>_<variant>."
)
_OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Start anew in a folder that is in use.")

USAGE = (
    "python -m mexjax.main --config=configs/fdp.py[:variant] [--workdir=runs/fdp]"
    " [--overwrite] [--config.key=value ...]"
)
HELP = """\
Cards are the files in configs/; the first lines of each name its variants, and without one
the small preset for the embedded data is taken. The run is written to runs/<card>_<variant>
unless --workdir says where. Keys of all cards are explained in configs/common.py, those of
model.* in mexjax/models/, and config.json of a run lists them all with their values. A run
that was stopped goes on when the same command is given again."""


def main(argv: Sequence[str]) -> int:
    """Run the command with `argv` (program name first) and return its exit status."""
    errors = Console(stderr=True, highlight=False)
    if {"--help", "-h"} & set(argv):
        print(f"Usage: {USAGE}\n\n{HELP}")
        return 0
    try:
        overrides = [arg[len("--config.") :] for arg in argv if arg.startswith("--config.")]
        rest = flags.FLAGS([arg for arg in argv if not arg.startswith("--config.")])
        if _CONFIG.value is None or len(rest) > 1:
            extra = ""
            if len(rest) > 1:
                extra = f" Not understood: {' '.join(rest[1:])} (write --config.key=value)."
            raise ConfigError(f"Which recipe card?{extra} Usage: {USAGE}")
        return _run(overrides)
    except Interrupted as stopped:
        errors.print(str(stopped), style="bold yellow", markup=False, soft_wrap=True)
        return 128 + signal.Signals[stopped.signal_name].value
    except KeyboardInterrupt:
        errors.print("Stopped at once; what was saved before is kept.", style="bold yellow")
        return 130
    except (MexjaxError, flags.Error) as error:
        errors.print("[bold red]Error:[/]", end=" ")
        errors.print(str(error), markup=False, soft_wrap=True)
        return 2


def _run(overrides: list[str]) -> int:
    from mexjax.config import load_config
    from mexjax.report.text import print_results
    from mexjax.train import run as train

    config = load_config(_CONFIG.value, overrides)
    if config.cpu_heap:
        run_in_calling_thread()
    machine.use_compilation_cache()
    card, _, variant = _CONFIG.value.rpartition("/")[2].partition(":")
    workdir = _WORKDIR.value or f"runs/{card.removesuffix('.py')}_{variant or config.model.preset}"
    console = Console()
    devices = jax.local_devices()
    console.print(
        f"[bold]mexjax[/]  {config.model.name} ({config.model.preset}) on {config.data.name},"
        f" {config.protocol.name}, seed {config.seed},"
        f" {len(devices)} x {devices[0].device_kind}, folder {workdir}",
        highlight=False,
    )
    done = train.run(config, workdir, overwrite=_OVERWRITE.value)
    if done.was_finished:
        console.print("This run was finished before; its report is rebuilt from its predictions.")
    print_results(done.results)
    console.print(f"Report, figures and predictions: {done.workdir}/report.md", highlight=False)
    return 0


def entry_point() -> None:
    """The console script."""
    logging.getLogger("absl").setLevel(logging.WARNING)
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    entry_point()

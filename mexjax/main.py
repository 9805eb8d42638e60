"""The command `mexjax`: training, and the door to preparing, reporting and studies.

mexjax --config=fdp[:variant]                          train and report
mexjax prepare | report | compile | study ...          the other commands
python -m mexjax.main --config=configs/fdp.py          the same in a checkout
"""

from __future__ import annotations

from mexjax import signals

if __name__ == "__main__":
    signals.begin()  # before the imports, which take a while

import dataclasses
import importlib
import math
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mexjax import cli, terminal
from mexjax.config import KEYS, list_cards
from mexjax.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from mexjax.train.run import RunResult

# Each command has a sentence. Apart from training, it is `main` of a module, loaded when asked.
COMMANDS = {
    "train": "train every fold of a card and report (the command if none is named)",
    "prepare": "make a dataset's release, or your own clips, ready for training",
    "report": "rebuild the reports of runs and compare them",
    "compile": "compile a card for a GPU that need not be there, and bound its time",
    "study": "analyse datasets and finished runs",
}
_MODULES = {
    "prepare": "mexjax.prepare.command",
    "report": "mexjax.report.command",
    "compile": "mexjax.studies.compile_command",
    "study": "mexjax.studies.command",
}
EXAMPLES = """
The keys of the configuration can be set, with = or with a blank:
  mexjax --config=fdp --config.train.num_epochs=2 --config.seed 1
Every key is explained in docs/configuration.md; config.json of a run lists them with their values.
The run is written to runs/<card>_<variant>, with the dataset, the protocol, the seed and a digest
of other keys in the name where they are not the card's, unless --workdir names a folder. A run that
was stopped goes on when the same command is given again.
"""
WIDTH = 100  # characters of a line of --list
_MOST_BYTES = 200  # of a folder's name; file systems take 255


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
      argv: arguments without the program's name.

    Returns:
      The exit status, see `mexjax.cli.errors_printed`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = "train"
    if arguments and arguments[0] in COMMANDS:
        name = arguments.pop(0)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name]).main(arguments)
    with cli.errors_printed() as outcome:
        order = _read(arguments)
        outcome.is_output = order is None
        if order is not None:
            from mexjax import machine, processes
            from mexjax.config import has_sweep
            from mexjax.report.text import print_results
            from mexjax.report.write import ReportError
            from mexjax.train.run import run

            config, folder = _prepare(order)
            if order.is_plan:
                _plan(config)
                return outcome.status
            if has_sweep(config):
                _sweep(config, folder, order)
                return outcome.status
            kept = machine.programs_folder()
            try:
                done = run(config, folder, overwrite=order.is_overwritten, kept_programs=kept)
                if processes.is_first():
                    _show(done)
            except ReportError as error:
                print_results(error.results)
                raise
    return outcome.status


def parser() -> cli.Parser:
    """The options of training, with their meaning."""
    about = ["Train and evaluate every fold of a recipe card, and report.", ""]
    about += _section("Commands; COMMAND --help explains the options of each:", COMMANDS)
    cards = {
        card.name: f"\n{'':18}".join([*_wrapped(card.title, 18), *_wrapped(variants, 18)])
        for card in list_cards().values()
        if (variants := ", ".join(card.variants))
    }
    about += _section("Cards and their variants, which --list explains:", cards)
    options = cli.Parser("mexjax", "\n".join(about).rstrip(), EXAMPLES)
    options.usage = "mexjax [COMMAND] --config=CARD[:VARIANT] [options]"
    add = options.add_argument
    add("--config", metavar="CARD[:VARIANT]", help="a card by name (fdp) or path (configs/fdp.py)")
    add(
        "--workdir",
        metavar="FOLDER",
        type=os.path.expanduser,
        help="folder of the run; by default runs/<card>_<variant>...",
    )
    group = options.add_argument_group("several processes, which share a folder of all nodes")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of the first process")
    group.add_argument("--num-processes", metavar="N", type=int, help="number of processes")
    group.add_argument("--process-id", metavar="I", type=int, help="number of this one, from 0")
    add("--plan", action="store_true", help="say groups, memory and time; train nothing")
    add("--overwrite", action="store_true", help="delete what an earlier run left in the folder")
    add("--list", action="store_true", help="show cards, datasets, models and studies")
    add("--version", action="store_true", help="show the version")
    options.add_argument_group("configuration").add_argument(
        "--config.KEY", metavar="VALUE", help="set a key, for example --config.seed=1"
    )
    return options


@dataclasses.dataclass(frozen=True)
class Order:
    """A training that was asked for.

    Attributes:
      card: name or path of the card, with its variant.
      overrides: `key=value` of the keys that are set.
      workdir: folder of the run; None: the default one.
      is_overwritten: whether an earlier run in the folder is deleted.
      processes: coordinator, number of processes and number of this one, as far as they are given.
      is_plan: whether nothing is trained and only the plan is printed.
    """

    card: str
    overrides: Sequence[str]
    workdir: str | None
    is_overwritten: bool
    processes: tuple[str, int | None, int | None] = ("", None, None)
    is_plan: bool = False

    def folder(self, config: ConfigDict) -> str:
        """The folder of the run; the default one is named after what differs from the card.

        It is `runs/<card>_<variant>`, and then the dataset, the protocol, the seed and a digest of
        other keys, each where it is not the card's.
        """
        if self.workdir:
            return self.workdir
        from mexjax.config import flat, load_config
        from mexjax.config.values import as_pairs
        from mexjax.files import canonical, digest
        from mexjax.report.agreement import INDIFFERENT

        name, _, variant = self.card.partition(":")
        # model.preset selects another variant of the card.
        variant = str(as_pairs(self.overrides).get("model.preset", variant))
        card = flat(load_config(f"{name}:{variant}" if variant else name))
        changes = {
            key: value
            for key, value in flat(config).items()
            if value != card.get(key) and not key.startswith(INDIFFERENT)
        }
        parts = [Path(name).stem, variant or str(config.model.preset)]
        if config.protocol.class_map:
            from mexjax.protocol.class_file import read_class_map

            changes["protocol.class_map"] = read_class_map(Path(config.protocol.class_map))
        if changes.keys() & {"data.name", "data.datasets"} or config.data.name == "prepared":
            changes.pop("data.name", None)
            changes.pop("data.datasets", None)
            parts.append(_dataset(config))
        if "protocol.name" in changes:
            parts.append(str(changes.pop("protocol.name")))
        if "seed" in changes:
            parts.append(f"seed{changes.pop('seed')}")
        # The keys of a sweep change no number of a run, but the folder of all of them.
        changes |= {k: v for k, v in flat(config).items() if k.startswith("sweep.") and v}
        if changes:
            parts.append(digest(canonical(changes))[:6])
        name = re.sub(r"[^\w.+-]", "-", "_".join(parts))
        if len(name.encode()) > _MOST_BYTES:
            name = f"{name[:40]}_{digest(name)[:12]}"
        return f"runs/{name}"


def _dataset(config: ConfigDict) -> str:
    """The names of the datasets of a configuration, joined."""
    data = config.data
    if data.name != "prepared":
        return data.name
    from mexjax.data.loading import load_table

    names = list(data.datasets) or list(dict.fromkeys(load_table(config)["dataset"]))
    return "+".join(map(str, names))


def _read(arguments: Sequence[str]) -> Order | None:
    """The training that the arguments ask for, or None if they only ask to be told something."""
    options = parser()
    overrides, others = cli.split_overrides(arguments)
    values, rest = options.parse_known_args(others)
    if values.version:
        from mexjax import __version__

        print(f"mexjax {__version__}")
        return None
    if values.list:
        _list()
        return None
    if rest:
        raise ConfigError(_not_understood(options, rest, has_card=values.config is not None))
    if values.config is None:
        raise ConfigError(
            "Which recipe card? For example mexjax --config=fdp. mexjax --list shows all of them,"
            " and mexjax --help the commands."
        )
    others = (values.coordinator or "", values.num_processes, values.process_id)
    return Order(values.config, overrides, values.workdir, values.overwrite, others, values.plan)


def _not_understood(options: cli.Parser, rest: Sequence[str], *, has_card: bool) -> str:
    """The text about arguments that training does not have, with the one probably meant."""
    first, name = rest[0], rest[0].lstrip("-").partition("=")[0]
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    if name in KEYS or (first.startswith("--") and name.partition(".")[0] in sections):
        value = " ".join([first.lstrip("-"), *rest[1:2]]) if "=" not in first else first.lstrip("-")
        prefix = cli.PREFIX
        return f"Not understood: {first}. Did you mean {prefix}{value}? Keys begin with {prefix}"
    if not first.startswith("-") and not has_card:
        card = name.removesuffix(".py").rpartition("/")[2].partition(":")[0]
        if card in list_cards():
            return f"Not understood: {first}. Did you mean --config={first}?"
        return unknown_name("command", first, COMMANDS)
    return options.not_understood(rest)


def _prepare(order: Order) -> tuple[ConfigDict, str]:
    """Read and check the configuration, prepare the process, and say what will be trained.

    Returns:
      The configuration and the folder of the run.
    """
    # The imports are here because --help must not wait for them.
    from mexjax import machine, plugins, processes
    from mexjax.config import check_values, has_sweep, load_config
    from mexjax.config.values import as_pairs
    from mexjax.cpu.heap import run_in_calling_thread
    from mexjax.data.class_choice import describe_classes, settle_classes
    from mexjax.target import current
    from mexjax.train.fold_axis import describe_devices

    config = load_config(order.card, order.overrides)
    check_values(config)
    settle_classes(config, as_pairs(order.overrides))
    folder = order.folder(config)
    if config.cpu_heap:
        run_in_calling_thread()
    if any(value not in ("", None) for value in order.processes) or processes.are_announced():
        if has_sweep(config):
            raise ConfigError("A sweep is trained by one process. Start it without the others.")
        processes.join(*order.processes)
    machine.use_compilation_cache()
    machine.devices()  # refuses a platform that is not there
    devices = describe_devices(config.folds.strategy, current(), config.folds.per_chunk)
    title = terminal.plain("mexjax", "bold")
    about = (
        f"  {config.model.name} ({config.model.preset}) on {config.data.name},"
        f" {config.protocol.name}, {_seeds(config)}, {devices}, folder {folder}"
    )
    if processes.count() > 1:
        about += f", process {processes.index()} of {processes.count()}"
    terminal.console().print(title + terminal.plain(about), soft_wrap=True)
    if plugins.lacks_driver():
        text = "JAX for CUDA is installed, but no NVIDIA driver is found."
        terminal.console().print(terminal.plain(text), soft_wrap=True)
    if classes := describe_classes(config):
        terminal.console().print(terminal.plain(classes), soft_wrap=True)
    return config, folder


def _seeds(config: ConfigDict) -> str:
    """The seeds and settings of a configuration, in words."""
    from mexjax.config import flat

    seeds = ", ".join(map(str, config.sweep.seeds or (config.seed,)))
    text = f"{'seeds' if len(config.sweep.seeds) > 1 else 'seed'} {seeds}"
    number = math.prod(len(values) for values in flat(config.sweep["values"]).values())
    return f"{number} settings with {text}" if number > 1 else text


def _plan(config: ConfigDict) -> None:
    """Print the groups, the memory and the expected time of a run or sweep."""
    from mexjax.train.planner import make_plan, plan_lines

    for line in plan_lines(make_plan(config)):
        terminal.say(terminal.console(), line)


def _sweep(config: ConfigDict, folder: str, order: Order) -> None:
    """Train the runs of a sweep, and print them side by side."""
    from mexjax.report.sweep import REPORT, print_sweep
    from mexjax.train.sweep import run_sweep

    done = run_sweep(config, folder, overwrite=order.is_overwritten)
    console = terminal.console()
    print_sweep(done.results, console=console)
    terminal.say(console, f"All runs: {done.workdir}/{REPORT}")


def _show(done: RunResult) -> None:
    """Print the results of a run and where its files are."""
    from mexjax.report.text import print_results

    console = terminal.console()
    if done.was_finished:
        console.print("This run was finished before; its report is rebuilt from its predictions.")
    print_results(done.results)
    terminal.say(console, f"Report, figures and predictions: {done.workdir}/report.md")


def _list() -> None:
    from mexjax.models import list_models
    from mexjax.prepare.command import DATASETS
    from mexjax.studies.command import STUDIES

    print("Cards: mexjax --config=NAME or --config=NAME:VARIANT")
    for card in list_cards().values():
        print("\n  " + "\n    ".join(_wrapped(f"{card.name}: {card.title}", 4)))
        for name, meaning in card.variants.items():
            text = f"    {name:26}{meaning}"
            print(textwrap.fill(text, WIDTH, subsequent_indent=" " * 30, break_on_hyphens=False))
    embedded = {name: "" for name in KEYS["data.name"].choices if name != "prepared"}
    embedded["synthetic"] = "one dataset, the default of most cards"
    embedded["synthetic_sets"] = f"several: {', '.join(KEYS['data.collection.sets'].choices)}"
    models = dict.fromkeys(list_models(), "")
    for title, entries in (
        ("Embedded datasets: --config.data.name=NAME", embedded),
        ("Datasets that can be prepared: mexjax prepare --dataset=NAME", DATASETS),
        ("Models: model.name of a card", models),
        ("Studies: mexjax study NAME", STUDIES),
    ):
        print("\n" + "\n".join(_section(title, entries)).rstrip())


def _wrapped(text: str, indent: int) -> list[str]:
    """The lines of a text that leave room for an indent."""
    return textwrap.wrap(text, WIDTH - indent, break_on_hyphens=False)


def _section(title: str, entries: dict[str, str]) -> list[str]:
    """The lines of a title, one line for each entry, and an empty line."""
    return [title, *(f"  {name:16}{text}".rstrip() for name, text in entries.items()), ""]


def entry_point() -> None:
    """The console script."""
    cli.entry_point(main)


if __name__ == "__main__":
    entry_point()

"""The command `mexjax compile`: a card's programs on a GPU that need not be there, and their time.

mexjax compile --for=h200x8 --config=fdp:official [--config.KEY=VALUE] [--folds=N] [--json=FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mexjax import cli, plugins, terminal
from mexjax.errors import ConfigError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from mexjax.gpu.compiling import Compilation
    from mexjax.gpu.targets import Gpu
    from mexjax.train.absent import Lowered

EXAMPLES = """
  mexjax compile --for=h200 --config=fdp
  mexjax compile --for=a100x4 --config=tsfmicro:official --config.precision=bfloat16
  mexjax compile --for=h200x8 --config=fdp:official --folds=2 --json=bounds.json
It needs two packages, but no GPU and no driver: pip install 'mexjax[gpu-programs]'. Nothing is run
on a GPU: kernels and bytes are counted, and times are bounds. docs/benchmarks.md explains them.
"""
# Share of a card's memory that JAX takes at its start, unless XLA_PYTHON_CLIENT_MEM_FRACTION says
# another.
_TAKEN = 0.75
_TITLES = {"init": "initial state", "train": "training step", "evaluate": "evaluation batch"}
_BOUNDS = ("roofline_ms", "graph_ms", "launch_ms")
# The lines of the table: a figure of a program, its meaning, and its format.
_LINES = (
    ("kernels", "kernels that the GPU runs", "d"),
    ("host_launches", "launches by the host", "d"),
    ("convolutions", "convolutions", "d"),
    ("products", "matrix products", "d"),
    ("gbytes", "GB read and written", ".3g"),
    ("roofline_ms", "ms at least, by operations and bytes (roofline)", ".3g"),
    ("graph_ms", "ms at least, 2 us a kernel (CUDA graphs)", ".3g"),
    ("launch_ms", "ms at least, 5 us a kernel (single launches)", ".3g"),
    ("temporary_gb", "GB of temporary memory", ".3g"),
    ("compile_cpu_s", "CPU s of compilation", ".0f"),
)


def parser() -> cli.Parser:
    """Options of the command."""
    options = cli.Parser(
        "mexjax compile",
        "Compile the programs of a recipe card for NVIDIA GPUs that need not be there, count\n"
        "their kernels and bytes, and say what the study takes at least.",
        EXAMPLES,
    )
    add = options.add_argument
    add(
        "--for",
        dest="gpu",
        metavar="GPU[xN]",
        required=True,
        help="h100, h200, a100 or l4, and how many of it, for example h200x8",
    )
    add(
        "--config",
        metavar="CARD[:VARIANT]",
        required=True,
        help="a card by name (fdp) or path (configs/fdp.py)",
    )
    add(
        "--folds",
        type=_count,
        default=0,
        metavar="N",
        help="folds in one program on one device; by default as a run takes them",
    )
    add("--json", type=cli.path, metavar="FILE", help="write all figures there")
    options.add_argument_group("configuration").add_argument(
        "--config.KEY", metavar="VALUE", help="set a key, for example --config.precision=bfloat16"
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
      argv: arguments without the program's name.

    Returns:
      The exit status, see `mexjax.cli.run_command`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return cli.run_command(lambda: _run(arguments), when_stopped="Stopped; nothing was written.")


def _run(arguments: Sequence[str]) -> int:
    overrides, others = cli.split_overrides(arguments)
    order = parser().read(others)
    if order.folds:
        if any(text.startswith("folds.per_chunk=") for text in overrides):
            raise ConfigError(
                f"--folds={order.folds} is short for --config.folds.per_chunk={order.folds}."
                " Give one of the two."
            )
        overrides.append(f"folds.per_chunk={order.folds}")
    if order.json:
        _check_place(order.json)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA tells of every compilation otherwise
    plugins.take_back()
    # The imports are here because --help must not wait for them.
    with plugins.without_complaints():
        from mexjax import machine
        from mexjax.gpu import targets
        from mexjax.train.absent import lower_for
        from mexjax.train.numerics import check_numerics

    _stay_on_cpu()
    gpu, count = targets.parse(order.gpu)
    config = _configuration(order.config, overrides)
    with plugins.without_complaints():
        target = targets.absent(gpu, count)
    check_numerics(config, target)
    lowered = lower_for(config, target)
    programs = {}
    for name, title in _TITLES.items():
        with terminal.console().status(f"Compiling for {gpu.kind}: {title}"):
            programs[name] = _compile(lowered, name, config, gpu)
    record = {
        "gpu": gpu.kind,
        "devices": lowered.study.num_devices,
        "card": order.config,
        "overrides": overrides,
        "precision": config.precision,
        "folds_per_device": lowered.size.per_device,
        "folds": len(lowered.study.fold_ids),
        "params": lowered.num_params,
        "programs": {name: compiled.as_json() for name, compiled in programs.items()},
        "study": _study_bounds(lowered, programs),
        "memory": _memory(lowered, programs, gpu),
    }
    _print(record, lowered, config)
    if order.json:
        _write(order.json, record | {"environment": machine.environment()})
    return 0


def _stay_on_cpu() -> None:
    """Leave a GPU that is there alone, unless JAX_PLATFORMS asks for it."""
    import jax

    if not jax.config.jax_platforms:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_platforms", "cpu")


def _configuration(card: str, overrides: Sequence[str]) -> ConfigDict:
    """The configuration, checked as before a run.

    Raises:
      ConfigError: the configuration cannot be run.
    """
    from mexjax.config import check_values, has_sweep, load_config
    from mexjax.config.values import as_pairs
    from mexjax.data.class_choice import settle_classes

    config = load_config(card, overrides)
    check_values(config)
    settle_classes(config, as_pairs(overrides))
    if has_sweep(config):
        raise ConfigError(
            "mexjax compile takes one configuration, and sweep.seeds and sweep.values ask for"
            " several. Leave them out, and set the key itself to one of its values."
        )
    folds = config.folds
    if folds.strategy == "loop" and folds.per_chunk > 1:
        raise ConfigError(
            f"{folds.per_chunk} folds in a program cannot be had with folds.strategy=loop, which"
            " runs one fold at a time. Set folds.strategy=auto, or leave --folds out."
        )
    return config


def _compile(lowered: Lowered, name: str, config: ConfigDict, gpu: Gpu) -> Compilation:
    from mexjax.gpu.compiling import compile_for
    from mexjax.train.numerics import compile_options, is_exact

    return compile_for(
        getattr(lowered, name),
        gpu,
        num_steps=lowered.num_steps if name == "train" else 1,
        options=compile_options(config, lowered.study.target),
        is_exact=is_exact(config),
    )


def _study_bounds(lowered: Lowered, programs: dict[str, Compilation]) -> dict[str, Any]:
    """The work of the whole study, and bounds of its time in seconds."""
    calls = lowered.calls
    counts = {"init": calls.groups, "train": calls.steps, "evaluate": calls.batches}
    seconds = {
        key.replace("_ms", "_s"): sum(
            count * getattr(programs[name].bounds, key) / 1e3 for name, count in counts.items()
        )
        for key in _BOUNDS
    }
    work = {"groups": calls.groups, "steps": calls.steps, "evaluation_batches": calls.batches}
    return work | {key: round(value, 3) for key, value in seconds.items()}


def _memory(lowered: Lowered, programs: dict[str, Compilation], gpu: Gpu) -> dict[str, Any]:
    """The memory that the largest program takes on a device, and the memory that is there."""
    from mexjax.train.cost import MEMORY_SHARE

    needed = max(program.temporary_gb + program.argument_gb for program in programs.values())
    taken = _TAKEN * gpu.memory_bytes / 1e9
    # A run plans several folds for a share of the memory; one fold it tries anyway.
    limit = taken * (MEMORY_SHARE if lowered.size.per_device > 1 else 1)
    return {
        "needed_gb": round(needed, 3),
        "limit_gb": round(limit, 3),
        "card_gb": round(gpu.memory_bytes / 1e9, 3),
        "fits": needed <= limit,
    }


def _print(record: dict[str, Any], lowered: Lowered, config: ConfigDict) -> None:
    """Print the figures with the words that a newcomer needs."""
    from mexjax.report.tables import rich_table

    console = terminal.table_console()
    study, memory, width = record["study"], record["memory"], record["folds_per_device"]
    many = "" if record["devices"] == 1 else f"{record['devices']} x "
    terminal.say(
        console,
        f"{config.model.name} ({config.model.preset}) for {many}{record['gpu']}, precision"
        f" {config.precision}, batches of {config.train.batch_size} clips,"
        f" {_number(width, 'fold')} in a program on a device. Nothing was run: figures are those of"
        " one device, and times are bounds.",
    )
    rows = []
    for key, meaning, form in _LINES:
        values = [record["programs"][name][key] for name in _TITLES]
        # Convolutions are counted by direction.
        values = [sum(v.values()) if isinstance(v, dict) else v for v in values]
        rows.append([meaning, *(format(value, form) for value in values)])
    console.print(rich_table(["of one", *_TITLES.values()], rows))
    terminal.say(console, _width_text(lowered, config.folds.per_chunk))
    order = " one after the other" if study["groups"] > 1 else ""
    terminal.say(
        console,
        f"Study: {_number(record['folds'], 'fold')} in {_number(study['groups'], 'group')}{order},"
        f" {_number(study['steps'], 'training step')} and"
        f" {_number(study['evaluation_batches'], 'evaluation batch', 'es')} in all. It takes at"
        f" least {study['roofline_s']:.3g} s by roofline, {study['graph_s']:.3g} s with 2 us a"
        f" kernel and {study['launch_s']:.3g} s with 5 us. Reading, compilation and the report come"
        " on top.",
    )
    terminal.say(console, _memory_text(memory, width))


def _width_text(lowered: Lowered, asked: int) -> str:
    """A sentence about the number of folds in a program."""
    width, reason = lowered.size.per_device, lowered.size.reason.rstrip(",")
    if not asked:
        return f"Folds in a program: {width} {reason}."
    if width < asked:
        return f"Folds in a program: {width} of {asked}, for no more fall on a device."
    return f"Folds in a program: {width}, as asked."


def _memory_text(memory: dict[str, Any], width: int) -> str:
    """A sentence about the memory of a device, and advice where it does not suffice."""
    needed, limit, card = (
        f"{memory[key] * 1e9 / 2**30:.3g} GiB" for key in ("needed_gb", "limit_gb", "card_gb")
    )
    advice = "it fits"
    if not memory["fits"]:
        advice = "it does not fit. Lower train.batch_size, or set train.is_remat=true"
        if width > 1:
            advice += "; a run takes fewer folds in a program by itself, unless it is told a number"
    return (
        f"Memory: {needed}, without workspaces of libraries, of {limit} that a program may take of"
        f" the card's {card}: {advice}."
    )


def _number(count: int, noun: str, ending: str = "s") -> str:
    return f"{count} {noun}{'' if count == 1 else ending}"


def _check_place(path: Path) -> None:
    """Refuse a file that cannot be written, before minutes of work.

    Raises:
      ConfigError: its folder is not there, or it is a folder itself.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(
            f"--json={path} cannot be written: it is a folder, or its folder is not there. Give the"
            " name of a file in a folder that exists."
        )


def _write(path: Path, record: dict[str, Any]) -> None:
    from mexjax.files import replacing

    with replacing(path) as place:
        place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text[:9]) < 1:
        raise argparse.ArgumentTypeError(f"takes a whole number from 1 on, found {text[:40]!r}")
    return int(text)

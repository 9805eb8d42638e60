"""Times of every lowering of a convolution, layer by layer, beside PyTorch's operator.

    python benchmarks/convolutions.py --quick
    python benchmarks/convolutions.py --json=FILE
    python benchmarks/convolutions.py --tune
    python benchmarks/convolutions.py --tune-from=FILE

Times are medians in milliseconds for one fold (the time of F folds divided by F), float32, of the
forward pass, the input gradient and the weight gradient, each compiled alone. `auto` is the choice
of the library; `vmap` is XLA's convolution under `jax.vmap` over weights and images, which one
writes without this library. PyTorch runs the same folds one after another with as many threads, in
its default layout and channels last, and the faster of the two counts. `--tune` writes the fastest
lowering of each operation into the table by which the library chooses. On a GPU, times are those
of the device in a loop (see `device_time.py`), one fold alone, and rows of the table are keyed by
the kind of device; `--tune-from` takes the rows that `gpu.py` has measured there.

Layers are recorded from a training step of each network. Without the packages that a study needs,
the layers of the library's own table are measured instead.

Both libraries get the allocator setting of `mexjax.cpu.heap`. Without it the kernel hands out fresh
pages for every large array, and PyTorch and XLA take up to twice as long.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from device_time import device_ms
from rich.console import Console
from rich.table import Table

from mexjax import machine, target
from mexjax.cpu.heap import heap_for_training, run_in_calling_thread
from mexjax.ops.conv import LOWERINGS, conv2d
from mexjax.ops.conv import choice as conv_choice
from mexjax.ops.conv.geometry import OPERATIONS, Geometry, Layer
from mexjax.ops.conv.native import FEW_PARTS

try:
    from mexjax import load_config
    from mexjax.train.programs import trace_step
    from mexjax.train.study import make_study
except ImportError as error:
    print(f"{error}: the layers of the library's table are measured, not those of a study.")
    make_study = None
try:
    import torch
except ImportError:
    torch = None

# A lowering replaces one listed before it only if it is faster by this share, since times are noisy
# and the earlier ones compile faster.
WORTHWHILE_GAIN = 0.07
# Lowerings made for their layer come first, then those that compile faster.
PREFERENCE = (
    "patchify", "dense_map", "depthwise", "few_outputs", "grouped", "native", "native_parts",
    "im2col", "shifted", "split", "merge32", "merge64", "winograd2", "winograd4", "native_many",
    "native_folds",
)  # fmt: skip


def _layer(
    batch: int, size: int, channels: int, out: int = 0, kernel: int = 3, stride: int = 1,
    groups: int = 1, padding: int | None = None,
) -> Layer:  # fmt: skip
    edge = kernel // 2 if padding is None else padding
    geometry = Geometry((size, size), (kernel,) * 2, (stride,) * 2, ((edge,) * 2,) * 2, groups)
    device = target.current()
    kind = "" if device.platform == "cpu" else device.kind
    return Layer(geometry, batch, channels, out or channels, "float32", device.platform, kind)


# Networks whose layers are recorded from a training step: recipe card and overrides.
STUDIES: dict[str, tuple[str, dict[str, Any]]] = {
    "FDP tiny": ("configs/fdp.py", {}),
    "FDP paper": ("configs/fdp.py:paper", {}),
    "FDP paper_14m": ("configs/fdp.py:paper_14m", {}),
    "FDP paper_14m, batch 8": ("configs/fdp.py:paper_14m", {"train.batch_size": 8}),
    "FDP official": ("configs/fdp.py:official", {}),
    "FDP official, batch 8": ("configs/fdp.py:official", {"train.batch_size": 8}),
    "TSFmicro official, batch 4": ("configs/tsfmicro.py:official", {"train.batch_size": 4}),
}


def layers_of_study(card: str, overrides: dict[str, Any]) -> list[Layer]:
    """Every convolution of one training step, each shape once; nothing is computed."""
    one_fold = {"folds.strategy": "loop", "folds.per_chunk": 1}
    study = make_study(load_config(card, one_fold | overrides))
    data = study.dataset.on_host()
    with conv_choice.record_layers() as recorded:
        trace_step(study, data)
    # Layers of initialisation, which sees two clips, do not count. Grouped layers come last: they
    # consist of plain ones, whose lowerings `--tune` has chosen by then.
    initial = (2, 2 * study.config.data.num_frames)
    trained = [layer for layer in recorded if layer.batch not in initial]
    return sorted(
        trained,
        key=lambda layer: (
            layer.group_kind != "dense",
            -math.prod(layer.geometry.size),
            layer.channels,
        ),
    )


def layers_of_table() -> list[Layer]:
    """The layers that have a row in the table, on this platform."""
    rows = json.loads(conv_choice.TABLE.read_text(encoding="utf-8"))["rows"]
    device = target.current()
    kind = "" if device.platform == "cpu" else device.kind
    here = {"platform": device.platform, "kind": kind}
    listed = {conv_choice.layer_from_json(row["layer"] | here) for row in rows}
    return sorted(listed, key=lambda layer: (layer.group_kind != "dense", -layer.flops))


def layers(only: str) -> dict[str, list[Layer]]:
    """The layers to measure, by the name of their network, which contains `only`."""
    if make_study is None:
        recorded = {"table": layers_of_table()}
    else:
        recorded = {n: layers_of_study(*study) for n, study in STUDIES.items() if only in n}
    others = {
        "RMT depthwise, batch 16": [
            _layer(16, 56, 64, groups=64),
            _layer(16, 56, 64, kernel=5, groups=64),
            _layer(16, 28, 128, groups=128),
            _layer(16, 28, 128, kernel=5, groups=128),
        ],
        "RMT stem and merges": [
            _layer(16, 224, 3, 32, stride=2),
            _layer(16, 112, 32, 64, stride=2),
            _layer(16, 224, 3, 96, kernel=4, stride=4, padding=0),
        ],
    }
    return recorded | {name: rows for name, rows in others.items() if only in name}


def median_ms(
    function: Callable[[], Any], repeats: int, budget_s: float, hopeless_ms: float = math.inf
) -> float:
    """The median time of a call after a first one that counts only if it is hopeless.

    There are fewer repeats if they are long, and none if the first takes longer than `hopeless_ms`.
    """
    start = time.perf_counter()
    function()
    first_ms = 1e3 * (time.perf_counter() - start)
    if first_ms > hopeless_ms:
        return first_ms
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while len(times) < repeats and (len(times) < 3 or time.perf_counter() < end):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def with_dtype(layer: Layer, dtype: str) -> Layer:
    """The same layer for arrays of another type."""
    return dataclasses.replace(layer, dtype=dtype)


def measure_on_device(layer: Layer, names: Sequence[str] = ()) -> dict[str, Any]:
    """One row with the device time of every lowering, for one fold.

    Args:
      layer: a layer of this process's device.
      names: lowerings to measure; none: all that apply to the layer.

    Returns:
      `layer`, `gflop`, `chosen` and `lowerings` as `measure` gives them.
    """
    g = layer.geometry
    arrays = {key: jnp.asarray(x[0], layer.dtype) for key, x in _arrays(layer, 1).items()}
    applicable = [
        name
        for name in names or PREFERENCE
        if LOWERINGS[name].applies(g, layer.channels, layer.out)
    ]
    fastest_ms: dict[str, float] = {}
    lowerings: dict[str, dict[str, float]] = {}
    for name in applicable:
        times = {}
        for operation in OPERATIONS:
            pair = tuple(arrays[key] for key in _arguments(operation))

            def run(
                a: jax.Array, b: jax.Array, operation: str = operation, name: str = name
            ) -> jax.Array:
                return conv_choice.compute(operation, a, b, g, name)

            best = fastest_ms.get(operation, math.inf)
            times[operation] = device_ms(run, pair, hopeless_ms=4 * best)
            fastest_ms[operation] = min(best, times[operation])
        lowerings[name] = times
    return {
        "layer": conv_choice.layer_to_json(layer),
        "gflop": layer.flops / 1e9,
        "chosen": {operation: conv_choice.choose(operation, layer) for operation in OPERATIONS},
        "lowerings": lowerings,
    }


def _arrays(layer: Layer, num_folds: int) -> dict[str, np.ndarray]:
    g = layer.geometry
    rng = np.random.default_rng(0)
    shapes = {
        "x": (num_folds, layer.batch, *g.size, layer.channels),
        "w": (num_folds, *g.kernel, layer.channels // g.groups, layer.out),
        "dy": (num_folds, layer.batch, *g.out_size, layer.out),
    }
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _arguments(operation: str) -> tuple[str, str]:
    return {"forward": ("x", "w"), "input_gradient": ("dy", "w"), "weight_gradient": ("x", "dy")}[
        operation
    ]


def time_lowering(
    layer: Layer,
    name: str,
    arrays: dict[str, jax.Array],
    timer: Callable,
    fastest_ms: dict[str, float],
) -> dict[str, float]:
    """Milliseconds of each operation for one fold, by `name`; `fastest_ms` is kept up to date."""
    times = {}
    for operation in OPERATIONS:
        a, b = (arrays[key][0] for key in _arguments(operation))

        def run(a: jax.Array, b: jax.Array, operation: str = operation) -> jax.Array:
            return conv_choice.compute(operation, a, b, layer.geometry, name)

        compiled = jax.jit(run).lower(a, b).compile()
        best = fastest_ms.get(operation, math.inf)
        times[operation] = timer(
            lambda f=compiled, a=a, b=b: f(a, b).block_until_ready(), hopeless_ms=4 * best
        )
        fastest_ms[operation] = min(best, times[operation])
    return times


def time_folds(
    layer: Layer, arrays: dict[str, jax.Array], timer: Callable, *, is_plain: bool
) -> float:
    """Milliseconds a fold for value and both gradients together, under `vmap` over x and w."""
    g = layer.geometry

    def convolve(x: jax.Array, w: jax.Array) -> jax.Array:
        if is_plain:
            return LOWERINGS["native"].forward(x, w, g)
        return conv2d(x, w, stride=g.stride, padding=g.padding, groups=g.groups)

    def all_three(x: jax.Array, w: jax.Array, dy: jax.Array):
        y, transpose = jax.vjp(convolve, x, w)
        return y, transpose(dy)

    values = [arrays[key] for key in ("x", "w", "dy")]
    compiled = jax.jit(jax.vmap(all_three)).lower(*values).compile()
    return timer(lambda: jax.block_until_ready(compiled(*values))) / values[0].shape[0]


def time_torch(layer: Layer, arrays: dict[str, np.ndarray], timer: Callable) -> dict[str, float]:
    """Milliseconds of each operation for one fold in PyTorch, by the faster memory layout."""
    g = layer.geometry
    padding = [low for low, _ in g.padding]
    best: dict[str, float] = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        x, dy = (
            torch.from_numpy(arrays[key][0]).permute(0, 3, 1, 2).contiguous(memory_format=layout)
            for key in ("x", "dy")
        )
        w = torch.from_numpy(arrays["w"][0]).permute(3, 2, 0, 1).contiguous(memory_format=layout)

        def backward(mask: list[bool], dy: Any = dy, x: Any = x, w: Any = w) -> Any:
            stride, none = list(g.stride), [0, 0]
            return torch.ops.aten.convolution_backward(
                dy, x, w, None, stride, padding, [1, 1], False, none, g.groups, mask
            )

        times = {
            "forward": timer(
                lambda x=x, w=w: torch.nn.functional.conv2d(
                    x, w, stride=g.stride, padding=padding, groups=g.groups
                )
            ),
            "input_gradient": timer(lambda f=backward: f([True, False, False])),
            "weight_gradient": timer(lambda f=backward: f([False, True, False])),
        }
        if not best or sum(times.values()) < sum(best.values()):
            best = times
    return best


def measure(layer: Layer, folds: Sequence[int], timer: Callable, names: Sequence[str]) -> dict:
    """One row with every lowering for one fold, the automatic choice for several, and PyTorch."""
    g = layer.geometry
    arrays = _arrays(layer, max(folds))
    on_device = {key: jnp.asarray(value) for key, value in arrays.items()}
    applicable = [n for n in names if LOWERINGS[n].applies(g, layer.channels, layer.out)]
    if layer.batch <= FEW_PARTS and "native_many" in applicable:
        applicable.remove("native_many")  # the same program as `native_parts`
    fastest_ms: dict[str, float] = {}
    row: dict[str, Any] = {
        "layer": conv_choice.layer_to_json(layer),
        "gflop": layer.flops / 1e9,
        "chosen": {operation: conv_choice.choose(operation, layer) for operation in OPERATIONS},
        "lowerings": {n: time_lowering(layer, n, on_device, timer, fastest_ms) for n in applicable},
        "folds": {},
        "torch": time_torch(layer, arrays, timer) if torch else None,
    }
    for num_folds in folds:
        few = {key: value[:num_folds] for key, value in on_device.items()}
        row["folds"][num_folds] = {"auto": time_folds(layer, few, timer, is_plain=False)}
        if "native" in names:
            row["folds"][num_folds]["vmap"] = time_folds(layer, few, timer, is_plain=True)
    return row


def fastest(times: dict[str, dict[str, float]]) -> dict[str, str]:
    """The lowering of each operation that is worth choosing, in the order of `PREFERENCE`."""
    names_by_operation = {}
    for operation in OPERATIONS:
        names = [name for name in PREFERENCE if name in times]
        best = names[0]
        for name in names[1:]:
            if times[name][operation] < (1 - WORTHWHILE_GAIN) * times[best][operation]:
                best = name
        names_by_operation[operation] = best
    return names_by_operation


def tune(row: dict[str, Any], environment: dict[str, Any]) -> None:
    """Puts the fastest lowerings of a measured layer into the table, and chooses by it from now."""
    table: dict[str, Any] = {"schema": 1, "rows": []}
    if conv_choice.TABLE.exists():
        table = json.loads(conv_choice.TABLE.read_text())
    machines = table.get("measured_on", {})
    keys = ("processor", "cpu_count", "devices", "jax", "jaxlib")
    machines[row["layer"]["platform"]] = {key: environment[key] for key in keys}
    layer = json.loads(json.dumps(row["layer"]))
    rows = [old for old in table["rows"] if old["layer"] != layer]
    rows.append(
        {"layer": layer, **fastest(row["lowerings"]), "processor": environment["processor"]}
    )
    head = json.dumps({"schema": 1, "measured_on": machines}, indent=1)[:-2]
    lines = ",\n".join(json.dumps(row) for row in rows)
    conv_choice.TABLE.write_text(f'{head},\n "rows": [\n{lines}\n]}}\n')
    conv_choice.forget_table()


def tune_from(path: Path) -> int:
    """Puts the layers that `gpu.py` has measured into the table, and returns their number."""
    record = json.loads(path.read_text(encoding="utf-8"))
    environment = record["environment"]
    rows = [
        line
        for name, part in record["parts"].items()
        if name.startswith("convolutions")
        for line in part["results"]
        if "lowerings" in line
    ]
    for row in rows:
        tune(row, environment | {"processor": row["layer"].get("kind", environment["processor"])})
    return len(rows)


def describe(layer: Layer) -> str:
    """A layer in words, such as "288 x 16x16 x 96 -> 96, 3x3", and its stride and groups."""
    g = layer.geometry
    text = f"{layer.batch} x {g.size[0]}x{g.size[1]} x {layer.channels}"
    text += f" -> {layer.out}" if layer.out != layer.channels else ""
    text += f", {g.kernel[0]}x{g.kernel[1]}"
    text += f" stride {g.stride[0]}" if g.stride != (1, 1) else ""
    return text + (f", {g.groups} groups" if g.groups > 1 else "")


def show(network: str, rows: list[dict[str, Any]], layers_: list[Layer]) -> None:
    """Prints the rows of one network as two tables, of lowerings and of folds."""
    console = Console(width=150)
    table = Table("layer", "lowering", "forward", "dx", "dw", "sum", "GFLOP/s", title=network)
    folds = Table("layer, forward + dx + dw, ms a fold", title=network)
    counts = list(rows[0]["folds"])
    for count in counts:
        folds.add_column(f"{count} folds", justify="right")
    folds.add_column("PyTorch", justify="right")
    folds.add_column("PyTorch / auto", justify="right")
    for row, layer in zip(rows, layers_, strict=True):
        times = dict(row["lowerings"])
        if row["torch"]:
            times["PyTorch"] = row["torch"]
        for i, (name, by_operation) in enumerate(times.items()):
            values = list(by_operation.values())
            rate = 3 * row["gflop"] / sum(values) * 1e3
            cells = [
                f"[bold]{ms:.1f}[/bold]" if row["chosen"].get(operation) == name else f"{ms:.1f}"
                for operation, ms in by_operation.items()
            ]
            label = describe(layer) if i == 0 else ""
            table.add_row(label, name, *cells, f"{sum(values):.1f}", f"{rate:.0f}")
        table.add_section()
        by_torch = sum(row["torch"].values()) if row["torch"] else float("nan")
        for which in row["folds"][counts[0]] if counts else ():
            times_ = [row["folds"][count][which] for count in counts]
            ratio = f"{by_torch / times_[0]:.2f}" if which == "auto" else ""
            cells = [f"{ms:.1f}" for ms in times_]
            folds.add_row(f"{describe(layer)}: {which}", *cells, f"{by_torch:.1f}", ratio)
    console.print(table)
    if counts:
        console.print(folds)


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tune", action="store_true", help="write the library's table")
    parser.add_argument("--tune-from", type=Path, default=None, help="a results file of gpu.py")
    parser.add_argument("--quick", action="store_true", help="one layer of FDP tiny")
    parser.add_argument("--folds", type=int, nargs="*", default=None, help="default: 1 2 4 8")
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--layers", default="", help="layers whose description contains this")
    parser.add_argument("--new", action="store_true", help="layers the table has no row of")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.tune_from:
        print(f"{tune_from(arguments.tune_from)} layers are in {conv_choice.TABLE}.")
        return
    run_in_calling_thread()
    with heap_for_training() as heap:
        run(arguments, keeps_memory=heap.keep_freed_memory().is_kept)


def run(arguments: argparse.Namespace, *, keeps_memory: bool) -> None:
    """Runs the measurements of the command line, and prints and records them."""
    num_threads = len(os.sched_getaffinity(0))
    if torch:
        torch.set_num_threads(num_threads)
    folds = arguments.folds or ([1] if arguments.quick or arguments.tune else [1, 2, 4, 8])
    # XLA's own convolution takes seconds for some layers; a quick run leaves it out.
    names = [name for name in PREFERENCE if name != "native" or not arguments.quick]

    def timer(function: Callable[[], Any], hopeless_ms: float = math.inf) -> float:
        few = arguments.quick
        budget_s = 0.2 if few else 0.5
        return median_ms(function, 3 if few else 9, budget_s, hopeless_ms)

    record: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "environment": machine.environment(),
        "torch": torch.__version__ if torch else None,
        "num_threads": num_threads,
        "keeps_freed_memory": keeps_memory,
        "load_before": os.getloadavg()[0],
        "networks": {},
    }
    is_cpu = target.current().platform == "cpu"
    only = arguments.only or ("tiny" if arguments.quick else "")
    for network, layers_ in layers(only).items():
        layers_ = [layer for layer in layers_ if arguments.layers in describe(layer)]
        layers_ = [
            layer for layer in layers_ if not (arguments.new and conv_choice.is_tuned(layer))
        ]
        layers_ = layers_[-1:] if arguments.quick else layers_
        if not layers_:
            continue
        rows = record["networks"][network] = []
        for layer in layers_:
            if is_cpu:
                rows.append(measure(layer, folds, timer, names))
            else:
                rows.append(measure_on_device(layer, names) | {"folds": {}, "torch": None})
            if arguments.tune:
                tune(rows[-1], record["environment"])
        show(network, rows, layers_)
    record["load_after"] = os.getloadavg()[0]
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The kernels of an optimised HLO module: what each reads, writes and computes.

Bytes are those of operands and results as the compiled text has them. A slice counts as its own
size, an update in place as the part it changes. Workspaces of libraries are not counted. One
multiplication and one addition are two operations; only matrix products and convolutions have any.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re

from mexjax.gpu.hlo import Instruction, Module, Shape

# Instructions that run nothing.
_FREE = {
    "bitcast", "tuple", "get-tuple-element", "parameter", "constant", "after-all", "partition-id",
    "optimization-barrier", "opt-barrier", "replica-id", "add-dependency",
}  # fmt: skip
_COLLECTIVE = re.compile(r"all-|collective|reduce-scatter|send|recv|infeed|outfeed")
_CONVOLUTION = "__cudnn$conv"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One launch on the device, or several alike.

    Attributes:
      name: name of the instruction.
      kind: `convolution`, `product`, `fusion`, `copy` or the opcode.
      label: more about it: the direction of a convolution, the library of a product.
      dtype: type of the first operand of a product or convolution, otherwise empty.
      groups: groups of a convolution, otherwise 1.
      flops: operations of its products.
      num_bytes: bytes read and written.
      trips: times that it runs in one call of the program.
      depth: number of loops around it.
      source: the place in the traced program.
    """

    name: str
    kind: str
    label: str
    dtype: str
    groups: int
    flops: float
    num_bytes: float
    trips: int
    depth: int
    source: str


@dataclasses.dataclass(frozen=True)
class Loop:
    """A `while` of the program.

    Attributes:
      depth: number of loops around it.
      trips: iterations, where the compiler knows them.
      num_convolutions: convolutions in one iteration.
    """

    depth: int
    trips: int | None
    num_convolutions: int


@dataclasses.dataclass(frozen=True)
class Contents:
    """Everything that `contents` reads off a module.

    Attributes:
      kernels: in the order of the text.
      loops: the loops.
      collectives: names of instructions that need another device or the host.
      callbacks: names of calls back to Python.
      num_wide: arrays of 64-bit floating-point numbers.
    """

    kernels: list[Kernel]
    loops: list[Loop]
    collectives: list[str]
    callbacks: list[str]
    num_wide: int


def contents(module: Module) -> Contents:
    """The kernels, loops and exchanges of a module."""
    every = [i for instructions in module.computations.values() for i in instructions]
    out = Contents(
        kernels=[],
        loops=[],
        collectives=sorted({i.opcode for i in every if _COLLECTIVE.match(i.opcode)}),
        callbacks=sorted({i.target for i in every if "callback" in i.target}),
        num_wide=sum(shape.dtype == "f64" for i in every for shape in i.shapes),
    )
    _walk(module, module.entry, 0, 1, out)
    return out


def _walk(module: Module, computation: str, depth: int, trips: int, out: Contents) -> None:
    shapes = module.shapes(computation)
    for i in module.computations[computation]:
        if i.opcode in _FREE or i.opcode.endswith(("-done", "-update")):
            continue
        if i.opcode == "while":
            body = i.find(r"body=%?([\w.\-]+)")
            count = i.find(r'known_trip_count":?\{"n":"?(\d+)')
            inside = sum(_CONVOLUTION in j.target for j in module.computations[body])
            out.loops.append(Loop(depth, int(count) if count else None, inside))
            for name in i.called:
                _walk(module, name, depth + 1, trips * int(count or 1), out)
        elif i.opcode == "conditional":
            for name in i.called:
                _walk(module, name, depth + 1, trips, out)
        elif i.opcode == "call":
            for name in i.called:
                _walk(module, name, depth, trips, out)
        else:
            kernel = _kernel(module, i, shapes)
            out.kernels.append(dataclasses.replace(kernel, trips=trips, depth=depth))


def _kernel(module: Module, i: Instruction, shapes: dict[str, tuple[Shape, ...]]) -> Kernel:
    operands = [shapes[name] for name in i.operands if name in shapes]
    read = sum(shape.num_bytes for operand in operands for shape in operand)
    kernel = Kernel(i.name, i.opcode, "", "", 1, 0, read + i.num_bytes, 1, 0, i.source)
    if i.opcode == "custom-call":
        return _call(kernel, i, operands, read)
    if i.opcode == "fusion":
        return _fusion(kernel, module, i, read)
    if i.opcode.startswith("copy"):
        return dataclasses.replace(kernel, kind="copy")
    if i.opcode == "dynamic-update-slice":
        return dataclasses.replace(kernel, num_bytes=2 * operands[1][0].num_bytes)
    if i.opcode in ("slice", "dynamic-slice"):
        return dataclasses.replace(kernel, num_bytes=2 * i.num_bytes)
    return kernel


def _call(kernel: Kernel, i: Instruction, operands: list[tuple[Shape, ...]], read: float) -> Kernel:
    """A call of a library; the last result of several is its workspace."""
    results = i.shapes[: max(len(i.shapes) - 1, 1)]
    num_bytes = read + sum(shape.num_bytes for shape in results)
    kernel = dataclasses.replace(kernel, num_bytes=num_bytes, label=i.target)
    if _CONVOLUTION in i.target:
        return dataclasses.replace(
            kernel,
            kind="convolution",
            label=i.target.removeprefix(_CONVOLUTION),
            dtype=operands[0][0].dtype,
            groups=int(i.find(r"feature_group_count=(\d+)") or 1),
            flops=_convolution_flops(i, operands[0][0], operands[1][0]),
        )
    if "cublas" in i.target:
        axis = i.find(r'"lhs_contracting_dimensions":\["?(\d+)')
        left = operands[0][0]
        depth = left.dims[int(axis)] if axis else 1
        return dataclasses.replace(
            kernel, kind="product", dtype=left.dtype, flops=2 * i.shapes[0].size * depth
        )
    return kernel


def _convolution_flops(i: Instruction, a: Shape, b: Shape) -> float:
    """Operations of a convolution of any direction, by its forward pass.

    Args:
      i: the call.
      a: the first operand: the input, or the output's gradient of an input gradient.
      b: the second: the kernel, or the output's gradient of a weight gradient.
    """
    labels = i.find(r"dim_labels=([\w?]+_[\w?]+->[\w?]+)")
    _, kernel_labels = labels.partition("->")[0].split("_")
    window = [int(n) for n in (i.find(r"window=\{size=([\dx]+)") or "1").split("x")]
    if "BackwardInput" in i.target:
        output, kernel = a, b
    elif "BackwardFilter" in i.target:
        output, kernel = b, i.shapes[0]
    else:
        output, kernel = i.shapes[0], b
    inputs = kernel.dims[kernel_labels.index("i")]  # of one group
    return 2 * output.size * math.prod(window) * inputs


def _fusion(kernel: Kernel, module: Module, i: Instruction, read: float) -> Kernel:
    body = i.called[0]
    inner = module.computations[body]
    root = next((j for j in inner if j.is_root), inner[-1])
    written = i.num_bytes
    if root.opcode == "dynamic-update-slice":  # what is not touched is not written
        shapes = module.shapes(body)
        written = sum(shape.num_bytes for shape in shapes[root.operands[1]])
    num_bytes = min(read, _bytes_read(inner)) + written
    flops, dtype = 0.0, ""
    for name, j in module.inner(body):
        if j.opcode == "dot":
            left = module.shapes(name)[j.operands[0]][0]
            axes = j.find(r"lhs_contracting_dims=\{([\d,]*)\}")
            depth = math.prod(left.dims[int(d)] for d in axes.split(",") if d)
            flops, dtype = flops + 2 * j.shapes[0].size * depth, left.dtype
    kind = "product" if flops else "fusion"
    return dataclasses.replace(
        kernel, kind=kind, label=root.opcode, dtype=dtype, flops=flops, num_bytes=num_bytes
    )


# Instructions that read the whole of what they are given.
_READS_ALL = {"dot", "convolution", "fusion", "scatter", "reduce-window", "sort", "broadcast",
              "tuple"}  # fmt: skip


def _bytes_read(inner: list[Instruction]) -> float:
    """Bytes of its parameters that a fused computation needs: a slice needs its own part only."""
    sizes = {j.name: sum(shape.size for shape in j.shapes) for j in inner}
    needed: collections.Counter[str] = collections.Counter()
    for j in reversed(inner):
        share = sizes[j.name] if j.is_root else needed[j.name]
        for place, operand in enumerate(j.operands):
            if operand not in sizes:
                continue
            if j.opcode == "dynamic-update-slice":
                amount = sizes[operand] if place == 1 else 0
            elif j.opcode in _READS_ALL:
                amount = sizes[operand]
            elif j.opcode == "reduce":
                amount = math.ceil(sizes[operand] * share / max(sizes[j.name], 1))
            else:
                amount = min(sizes[operand], share)
            needed[operand] = max(needed[operand], amount)
    total = 0.0
    for j in inner:
        if j.opcode == "parameter":
            part = 1.0 if j.is_root else min(1.0, needed[j.name] / max(sizes[j.name], 1))
            total += part * j.num_bytes
    return total

"""The choice of a lowering for a convolution: an override, else a measured table, else rules.

The choice is made while tracing, from platform, dtype and shapes alone, and separately for the
forward pass and the two gradients. `table.json`, where the package has one, holds measured
rows: the fastest lowering of each operation of a layer. A layer takes the choice of the nearest
row of its platform, dtype, kernel and stride (`_distance`) if that is within `MAX_DISTANCE`;
otherwise `_rule` decides. Rows of a GPU name its kind, such as `NVIDIA H200`; where no row of the
layer's own kind is near, rows without a kind count.
"""

import contextlib
import contextvars
import dataclasses
import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mexjax import target
from mexjax.errors import ConfigError, unknown_name
from mexjax.gpu.bounds import GRAPH_S
from mexjax.gpu.targets import bandwidth_of
from mexjax.ops.conv.depthwise import LOWERINGS as DEPTHWISE
from mexjax.ops.conv.geometry import Geometry, Layer, Lowering
from mexjax.ops.conv.grouped import LOWERINGS as GROUPED
from mexjax.ops.conv.grouped import split_lowerings
from mexjax.ops.conv.im2col import LOWERINGS as IM2COL
from mexjax.ops.conv.native import LOWERINGS as NATIVE
from mexjax.ops.conv.small_maps import LOWERINGS as SMALL_MAPS
from mexjax.ops.conv.winograd import LOWERINGS as WINOGRAD

TABLE = Path(__file__).with_name("table.json")
# The distance is in octaves, summed over map size, channels in and out (and of a group), and half
# the batch.
MAX_DISTANCE = 1.5

LOWERINGS: dict[str, Lowering] = {
    **NATIVE,
    **IM2COL,
    **SMALL_MAPS,
    **DEPTHWISE,
    **GROUPED,
    **WINOGRAD,
    # `compute` stands below and reads this table: each dense convolution is a choice of its own.
    **split_lowerings(lambda *call: compute(*call)),  # noqa: PLW0108
}

_override: contextvars.ContextVar[str | None] = contextvars.ContextVar("override", default=None)
_recorders: contextvars.ContextVar[tuple[set[Layer], ...]] = contextvars.ContextVar(
    "recorders", default=()
)


@contextlib.contextmanager
def use_lowering(name: str | None) -> Iterator[None]:
    """Use one lowering for every convolution that is traced in a `with` block.

    A layer to which the lowering does not apply (a Winograd form at stride 2, say) keeps the
    automatic choice. Functions that are compiled already stay as they are.

    Args:
      name: the lowering; None or "auto" for the automatic choice.

    Raises:
      ConfigError: no lowering has this name.
    """
    name = None if name == "auto" else name
    if name is not None and name not in LOWERINGS:
        raise ConfigError(unknown_name("convolution lowering", name, {"auto", *LOWERINGS}))
    token = _override.set(name)
    try:
        yield
    finally:
        _override.reset(token)


def current_lowering() -> str | None:
    """The override in force, None if the choice is automatic."""
    return _override.get()


@contextlib.contextmanager
def record_layers() -> Iterator[set[Layer]]:
    """Collect the layers (of the forward pass) of all that is traced in a `with` block."""
    layers: set[Layer] = set()
    token = _recorders.set((*_recorders.get(), layers))
    try:
        yield layers
    finally:
        _recorders.reset(token)


@functools.cache
def _table() -> list[dict[str, Any]]:
    rows = json.loads(TABLE.read_text())["rows"] if TABLE.exists() else []
    return [{**row, "layer": layer_from_json(row["layer"])} for row in rows]


def is_tuned(layer: Layer) -> bool:
    """True if the table has a row of this very layer."""
    return any(row["layer"] == layer for row in _table())


def forget_table() -> None:
    """Read the table again at the next choice; functions that are compiled stay as they are."""
    _table.cache_clear()
    choose.cache_clear()


def layer_to_json(layer: Layer) -> dict[str, Any]:
    """A layer as a row of `table.json` holds it; the row of a CPU names no kind of device."""
    fields = dataclasses.asdict(layer)
    return fields if layer.kind else {name: fields[name] for name in fields if name != "kind"}


def layer_from_json(fields: dict[str, Any]) -> Layer:
    """The inverse of `layer_to_json`, also after JSON made lists of the tuples."""
    g = fields["geometry"]
    geometry = Geometry(
        size=tuple(g["size"]),
        kernel=tuple(g["kernel"]),
        stride=tuple(g["stride"]),
        padding=(tuple(g["padding"][0]), tuple(g["padding"][1])),
        groups=g["groups"],
    )
    others: dict[str, Any] = {name: fields[name] for name in fields if name != "geometry"}
    return Layer(geometry, **others)


def _distance(a: Layer, b: Layer) -> float:
    """The octaves between two layers that differ in sizes only; infinite if in more than that."""
    if b.kind not in ("", a.kind):
        return math.inf
    fixed = [
        (x.platform, x.dtype, x.geometry.kernel, x.geometry.stride, x.group_kind) for x in (a, b)
    ]
    if fixed[0] != fixed[1]:
        return math.inf

    def octaves(p: float, q: float) -> float:
        return abs(math.log2(p / q))

    pixels = [math.sqrt(math.prod(x.geometry.out_size)) for x in (a, b)]
    distance = octaves(*pixels) + octaves(a.channels, b.channels) + octaves(a.out, b.out)
    if a.group_kind == "grouped":
        distance += octaves(a.channels / a.geometry.groups, b.channels / b.geometry.groups)
    return distance + octaves(a.batch, b.batch) / 2


def _rule(operation: str, layer: Layer) -> str:
    """The lowering of a layer that no measurement is near to."""
    g = layer.geometry
    if LOWERINGS["patchify"].applies(g, layer.channels, layer.out):
        return "patchify"
    if layer.group_kind != "dense":
        return _rule_of_groups(layer)
    if layer.platform != "cpu":
        return "native"
    if LOWERINGS["few_outputs"].applies(g, layer.channels, layer.out):
        return "shifted" if operation == "input_gradient" else "few_outputs"
    if max(g.size + g.out_size) <= 2:
        return "dense_map"
    is_large = layer.flops >= 5e8 and min(layer.channels, layer.out) >= 48
    if is_large and LOWERINGS["winograd4"].applies(g, layer.channels, layer.out):
        return "winograd4"
    if operation == "forward" and max(g.out_size) > 4:
        return "native_parts"
    return "im2col"


def _rule_of_groups(layer: Layer) -> str:
    """The same for a layer with groups."""
    g = layer.geometry
    if layer.platform == "gpu":
        # The bound: one launch instead of one for each run of groups, no more operations or bytes.
        return "native"
    if layer.group_kind == "depthwise":
        return "depthwise"
    is_by_vectors = layer.out // g.groups % 8 == 0 and layer.platform == "cpu"
    if is_by_vectors and LOWERINGS["grouped"].applies(g, layer.channels, layer.out):
        return "grouped"
    return "split" if layer.channels // g.groups >= 32 or g.groups <= 4 else "merge64"


def folds_pay(operation: str, layer: Layer, num_folds: int) -> bool:
    """True if folds as groups of one convolution are bound to take less time on a GPU than apart.

    It is a bound, not a measurement. One call instead of `num_folds` saves all launches but one, of
    2 microseconds each. It costs a copy of the images and one of the outputs of every fold, with
    channels of all folds side by side, each read once and written once at the bandwidth of the
    memory. Depthwise and grouped layers follow the same bound. A strided input gradient stays
    apart: cuDNN's own form of it is found for one group only, and the other spreads the output
    gradient with zeros.

    Args:
      operation: "forward", "input_gradient" or "weight_gradient".
      layer: of one fold.
      num_folds: folds in the program.
    """
    if operation == "input_gradient" and layer.geometry.stride != (1, 1):
        return False
    copied = 2 * num_folds * layer.num_elements * jnp.dtype(layer.dtype).itemsize
    return (num_folds - 1) * GRAPH_S > copied / bandwidth_of(layer.kind)


@functools.cache
def choose(operation: str, layer: Layer, override: str | None = None, num_folds: int = 1) -> str:
    """The name of the lowering that computes `operation` ("forward", ...) of `layer`.

    Args:
      operation: "forward", "input_gradient" or "weight_gradient".
      layer: of one fold.
      override: the name of a lowering that is taken if it applies.
      num_folds: folds that are computed at once, with weights of their own.
    """

    def applies(name: str) -> bool:
        return LOWERINGS[name].applies(layer.geometry, layer.channels, layer.out)

    if override is not None and applies(override):
        return override
    rows = [(_distance(layer, row["layer"]), row) for row in _table()]
    near = sorted(
        (row["layer"].kind != layer.kind, distance, row[operation])
        for distance, row in rows
        if distance <= MAX_DISTANCE and applies(row[operation])
    )
    if near:
        return near[0][-1]
    name = _rule(operation, layer)
    is_native = name == "native" and layer.platform == "gpu" and num_folds > 1
    return "native_folds" if is_native and folds_pay(operation, layer, num_folds) else name


def _device() -> tuple[str, str]:
    """Platform and kind of the device of a layer that is traced now."""
    device = target.current()
    return device.platform, "" if device.platform == "cpu" else device.kind


def layer_of(operation: str, a: jax.Array, b: jax.Array, g: Geometry) -> Layer:
    """The layer of a call `operation(a, b, g)` of a `Lowering`."""
    if operation == "weight_gradient":
        channels, out = a.shape[-1], b.shape[-1]
    else:
        channels, out = b.shape[2] * g.groups, b.shape[3]
    layer = Layer(g, a.shape[0], channels, out, str(a.dtype), *_device())
    if operation == "forward":
        for layers in _recorders.get():
            layers.add(layer)
    return layer


def compute(operation: str, a: jax.Array, b: jax.Array, g: Geometry, name: str = "") -> jax.Array:
    """Run one operation of a `Lowering` by `name`, or by the automatic choice."""
    name = name or choose(operation, layer_of(operation, a, b, g))
    function = getattr(LOWERINGS[name], operation)
    return function(a, b, g).astype(a.dtype)

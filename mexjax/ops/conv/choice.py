"""Which lowering computes a convolution: an override, else a measured table, else rules.

The choice is made while tracing, from platform, dtype and shapes alone, and separately for the
forward pass and the two gradients.  `table.json`, where the package has one, holds measured
rows: the fastest lowering of each operation of a layer.  A layer takes the choice of the nearest
row of its platform, dtype, kernel and stride (`_distance`) if that is within `MAX_DISTANCE`;
otherwise `_rule` decides.
"""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mexjax.errors import ConfigError, unknown_name
from mexjax.ops.conv import grouped as conv_grouped
from mexjax.ops.conv import lowerings as conv_lowerings
from mexjax.ops.conv import special as conv_special
from mexjax.ops.conv import winograd as conv_winograd
from mexjax.ops.conv.lowerings import Geometry, Lowering

OPERATIONS = ("forward", "input_gradient", "weight_gradient")
TABLE = Path(__file__).with_name("table.json")
# Octaves, summed over map size, channels in and out (and of a group), and half the batch.
MAX_DISTANCE = 1.5


@dataclasses.dataclass(frozen=True)
class Layer:
    """All that the choice may depend on. Channels are those of the whole layer, not of a group."""

    geometry: Geometry
    batch: int
    channels: int
    out: int
    dtype: str
    platform: str

    @property
    def flops(self) -> int:
        """Multiplications and additions of one operation, done directly."""
        g = self.geometry
        taps = math.prod(g.kernel) * math.prod(g.out_size)
        return 2 * self.batch * taps * self.channels * self.out // g.groups

    @property
    def group_kind(self) -> str:
        groups = self.geometry.groups
        if groups == 1:
            return "dense"
        return "depthwise" if groups == self.channels == self.out else "grouped"


def _split(operation: str, merged: int | None = None):
    """One plain convolution per group, or per run of groups with `merged` channels in all.

    A run of groups is one convolution with zeros in the kernel between its groups: more
    multiplications, but on a size of matrix that the processor is fast on.
    """

    def run(a: jax.Array, b: jax.Array, g: Geometry) -> jax.Array:
        channels = b.shape[2] * g.groups if operation != "weight_gradient" else a.shape[-1]
        per_group = channels // g.groups
        together = 1
        if merged:
            most = max(1, merged // per_group)
            together = max(d for d in range(1, most + 1) if g.groups % d == 0)
        runs = g.groups // together
        sub = dataclasses.replace(g, groups=1)
        parts = []
        for p, q in zip(jnp.split(a, runs, -1), jnp.split(b, runs, -1), strict=True):
            if operation != "weight_gradient":
                q = _block_diagonal(q, together)
            y = compute(operation, p, q, sub)
            if operation == "weight_gradient":
                y = _diagonal_blocks(y, together)
            parts.append(y)
        return jnp.concatenate(parts, -1)

    return run


def _block_diagonal(w: jax.Array, groups: int) -> jax.Array:
    """f[kh,kw,I,g*O] -> f[kh,kw,g*I,g*O], zero where input and output are of different groups."""
    if groups == 1:
        return w
    kh, kw, channels, out = w.shape
    w = w.reshape(kh, kw, 1, channels, groups, out // groups)
    same = jnp.eye(groups, dtype=w.dtype)[:, None, :, None]
    return (w * same).reshape(kh, kw, groups * channels, out)


def _diagonal_blocks(w: jax.Array, groups: int) -> jax.Array:
    """The inverse of `_block_diagonal`."""
    if groups == 1:
        return w
    kh, kw, channels, out = w.shape
    w = w.reshape(kh, kw, groups, channels // groups, groups, out // groups)
    blocks = [w[:, :, i, :, i] for i in range(groups)]
    return jnp.stack(blocks, 3).reshape(kh, kw, channels // groups, out)


def _make_split(merged: int | None = None) -> Lowering:
    def applies(g: Geometry, channels: int, out: int) -> bool:
        per_group = channels // g.groups
        return g.groups > 1 and (merged is None or 2 * per_group <= merged)

    return Lowering(*(_split(op, merged) for op in OPERATIONS), applies=applies, in_loop=False)


LOWERINGS: dict[str, Lowering] = {
    **conv_lowerings.LOWERINGS,
    **conv_special.LOWERINGS,
    **conv_grouped.LOWERINGS,
    **conv_winograd.LOWERINGS,
    "split": _make_split(),
    "merge32": _make_split(32),
    "merge64": _make_split(64),
    "merge128": _make_split(128),
}

_override: str | None = None


def set_lowering(name: str | None) -> None:
    """Sets the lowering of every convolution traced from now on; None or "auto" for the choice.

    A layer to which the lowering does not apply (a Winograd form at stride 2, say) keeps the
    automatic choice.  Functions that are compiled already stay as they are.

    Raises:
      ConfigError: no lowering has this name.
    """
    global _override
    name = None if name == "auto" else name
    if name is not None and name not in LOWERINGS:
        raise ConfigError(unknown_name("convolution lowering", name, {"auto", *LOWERINGS}))
    _override = name


@contextlib.contextmanager
def use_lowering(name: str | None) -> Iterator[None]:
    """`set_lowering` for the length of a `with` block."""
    before = _override
    set_lowering(name)
    try:
        yield
    finally:
        set_lowering(before)


def current_lowering() -> str | None:
    """The override in force, None if the choice is automatic."""
    return _override


_seen: list[set[Layer]] = []


@contextlib.contextmanager
def record_layers() -> Iterator[set[Layer]]:
    """Collects the layers (of the forward pass) of whatever is traced in a `with` block."""
    _seen.append(set())
    try:
        yield _seen[-1]
    finally:
        _seen.pop()


@functools.cache
def _table() -> list[dict[str, Any]]:
    rows = json.loads(TABLE.read_text())["rows"] if TABLE.exists() else []
    return [{**row, "layer": layer_from_json(row["layer"])} for row in rows]


def is_tuned(layer: Layer) -> bool:
    """Whether the table has a row of this very layer."""
    return any(row["layer"] == layer for row in _table())


def forget_table() -> None:
    """Read the table again at the next choice; functions that are compiled stay as they are."""
    _table.cache_clear()
    choose.cache_clear()


def layer_to_json(layer: Layer) -> dict[str, Any]:
    return dataclasses.asdict(layer)


def layer_from_json(fields: dict[str, Any]) -> Layer:
    g = fields["geometry"]
    geometry = Geometry(
        size=tuple(g["size"]),
        kernel=tuple(g["kernel"]),
        stride=tuple(g["stride"]),
        padding=tuple(map(tuple, g["padding"])),
        groups=g["groups"],
    )
    return Layer(**{**fields, "geometry": geometry})


def _distance(a: Layer, b: Layer) -> float:
    """Octaves between two layers that differ in sizes only; infinite if in more than that."""
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
    """What to do with a layer that no measurement is near to."""
    g = layer.geometry
    if LOWERINGS["patchify"].applies(g, layer.channels, layer.out):
        return "patchify"
    if layer.group_kind == "depthwise":
        return "native" if layer.platform == "gpu" else "depthwise"
    if layer.group_kind == "grouped":
        is_by_vectors = layer.out // g.groups % 8 == 0 and layer.platform == "cpu"
        if is_by_vectors and LOWERINGS["grouped"].applies(g, layer.channels, layer.out):
            return "grouped"
        return "split" if layer.channels // g.groups >= 32 or g.groups <= 4 else "merge64"
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


@functools.cache
def choose(operation: str, layer: Layer, override: str | None = None) -> str:
    """The name of the lowering that computes `operation` ("forward", ...) of `layer`."""

    def applies(name: str) -> bool:
        return LOWERINGS[name].applies(layer.geometry, layer.channels, layer.out)

    if override is not None and applies(override):
        return override
    near = [(_distance(layer, row["layer"]), row[operation]) for row in _table()]
    near = [(distance, name) for distance, name in near if distance <= MAX_DISTANCE]
    near = [pair for pair in sorted(near) if applies(pair[1])]
    return near[0][1] if near else _rule(operation, layer)


def layer_of(operation: str, a: jax.Array, b: jax.Array, g: Geometry) -> Layer:
    """The layer of a call `operation(a, b, g)` of a `Lowering`."""
    if operation == "weight_gradient":
        channels, out = a.shape[-1], b.shape[-1]
    else:
        channels, out = b.shape[2] * g.groups, b.shape[3]
    layer = Layer(g, a.shape[0], channels, out, str(a.dtype), jax.default_backend())
    if operation == "forward":
        for layers in _seen:
            layers.add(layer)
    return layer


def compute(operation: str, a: jax.Array, b: jax.Array, g: Geometry, name: str = "") -> jax.Array:
    """Runs one operation of a `Lowering` by `name`, or by the automatic choice."""
    name = name or choose(operation, layer_of(operation, a, b, g))
    function = getattr(LOWERINGS[name], operation)
    return function(a, b, g).astype(a.dtype)

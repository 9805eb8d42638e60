"""The first parameters of a network, drawn by a few large operations instead of hundreds.

A network of a hundred convolutions draws a hundred arrays, and each draw is a program of its own
to the compiler: together they take longer to compile than the training step. Here all random bits
that can be drawn together are one operation, and other operations that are alike are one with one
more axis. The bits stay the same to the last; numbers made of them are equal up to rounding.

Random bits are those of JAX's threefry generator in its partitionable form (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"): number i of a draw is a function of its key and of i
alone, whatever the shape of the draw.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend import random as generators

from mexjax.cpu import is_cpu

# Numbers drawn at once on a CPU. The last block of a draw is cut off.
BLOCK = 2**14
_THREEFRY = "key<fry>"  # the type of its keys


class _Part(NamedTuple):
    """A value: `array` itself, or row `index` of it."""

    array: Any
    index: int | None

    @property
    def value(self) -> Any:
        return self.array if self.index is None else self.array[self.index]


class _Step(NamedTuple):
    """An operation with the names of its operands and results."""

    eqn: core.JaxprEqn
    operands: tuple[Hashable, ...]
    results: tuple[Hashable, ...]


class _Literal:
    """An operand that is written into the operation; each is a name of its own."""

    def __init__(self, value: Any, dtype: Any) -> None:
        self.array = np.asarray(value, dtype)


Values = dict[Hashable, _Part]
Group = list[_Step]


def alike_at_once(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, with operations that are alike done at once.

    Operations that no output needs are left out. With keys of another generator than threefry the
    function is called as it is: their numbers depend on what else is drawn.

    Args:
      function: a function of arrays and keys, without side effects.
      *args: its arguments.
    """
    if any(_is_other_key(leaf) for leaf in jax.tree.leaves(args)):
        return function(*args)
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    values: Values = {}
    leaves = [_Part(value, None) for value in jax.tree.leaves(args)]
    steps: list[_Step] = []
    outputs = _inlined(closed, _define(leaves, values), steps, values)
    for level in _levels(_needed(steps, outputs)):
        draws = [group for group in level if _is_draw(group[0].eqn)]
        if draws:
            _draw(draws, values)
        for group in level:
            if not _is_draw(group[0].eqn):
                _run(group, values)
    parts = [_read(name, values).value for name in outputs]
    return jax.tree.unflatten(jax.tree.structure(shape), parts)


def _is_other_key(value: Any) -> bool:
    dtype = jnp.result_type(value)
    return jnp.issubdtype(dtype, jax.dtypes.prng_key) and str(dtype) != _THREEFRY


def _define(parts: Sequence[_Part], values: Values) -> list[Hashable]:
    names = [object() for _ in parts]
    values.update(zip(names, parts, strict=True))
    return list(names)


def _inlined(
    closed: Any, arguments: Sequence[Hashable], steps: list[_Step], values: Values
) -> list[Hashable]:
    """Appends the operations of a program, those of functions that it calls included."""
    constants = _define([_Part(value, None) for value in closed.consts], values)
    names: dict[Any, Hashable] = dict(
        zip(
            (*closed.jaxpr.constvars, *closed.jaxpr.invars),
            (*constants, *arguments),
            strict=True,
        )
    )

    def name_of(atom: Any) -> Hashable:
        if isinstance(atom, core.Literal):
            aval: Any = atom.aval
            return _Literal(atom.val, aval.dtype)
        return names[atom]

    for eqn in closed.jaxpr.eqns:
        operands = tuple(name_of(atom) for atom in eqn.invars)
        if eqn.primitive.name in ("pjit", "jit") and not eqn.effects:
            results = _inlined(eqn.params["jaxpr"], operands, steps, values)
        else:
            results = [object() for _ in eqn.outvars]
            steps.append(_Step(eqn, operands, tuple(results)))
        names.update(zip(eqn.outvars, results, strict=True))
    return [name_of(atom) for atom in closed.jaxpr.outvars]


def _read(name: Hashable, values: Values) -> _Part:
    return _Part(name.array, None) if isinstance(name, _Literal) else values[name]


def _needed(steps: Sequence[_Step], outputs: Sequence[Hashable]) -> list[_Step]:
    """The operations that the outputs need, in their order."""
    needed = set(outputs)
    kept = []
    for step in reversed(steps):
        if needed.intersection(step.results) or step.eqn.effects:
            kept.append(step)
            needed.update(step.operands)
    return kept[::-1]


def _levels(steps: Sequence[_Step]) -> list[list[Group]]:
    """Groups of operations that are alike; a level needs nothing but the levels before it."""
    depths: dict[Hashable, int] = {}
    levels: dict[int, dict[Hashable, Group]] = collections.defaultdict(dict)
    for step in steps:
        depth = 1 + max((depths.get(name, 0) for name in step.operands), default=0)
        depths.update(dict.fromkeys(step.results, depth))
        levels[depth].setdefault(_kind(step.eqn), []).append(step)
    return [list(levels[depth].values()) for depth in sorted(levels)]


def _kind(eqn: core.JaxprEqn) -> Hashable:
    """Equal for operations that differ in the values of their operands alone."""
    if eqn.effects:
        return id(eqn)
    parameters = tuple((name, repr(value)) for name, value in sorted(eqn.params.items()))
    return eqn.primitive.name, parameters, tuple(str(atom.aval) for atom in eqn.invars)


def _run(group: Group, values: Values) -> None:
    eqn = group[0].eqn
    arrays, axes = [], []
    for names in zip(*(step.operands for step in group), strict=True):
        array, axis = _operand(names, values)
        arrays.append(array)
        axes.append(axis)

    def once(*operands: Any) -> Any:
        outputs = eqn.primitive.bind(*operands, **eqn.params)
        return outputs if eqn.primitive.multiple_results else [outputs]

    is_shared = all(axis is None for axis in axes)
    outputs = once(*arrays) if is_shared else jax.vmap(once, in_axes=tuple(axes))(*arrays)
    for row, step in enumerate(group):
        for name, array in zip(step.results, outputs, strict=True):
            values[name] = _Part(array, None if is_shared else row)


def _operand(names: Sequence[Hashable], values: Values) -> tuple[Any, int | None]:
    """One operand of a group: an array with a row for each operation, or one that all share."""
    parts = [_read(name, values) for name in names]
    if all(isinstance(name, _Literal) for name in names):
        numbers = np.stack([part.array for part in parts])
        return (numbers[0], None) if (numbers == numbers[0]).all() else (numbers, 0)
    if all(part.array is parts[0].array and part.index == parts[0].index for part in parts):
        return parts[0].value, None
    return _stack(parts), 0


def _stack(parts: Sequence[_Part]) -> Any:
    """The values of parts along a new first axis; the array itself if they are all its rows."""
    array = parts[0].array
    is_whole = all(part.array is array and part.index == i for i, part in enumerate(parts))
    if is_whole and array.shape[0] == len(parts):
        return array
    return jnp.stack([part.value for part in parts])


def _is_draw(eqn: core.JaxprEqn) -> bool:
    """True for random bits that `_draw` knows to make."""
    if eqn.primitive.name != "random_bits" or eqn.params["bit_width"] != 32:
        return False
    key: Any = eqn.invars[0].aval
    # JAX defines the attributes of its configuration when it runs.
    is_partitionable = jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]
    is_threefry = str(key.dtype) == _THREEFRY
    return is_threefry and is_partitionable and key.ndim == 0 and _size(eqn) < 2**32


def _size(eqn: core.JaxprEqn) -> int:
    return math.prod(eqn.params["shape"])


def _draw(groups: Sequence[Group], values: Values) -> None:
    """All random bits of groups of draws, in blocks, by one operation."""
    keys = jnp.concatenate(
        [
            jax.random.key_data(jnp.stack([values[step.operands[0]].value for step in group]))
            for group in groups
        ]
    )
    block = BLOCK
    sizes = [_size(group[0].eqn) for group in groups]
    counts = [-(-size // block) for size in sizes]
    # The key and the first number of each block.
    each = [(count, len(group)) for count, group in zip(counts, groups, strict=True)]
    number_of_blocks = np.concatenate([np.full(folds, count) for count, folds in each])
    rows = np.repeat(np.arange(len(number_of_blocks), dtype=np.int32), number_of_blocks)
    starts = np.concatenate(
        [np.tile(np.arange(count, dtype=np.uint32) * np.uint32(block), n) for count, n in each]
    )
    bits = _bits(keys, rows, starts, block)
    begin = 0
    for group, count, size in zip(groups, counts, sizes, strict=True):
        end = begin + count * len(group)
        shape = group[0].eqn.params["shape"]
        drawn = bits[begin:end].reshape(len(group), -1)[:, :size].reshape(len(group), *shape)
        for row, step in enumerate(group):
            values[step.results[0]] = _Part(drawn, row)
        begin = end


def _bits(keys: jax.Array, rows: np.ndarray, starts: np.ndarray, block: int) -> jax.Array:
    """Random numbers u32[blocks, block].

    Args:
      keys: u32[n, 2].
      rows: i32[blocks], the key of each block.
      starts: u32[blocks], the number of the first draw in each block.
      block: numbers in a block.
    """

    def one(row: jax.Array, start: jax.Array) -> jax.Array:
        counter = start + lax.iota(jnp.uint32, block)
        first, second = (jnp.broadcast_to(keys[row, i], (block,)) for i in range(2))
        high, low = generators.threefry2x32_p.bind(first, second, jnp.zeros_like(counter), counter)
        return high ^ low

    if is_cpu():  # a loop: its program is small, and a block stays in the cache
        return lax.map(lambda pair: one(*pair), (jnp.asarray(rows), jnp.asarray(starts)))
    return jax.vmap(one)(jnp.asarray(rows), jnp.asarray(starts))

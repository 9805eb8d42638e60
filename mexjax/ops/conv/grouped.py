"""Convolutions in groups: sums of products over vectors, or dense convolutions of the groups.

A matrix product of 8 columns leaves most of a matrix unit idle, and to make one of each group the
channels have to be taken apart first. In `grouped` a register holds the outputs of one group at one
pixel, and one input channel at a time, laid along it, is multiplied with its weights: the arrays
stay as they are. `split` and `merge*` compute one dense convolution a group, or a run of groups.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mexjax.cpu.ordering import zeros_after
from mexjax.cpu.sums import rows_of_a_block, sum_terms
from mexjax.ops.conv.chunks import padded_block
from mexjax.ops.conv.geometry import (
    OPERATIONS,
    Function,
    Geometry,
    Lowering,
    Pair,
    pad,
    phases,
    taps_of,
)

Compute = Callable[[str, jax.Array, jax.Array, Geometry], jax.Array]

# An output has at most so many terms: 16 channels a group and 3 x 3 taps.
MOST_TERMS = 144
# The weight gradient takes blocks of so many bytes of images and sums; one expression sums so many
# pixels.
BLOCK_BYTES, MOST_PIXELS = 2**21, 32


def _by_groups(x: jax.Array, groups: int) -> jax.Array:
    """The channels f[...,C] as f[...,G,C/G]."""
    return x.reshape(*x.shape[:-1], groups, -1)


def _grouped(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    return _sum_of_taps(x, _by_groups(w, g.groups), g)


def _grouped_input_gradient(dy: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    if g.stride != (1, 1):
        return phases(_grouped)(dy, w, g)
    # The product with a unit matrix transposes w in memory. XLA would keep a plain transposition as
    # a layout in which the channels of a group are not neighbours.
    unit = jnp.eye(w.shape[2])
    w = _by_groups(w[::-1, ::-1].astype(jnp.float32), g.groups).transpose(0, 1, 4, 3, 2)
    kernel = lax.dot_general(w, unit, (((4,), (0,)), ((), ())), precision="highest")
    return _sum_of_taps(dy, kernel, g.turned())


def _sum_of_taps(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    """The convolution of f[N,H,W,C] with f[kh,kw,I/G,G,O/G].

    It sums by kernel row: in one chain of additions each would wait for the one before.
    """
    x = _by_groups(pad(x.astype(jnp.float32), g.padding), g.groups)
    w = w.astype(jnp.float32)
    rows_of = [
        [
            x[:, rows, columns, :, c, None] * w[i, j, c]
            for i, j, rows, columns in taps_of(g)
            if i == row
            for c in range(w.shape[2])
        ]
        for row in range(g.kernel[0])
    ]
    y = sum_terms(sum_terms(terms) for terms in rows_of)
    return _written_down(y.reshape(*y.shape[:3], -1))


def _written_down(y: jax.Array) -> jax.Array:
    """The array y f32[...,C], computed once.

    XLA computes an elementwise result anew in everything that reads it, even one of a hundred
    terms, but never a product. This one, with a unit matrix, takes as long as a copy. It spreads a
    value that is not finite over up to 16 channels of a pixel. With an odd number of channels it is
    only a multiplication by one.
    """
    side = math.gcd(y.shape[-1], 16)
    product = lax.dot(y.reshape(-1, side), jnp.eye(side), precision="highest")
    return product.reshape(y.shape)


def _rows_at_once(size: Pair) -> int:
    """The number of rows of the output that one expression sums, each with all its columns."""
    height, width = size
    fit = [r for r in range(1, height + 1) if height % r == 0 and r * width <= MOST_PIXELS]
    return max(fit, default=1)


def _grouped_weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
    """The sums over pixels within a loop over blocks of images, as for depthwise convolutions."""
    (kh, kw), (s, t), (height, width) = g.kernel, g.stride, g.out_size
    n, per_group, out = x.shape[0], x.shape[-1] // g.groups, dy.shape[-1]
    rows = _rows_at_once(g.out_size)
    steps = height // rows
    parts = [range(w, min(w + MOST_PIXELS, width)) for w in range(0, width, MOST_PIXELS)]
    keys = [(i, part) for i in range(kh) for part in parts]
    image_bytes = 4 * (math.prod(x.shape[1:]) + math.prod(dy.shape[1:]))
    image_bytes += 4 * len(keys) * steps * kw * per_group * out
    images = rows_of_a_block(n, image_bytes, BLOCK_BYTES)

    def body(k: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        xs, dys = (
            _by_groups(padded_block(a, k, images, padding), g.groups)
            for a, padding in ((x, g.padding), (dy, ((0, 0), (0, 0))))
        )

        def term(i: int, r: int, w: int) -> jax.Array:
            """The terms of kernel row i, step row r, column w: f[images,steps,kw,G,I/G,O/G]."""
            start = s * r + i
            lines = slice(start, start + s * rows * (steps - 1) + 1, s * rows)
            return (
                xs[:, lines, t * w : t * w + kw, :, :, None] * dys[:, r::rows, w, None, :, None, :]
            )

        return [
            total + sum_terms(term(i, r, w) for r in range(rows) for w in part)
            for total, (i, part) in zip(sums, keys, strict=True)
        ]

    shape = (images, steps, kw, g.groups, per_group, out // g.groups)
    zeros = [zeros_after(dy, shape, jnp.float32) for _ in keys]
    sums = lax.optimization_barrier(lax.fori_loop(0, n // images, body, zeros))
    by_row = [
        sum_terms(total.sum((0, 1)) for total, (row, _) in zip(sums, keys, strict=True) if row == i)
        for i in range(kh)
    ]
    return jnp.stack(by_row).swapaxes(2, 3).reshape(kh, kw, per_group, out)


def _applies(g: Geometry, channels: int, out: int) -> bool:
    terms = max(channels, out) // g.groups * math.prod(g.kernel)
    return 1 < g.groups < min(channels, out) and terms <= MOST_TERMS


LOWERINGS: dict[str, Lowering] = {
    "grouped": Lowering(
        _grouped, _grouped_input_gradient, _grouped_weight_gradient, _applies, maps=True
    )
}


# ---- one dense convolution a group ---------------------------------------------------------------


def _split(operation: str, compute: Compute, merged: int | None) -> Function:
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
            if operation == "weight_gradient":
                parts.append(_diagonal_blocks(compute(operation, p, q, sub), together))
            else:
                parts.append(compute(operation, p, _block_diagonal(q, together), sub))
        return jnp.concatenate(parts, -1)

    return run


def _block_diagonal(w: jax.Array, groups: int) -> jax.Array:
    """A kernel f[kh,kw,I,g*O] as f[kh,kw,g*I,g*O], zero between different groups."""
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


def _make_split(compute: Compute, merged: int | None = None) -> Lowering:
    def applies(g: Geometry, channels: int, out: int) -> bool:
        per_group = channels // g.groups
        return g.groups > 1 and (merged is None or 2 * per_group <= merged)

    return Lowering(
        *(_split(op, compute, merged) for op in OPERATIONS), applies=applies, in_loop=False
    )


def split_lowerings(compute: Compute) -> dict[str, Lowering]:
    """The lowerings `split`, `merge32` and `merge64`.

    Args:
      compute: `choice.compute`, which picks the lowering of each dense convolution.
    """
    widths = {"split": None, "merge32": 32, "merge64": 64}
    return {name: _make_split(compute, merged) for name, merged in widths.items()}

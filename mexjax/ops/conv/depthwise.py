"""Depthwise convolutions: shifted multiply-adds, without a matrix product."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from mexjax.cpu import is_cpu
from mexjax.cpu.ordering import zeros_after
from mexjax.cpu.sums import rows_of_a_block, sum_terms
from mexjax.ops.conv.chunks import padded_block
from mexjax.ops.conv.geometry import Geometry, Lowering, pad, taps_of, turn

# The weight gradient takes blocks of so many bytes; one expression sums so many columns.
BLOCK_BYTES, MOST_COLUMNS = 2**20, 56


def _depthwise(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    x, w = pad(x, g.padding), w.astype(jnp.float32)
    return sum_terms(x[:, rows, columns] * w[i, j, 0] for i, j, rows, columns in taps_of(g))


def _depthwise_input_gradient(dy: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    """Like `phases`, with one padded array that all residues of the position read."""
    if g.stride == (1, 1):
        return _depthwise(dy, turn(w, g.groups), g.turned())
    (s, t), (kh, kw) = g.stride, g.kernel
    before = ((kh - 1) // s, (kw - 1) // t)
    units = [-(-g.padded[a] // g.stride[a]) for a in range(2)]
    after = [max(0, units[a] - g.out_size[a]) for a in range(2)]
    dy = pad(dy, ((before[0], after[0]), (before[1], after[1])))
    w = w.astype(jnp.float32)

    def residue(r: int, c: int) -> jax.Array:
        # Position s u + r of the padded map is reached from output u - k by tap s k + r.
        terms = [
            dy[:, before[0] - k :, before[1] - m :][:, : units[0], : units[1]]
            * w[s * k + r, t * m + c, 0]
            for k in range(-(-(kh - r) // s))
            for m in range(-(-(kw - c) // t))
        ]
        return (
            sum_terms(terms)
            if terms
            else jnp.zeros((dy.shape[0], *units, dy.shape[-1]), jnp.float32)
        )

    dx = jnp.stack([jnp.stack([residue(r, c) for c in range(t)], 3) for r in range(s)], 2)
    dx = dx.reshape(dx.shape[0], units[0] * s, units[1] * t, -1)
    (top, _), (left, _) = g.padding
    return dx[:, top : top + g.size[0], left : left + g.size[1]]


def _depthwise_weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
    """The sums over columns within a loop over blocks of images, then over rows and images.

    A sum over (n, h, w) at once would be a strided, scalar loop for every channel, and one pass
    over memory for every tap. A block of images (one image if they are large) stays in the cache,
    and one expression sums the taps of a kernel row: its terms, one for each column of the output,
    are slices as wide as the kernel times a pixel.
    """
    if not is_cpu():
        x, dy = pad(x, g.padding), dy.astype(jnp.float32)
        taps = [jnp.sum(x[:, rows, columns] * dy, (0, 1, 2)) for _, _, rows, columns in taps_of(g)]
        return jnp.stack(taps).reshape(*g.kernel, 1, -1)
    (kh, kw), (s, t), (height, width) = g.kernel, g.stride, g.out_size
    n, channels = x.shape[0], x.shape[-1]
    image_bytes = 4 * math.prod(x.shape[1:])
    images = rows_of_a_block(n, image_bytes, BLOCK_BYTES)
    parts = [range(w, min(w + MOST_COLUMNS, width)) for w in range(0, width, MOST_COLUMNS)]
    keys = [(i, part) for i in range(kh) for part in parts]

    def body(k: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        xs = padded_block(x, k, images, g.padding)
        dys = padded_block(dy, k, images, ((0, 0), (0, 0)))

        def term(i: int, w: int) -> jax.Array:
            rows = slice(i, i + s * (height - 1) + 1, s)
            return xs[:, rows, t * w : t * w + kw] * dys[:, :, w, None]

        return [
            total + sum_terms(term(i, w) for w in part)
            for total, (i, part) in zip(sums, keys, strict=True)
        ]

    zeros = [zeros_after(dy, (images, height, kw, channels), jnp.float32) for _ in keys]
    # The remaining sums are small; kept apart from the loop, they stay sums of whole vectors.
    sums = lax.optimization_barrier(lax.fori_loop(0, n // images, body, zeros))
    rows = [
        sum_terms(total.sum((0, 1)) for total, (row, _) in zip(sums, keys, strict=True) if row == i)
        for i in range(kh)
    ]
    return jnp.stack(rows).reshape(kh, kw, 1, channels)


LOWERINGS: dict[str, Lowering] = {
    "depthwise": Lowering(
        _depthwise,
        _depthwise_input_gradient,
        _depthwise_weight_gradient,
        lambda g, channels, out: g.groups == channels == out,
        maps=True,
    )
}

"""Plain matrix products: one of all taps side by side (im2col), or one product a tap (shifted)."""

import math

import jax
import jax.numpy as jnp

from mexjax.cpu.sums import sum_terms
from mexjax.ops.conv.chunks import in_chunks, sum_over_chunks
from mexjax.ops.conv.geometry import (
    Geometry,
    Lowering,
    is_ungrouped,
    matmul,
    pad,
    phases,
    taps_of,
)

# ---- im2col: all taps side by side, one matrix product -------------------------------------------


def patches(x: jax.Array, g: Geometry) -> jax.Array:
    """The taps of every output pixel side by side: f[n,H,W,I] -> f[n,H',W',kh*kw,I]."""
    x = pad(x, g.padding)
    return jnp.stack([x[:, rows, columns] for _, _, rows, columns in taps_of(g)], 3)


def _patch_bytes(x: jax.Array, g: Geometry) -> tuple[int, int]:
    rows = math.prod(g.out_size)
    return math.prod(g.kernel) * rows * x.shape[-1] * x.dtype.itemsize, rows


def _im2col(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    kh, kw, per_group, out = w.shape

    def run(x: jax.Array) -> list[jax.Array]:
        taps = patches(x, g)
        if g.groups == 1:
            y = matmul(taps.reshape(-1, kh * kw * per_group), w.reshape(-1, out))
        else:
            p = taps.reshape(-1, kh * kw, g.groups, per_group).swapaxes(0, 2)
            p = p.swapaxes(1, 2).reshape(g.groups, -1, kh * kw * per_group)
            v = w.reshape(-1, g.groups, out // g.groups).swapaxes(0, 1)
            y = matmul(p, v).swapaxes(0, 1)
        return [y.reshape(-1, *g.out_size, out).astype(x.dtype)]

    return in_chunks(run, x, *_patch_bytes(x, g)).reshape(-1, *g.out_size, out)


im2col_input_gradient = phases(_im2col)


def _im2col_weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
    kh, kw = g.kernel
    per_group, out = x.shape[-1] // g.groups, dy.shape[-1]

    def run(x: jax.Array, dy: jax.Array) -> jax.Array:
        taps = patches(x, g)
        if g.groups == 1:
            return matmul(taps.reshape(-1, kh * kw * per_group).T, dy.reshape(-1, out))
        p = taps.reshape(-1, kh * kw, g.groups, per_group).transpose(2, 1, 3, 0)
        d = dy.reshape(-1, g.groups, out // g.groups).swapaxes(0, 1)
        dw = matmul(p.reshape(g.groups, kh * kw * per_group, -1), d)
        return dw.swapaxes(0, 1).reshape(-1, out)

    shape = (kh * kw * per_group, out)
    dw = sum_over_chunks(run, x, dy, shape, *_patch_bytes(x, g))
    return dw.reshape(kh, kw, per_group, out)


# ---- shifted: one matrix product per tap, summed -------------------------------------------------


def _shifted(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    x = pad(x, g.padding)
    return sum_terms(matmul(x[:, rows, columns], w[i, j]) for i, j, rows, columns in taps_of(g))


def _shifted_weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
    x, channels = pad(x, g.padding), x.shape[-1]
    dy = dy.reshape(-1, dy.shape[-1])
    taps = [
        matmul(x[:, rows, columns].reshape(-1, channels).T, dy)
        for _, _, rows, columns in taps_of(g)
    ]
    return jnp.stack(taps).reshape(*g.kernel, channels, -1)


LOWERINGS: dict[str, Lowering] = {
    "im2col": Lowering(_im2col, im2col_input_gradient, _im2col_weight_gradient, lambda *_: True),
    "shifted": Lowering(_shifted, phases(_shifted), _shifted_weight_gradient, is_ungrouped),
}

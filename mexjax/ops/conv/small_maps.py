"""Maps of a few pixels, patches that do not overlap, and many channels to a few."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mexjax.cpu.ordering import copy_after
from mexjax.cpu.sums import sum_terms
from mexjax.ops.conv.geometry import Geometry, Lowering, Pair, matmul, pad, taps_of
from mexjax.ops.conv.im2col import im2col_input_gradient, patches
from mexjax.ops.products import sum_of_outer_products

# With more output channels than these, a Winograd form has fewer products.
MOST_OUTPUTS = 4

# ---- tiny maps: the whole map is one vector ------------------------------------------------------


def _tap_of(g: Geometry) -> np.ndarray:
    """The tap that joins an input position to an output position, i32[H*W,H'*W'] (kh*kw: none)."""
    axes = []
    for a in range(2):
        tap = np.arange(g.size[a])[:, None] + g.padding[a][0]
        tap = tap - np.arange(g.out_size[a]) * g.stride[a]
        axes.append(np.where((tap >= 0) & (tap < g.kernel[a]), tap, -1))
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    tap = np.where(
        (rows < 0) | (columns < 0), g.kernel[0] * g.kernel[1], rows * g.kernel[1] + columns
    )
    return tap.reshape(g.size[0] * g.size[1], -1)


def _unrolled_kernel(w: jax.Array, g: Geometry, x: jax.Array) -> jax.Array:
    """A kernel f[kh,kw,I/g,O] as matrices f[g,H*W*I/g,H'*W'*O/g], made no earlier than x."""
    tap_of = _tap_of(g)
    w = copy_after(w, x).reshape(g.kernel[0] * g.kernel[1], w.shape[2], g.groups, -1)
    w = w.swapaxes(1, 2)
    taps = [*w, jnp.zeros_like(w[0])]
    rows = [jnp.concatenate([taps[t] for t in row], -1) for row in tap_of]
    return jnp.concatenate(rows, 1)


def _vectors(x: jax.Array, g: Geometry) -> jax.Array:
    """The map of every group as one vector: f[N,h,w,C] -> f[g,N,h*w*C/g]."""
    n, channels = x.shape[0], x.shape[-1]
    if g.groups == 1:
        return x.reshape(1, n, -1)
    return (
        x.reshape(n, -1, g.groups, channels // g.groups)
        .transpose(2, 0, 1, 3)
        .reshape(g.groups, n, -1)
    )


def _maps(vectors: jax.Array, size: Pair) -> jax.Array:
    """The inverse of `_vectors`, for maps of `size`."""
    groups, n, _ = vectors.shape
    x = vectors.reshape(groups, n, size[0] * size[1], -1).transpose(1, 2, 0, 3)
    return x.reshape(n, *size, -1)


def _dense_map(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    return _maps(matmul(_vectors(x, g), _unrolled_kernel(w, g, x)), g.out_size)


def _dense_map_input_gradient(dy: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    contract = (((2,), (2,)), ((0,), (0,)))  # a sum over the outputs for each group
    kernel = _unrolled_kernel(w, g, dy)
    dx = lax.dot_general(_vectors(dy, g), kernel, contract, preferred_element_type=jnp.float32)
    return _maps(dx, g.size)


def _dense_map_weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
    per_group, out = x.shape[-1] // g.groups, dy.shape[-1]
    tap_of = _tap_of(g)
    blocks = matmul(_vectors(x, g).swapaxes(1, 2), _vectors(dy, g))
    blocks = blocks.reshape(g.groups, tap_of.shape[0], per_group, tap_of.shape[1], -1)
    taps = []
    for t in range(g.kernel[0] * g.kernel[1]):
        terms = [blocks[:, p, :, q] for p, q in np.argwhere(tap_of == t)]
        taps.append(sum_terms(terms) if terms else jnp.zeros_like(blocks[:, 0, :, 0]))
    return jnp.stack(taps).swapaxes(1, 2).reshape(*g.kernel, per_group, out)


# ---- patches that do not overlap: kernel == stride, no padding -----------------------------------


def _patchify_rows(x: jax.Array, g: Geometry) -> jax.Array:
    """The patches of f[N,H,W,I] as rows f[N*H'*W',kh*kw*I]."""
    (kh, kw), (h, w) = g.kernel, g.out_size
    x = x[:, : h * kh, : w * kw].reshape(-1, h, kh, w, kw, x.shape[-1])
    return x.swapaxes(2, 3).reshape(-1, kh * kw * x.shape[-1])


def _patchify(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    y = matmul(_patchify_rows(x, g), w.reshape(-1, w.shape[-1]))
    return y.reshape(-1, *g.out_size, w.shape[-1])


def _patchify_input_gradient(dy: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    (kh, kw), (h, width), channels = g.kernel, g.out_size, w.shape[2]
    dx = matmul(dy.reshape(-1, dy.shape[-1]), w.reshape(-1, w.shape[-1]).T)
    dx = dx.reshape(-1, h, width, kh, kw, channels).swapaxes(2, 3)
    dx = dx.reshape(-1, h * kh, width * kw, channels)
    rest = [(0, g.size[a] - g.out_size[a] * g.kernel[a]) for a in range(2)]
    return jnp.pad(dx, ((0, 0), *rest, (0, 0)))


def _patchify_weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
    dw = matmul(_patchify_rows(x, g).T, dy.reshape(-1, dy.shape[-1]))
    return dw.reshape(*g.kernel, x.shape[-1], -1)


# ---- many channels to a few: the taps on the side of the output ----------------------------------


def _few_outputs(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    """One product for all taps at every position; then each position adds its neighbours' taps."""
    kw, channels, out = w.shape[1:]
    z = matmul(x.reshape(-1, channels), w.transpose(2, 0, 1, 3).reshape(channels, -1))
    z = pad(z.reshape(*x.shape[:3], -1), g.padding)
    return sum_terms(
        z[:, rows, columns, (i * kw + j) * out :][..., :out] for i, j, rows, columns in taps_of(g)
    )


def _few_outputs_weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
    """A product with patches of dy, which has few channels; x is read once."""
    kh, kw = g.kernel
    channels, out = x.shape[-1], dy.shape[-1]
    taps = patches(dy, g.turned()).reshape(-1, kh * kw * out)
    dw = sum_of_outer_products(x.reshape(-1, channels), taps).reshape(channels, kh, kw, out)
    return dw[:, ::-1, ::-1].transpose(1, 2, 0, 3)


LOWERINGS: dict[str, Lowering] = {
    "few_outputs": Lowering(
        _few_outputs,
        im2col_input_gradient,  # its patches have few channels
        _few_outputs_weight_gradient,
        lambda g, channels, out: (
            g.groups == 1
            and g.stride == (1, 1)
            and out <= MOST_OUTPUTS
            and out * math.prod(g.kernel) <= channels
        ),
    ),
    "dense_map": Lowering(
        _dense_map,
        _dense_map_input_gradient,
        _dense_map_weight_gradient,
        lambda g, *_: max(g.size + g.out_size) <= 4,
    ),
    "patchify": Lowering(
        _patchify,
        _patchify_input_gradient,
        _patchify_weight_gradient,
        lambda g, *_: g.groups == 1 and g.kernel == g.stride and g.padding == ((0, 0), (0, 0)),
    ),
}

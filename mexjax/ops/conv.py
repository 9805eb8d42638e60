"""Two-dimensional convolution that stays fast under a fold axis.

`jax.vmap` over the weights of a convolution makes one grouped convolution of it, which no backend
runs well.  Here the forward pass and the two gradients are three functions, each with its own
batching rule that emits one plain convolution per fold; `jax.custom_vjp` joins them.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Padding = str | tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What is static about a convolution: stride (rows, columns), padding, groups."""

    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    groups: int


_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _native(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    return lax.conv_general_dilated(
        x, w, geometry.stride, geometry.padding, dimension_numbers=_DIMENSIONS
    )


def _native_dx(
    dy: jax.Array, w: jax.Array, geometry: Geometry, size: tuple[int, int]
) -> jax.Array:
    """f[N,H',W',O] -> f[N,H,W,I]: dy, spread out by the stride, convolved with the turned kernel."""
    padding = []
    for axis in range(2):
        before = w.shape[axis] - 1 - geometry.padding[axis][0]
        spread = (dy.shape[1 + axis] - 1) * geometry.stride[axis] + 1
        padding.append((before, size[axis] + w.shape[axis] - 1 - spread - before))
    turned = w[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(
        dy, turned, (1, 1), padding, lhs_dilation=geometry.stride, dimension_numbers=_DIMENSIONS
    )


def _native_dw(
    x: jax.Array, dy: jax.Array, geometry: Geometry, kernel: tuple[int, int]
) -> jax.Array:
    """x with channels as the batch, convolved with dy, dilated by the stride, as the kernel."""
    padding = []
    for axis in range(2):
        before = geometry.padding[axis][0]
        spread = (dy.shape[1 + axis] - 1) * geometry.stride[axis] + 1
        padding.append((before, kernel[axis] - 1 + spread - x.shape[1 + axis] - before))
    return lax.conv_general_dilated(
        x,
        dy,
        (1, 1),
        padding,
        rhs_dilation=geometry.stride,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )


def _taps(size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]):
    """(i, j, start, end, step of the slice of the padded rows and columns) of every tap."""
    out_h, out_w = ((size[a] - kernel[a]) // stride[a] for a in range(2))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            yield i, j, (i, j), (i + out_h * stride[0] + 1, j + out_w * stride[1] + 1)


def _pad(x: jax.Array, geometry: Geometry) -> jax.Array:
    return jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))


def _depthwise(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """Shifted multiply-adds for groups == I == O."""
    x = _pad(x, geometry)
    sh, sw = geometry.stride
    return sum(
        x[:, a:c:sh, b:d:sw] * w[i, j, 0]
        for i, j, (a, b), (c, d) in _taps(x.shape[1:3], w.shape[:2], geometry.stride)
    )


def _depthwise_dx(
    dy: jax.Array, w: jax.Array, geometry: Geometry, size: tuple[int, int]
) -> jax.Array:
    padded = [size[a] + sum(geometry.padding[a]) for a in range(2)]
    total = 0.0
    for i, j, start, end in _taps(padded, w.shape[:2], geometry.stride):
        spread = [
            (start[a] - geometry.padding[a][0],
             padded[a] - end[a] - geometry.padding[a][1],
             geometry.stride[a] - 1)
            for a in range(2)
        ]  # fmt: skip
        zero = jnp.zeros((), dy.dtype)
        total += lax.pad(dy * w[i, j, 0], zero, [(0, 0, 0), *spread, (0, 0, 0)])
    return total


def _depthwise_dw(
    x: jax.Array, dy: jax.Array, geometry: Geometry, kernel: tuple[int, int]
) -> jax.Array:
    x = _pad(x, geometry)
    sh, sw = geometry.stride
    taps = [
        jnp.einsum("nhwc,nhwc->c", x[:, a:c:sh, b:d:sw], dy)
        for _, _, (a, b), (c, d) in _taps(x.shape[1:3], kernel, geometry.stride)
    ]
    return jnp.stack(taps).reshape(*kernel, 1, -1)


def _by_group(plain, depthwise):
    """Chooses between plain, depthwise, and one plain convolution per group."""

    def run(a, b, geometry, *args):
        groups = geometry.groups
        if groups == 1:
            return plain(a, b, geometry, *args)
        if groups == a.shape[-1] == b.shape[-1]:
            return depthwise(a, b, geometry, *args)
        pairs = zip(jnp.split(a, groups, -1), jnp.split(b, groups, -1), strict=True)
        return jnp.concatenate([plain(p, q, geometry, *args) for p, q in pairs], -1)

    return run


_forward = _by_group(_native, _depthwise)
_input_gradient = _by_group(_native_dx, _depthwise_dx)
_weight_gradient = _by_group(_native_dw, _depthwise_dw)


def _per_fold(function: Callable[[jax.Array, jax.Array], jax.Array], may_fold: bool):
    """Gives `function(a, b)` a batching rule: one plain call per fold, joined by a stack.

    may_fold: an axis carried by `a` alone is merged into the leading axis of `a`.
    """
    op = jax.custom_batching.custom_vmap(function)

    @op.def_vmap
    def rule(axis_size, in_batched, a, b):
        a_batched, b_batched = in_batched
        if may_fold and not b_batched:
            y = op(a.reshape(-1, *a.shape[2:]), b)
            return y.reshape(axis_size, -1, *y.shape[1:]), True
        folds = range(axis_size)
        return jnp.stack([op(a[i] if a_batched else a, b[i] if b_batched else b) for i in folds]), True

    return op


@functools.cache
def _make_conv(geometry: Geometry, size: tuple[int, int], kernel: tuple[int, int]):
    forward = _per_fold(lambda x, w: _forward(x, w, geometry), may_fold=True)
    dx = _per_fold(lambda dy, w: _input_gradient(dy, w, geometry, size), may_fold=True)
    dw = _per_fold(lambda x, dy: _weight_gradient(x, dy, geometry, kernel), may_fold=False)

    conv = jax.custom_vjp(forward)
    conv.defvjp(
        lambda x, w: (forward(x, w), (x, w)), lambda xw, dy: (dx(dy, xw[1]), dw(xw[0], dy))
    )
    return conv


def _vary_alike(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inside `shard_map`, lets both arrays vary over the mesh axes that either varies over.

    Outside of the custom derivative, so that the gradient of a shared array is summed over the mesh.
    """
    axes = [jax.typeof(a).manual_axis_type.varying for a in (x, w)]
    to_varying = [tuple(sorted((axes[0] | axes[1]) - own)) for own in axes]
    x, w = (
        lax.pcast(a, missing, to="varying") if missing else a
        for a, missing in zip((x, w), to_varying, strict=True)
    )
    return x, w


def conv2d(
    x: jax.Array,
    w: jax.Array,
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "same_torch",
    groups: int = 1,
) -> jax.Array:
    """Convolves (cross-correlates) images with a kernel.

    Args:
      x: f[N,H,W,I].
      w: f[kh,kw,I/groups,O].
      stride: step in rows and columns.
      padding: `((top, bottom), (left, right))`, or "same_torch": k // 2 on every side.
      groups: number of channel groups; it divides I and O.

    Returns:
      f[N,H',W',O], H' = (H + top + bottom - kh) // stride + 1.
    """
    kh, kw, per_group, out = w.shape
    if x.ndim != 4 or per_group * groups != x.shape[-1] or out % groups:
        raise ValueError(
            f"conv2d: expected x [N,H,W,I] and w [kh,kw,I/groups,O] with groups={groups}; "
            f"found x {x.shape}, w {w.shape}"
        )
    if padding == "same_torch":
        padding = ((kh // 2, kh // 2), (kw // 2, kw // 2))
    stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
    dtype = jnp.promote_types(x.dtype, w.dtype)
    x, w = x.astype(dtype), w.astype(dtype)
    padding = tuple(map(tuple, padding))
    is_pointwise = (kh, kw, groups) == (1, 1, 1) and padding == ((0, 0), (0, 0))
    if is_pointwise:
        return jnp.matmul(x[:, :: stride[0], :: stride[1]], w[0, 0])
    geometry = Geometry(stride, padding, groups)
    x, w = _vary_alike(x, w)
    return _make_conv(geometry, x.shape[1:3], (kh, kw))(x, w)


def conv2d_transpose(x: jax.Array, w: jax.Array, *, stride: int) -> jax.Array:
    """Transposed convolution whose kernel equals its stride (no overlap).

    Args:
      x: f[N,H,W,I].
      w: f[k,k,I,O] with k == stride.

    Returns:
      f[N,H*k,W*k,O].
    """
    kh, kw, channels, out = w.shape
    if not kh == kw == stride or channels != x.shape[-1]:
        raise ValueError(
            f"conv2d_transpose: expected w [{stride},{stride},{x.shape[-1]},O] (kernel == stride); "
            f"found {w.shape}"
        )
    n, h, width, _ = x.shape
    y = jnp.einsum("nhwi,abio->nhawbo", x, w)
    return y.reshape(n, h * stride, width * stride, out)

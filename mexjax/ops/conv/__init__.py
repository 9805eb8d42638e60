"""Two-dimensional convolution that stays fast under a fold axis.

`jax.vmap` over the weights of a convolution makes one grouped convolution of it, which no backend
runs well. Here the forward pass and the two gradients are three functions, each with a batching
rule of its own that computes one fold at a time, or on a GPU the folds of a small layer as groups
of one convolution; `jax.custom_vjp` joins them. How a fold is computed is chosen per layer,
platform and dtype while tracing (`mexjax.ops.conv.choice`).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mexjax.cpu import is_cpu
from mexjax.ops import products
from mexjax.ops.conv.choice import (
    LOWERINGS,
    choose,
    compute,
    current_lowering,
    layer_of,
    record_layers,
    use_lowering,
)
from mexjax.ops.conv.geometry import Geometry
from mexjax.ops.conv.native import folds_as_groups
from mexjax.ops.mesh import vary_alike

__all__ = ["LOWERINGS", "conv2d", "conv2d_transpose", "record_layers", "use_lowering"]

Padding = str | tuple[tuple[int, int], tuple[int, int]]


@functools.cache
def _make_operation(operation: str, geometry: Geometry, name: str | None, is_fixed: bool = False):
    """One operation of the convolution, with its batching rule.

    Args:
      operation: "forward", "input_gradient" or "weight_gradient".
      geometry: the static part of the layer.
      name: lowering to use, None for the choice.
      is_fixed: `name` is the choice already made for the loop over folds around this call.
    """

    def lowering_of(a: jax.Array, b: jax.Array, num_folds: int = 1) -> str:
        if name is not None and is_fixed:
            return name
        return choose(operation, layer_of(operation, a, b, geometry), name, num_folds)

    @jax.custom_batching.custom_vmap
    def run(a: jax.Array, b: jax.Array) -> jax.Array:
        return compute(operation, a, b, geometry, lowering_of(a, b))

    @run.def_vmap
    def rule(num_folds: int, is_batched: tuple[bool, bool], a: jax.Array, b: jax.Array):
        a_is_batched, b_is_batched = is_batched
        if not b_is_batched and operation != "weight_gradient":
            y = run(a.reshape(-1, *a.shape[2:]), b)  # shared weights: folds are more images
            return y.reshape(num_folds, -1, *y.shape[1:]), True
        if not a_is_batched and operation != "input_gradient" and geometry.groups == 1:
            b = jnp.moveaxis(b, 0, -2)  # shared images: folds are more output channels
            y = run(a, b.reshape(*b.shape[:-2], -1))
            y = y.reshape(*y.shape[:-1], num_folds, -1)
            return jnp.moveaxis(y, -2, 0), True
        fold = [x[0] if is_mapped else x for x, is_mapped in zip((a, b), is_batched, strict=True)]
        are_both = a_is_batched and b_is_batched
        lowering = lowering_of(fold[0], fold[1], num_folds if are_both else 1)
        if lowering == "native_folds" and are_both:
            return folds_as_groups(operation, a, b, geometry).astype(a.dtype), True
        if LOWERINGS[lowering].maps:
            axes = tuple(0 if is_mapped else None for is_mapped in is_batched)
            each = functools.partial(compute, operation, g=geometry, name=lowering)
            return jax.vmap(each, axes)(a, b), True
        if LOWERINGS[lowering].in_loop and is_cpu():
            body = _make_operation(operation, geometry, lowering, is_fixed=True)
            if a_is_batched and b_is_batched:
                return lax.map(lambda pair: body(*pair), (a, b)), True
            if a_is_batched:
                return lax.map(lambda x: body(x, b), a), True
            return lax.map(lambda x: body(a, x), b), True
        folds = [
            run(a[i] if a_is_batched else a, b[i] if b_is_batched else b) for i in range(num_folds)
        ]
        return jnp.stack(folds), True

    return run


@functools.cache
def _make_convolution(geometry: Geometry, name: str | None):
    forward, input_gradient, weight_gradient = (
        _make_operation(operation, geometry, name)
        for operation in ("forward", "input_gradient", "weight_gradient")
    )

    def run_forward(x: jax.Array, w: jax.Array):
        return forward(x, w), (x, w)

    def run_backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array):
        x, w = saved
        return input_gradient(dy, w), weight_gradient(x, dy)

    convolution = jax.custom_vjp(forward)
    convolution.defvjp(run_forward, run_backward)
    return convolution


def conv2d(
    x: jax.Array,
    w: jax.Array,
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "same_torch",
    groups: int = 1,
) -> jax.Array:
    """Convolve (cross-correlate) images with a kernel.

    It has one derivative, in reverse mode. Under `vmap` over `w` each fold is computed by itself.

    Args:
      x: f[N,H,W,I].
      w: f[kh,kw,I/groups,O].
      stride: step in rows and columns.
      padding: `((top, bottom), (left, right))` in pixels, or "same_torch": k // 2 on every side.
      groups: number of channel groups; it divides I and O.

    Returns:
      f[N,H',W',O], H' = (H + top + bottom - kh) // stride + 1, in the promoted dtype of `x`, `w`.

    Raises:
      ValueError: the shapes do not fit together, or nothing is left of the map.
    """
    if x.ndim != 4 or w.ndim != 4 or w.shape[2] * groups != x.shape[-1] or w.shape[3] % groups:
        raise ValueError(
            f"conv2d: expected x [N,H,W,I] and w [kh,kw,I/groups,O] with groups={groups} "
            f"dividing O; found x {x.shape}, w {w.shape}"
        )
    kernel = w.shape[0], w.shape[1]
    if padding == "same_torch":
        padding = ((kernel[0] // 2, kernel[0] // 2), (kernel[1] // 2, kernel[1] // 2))
    elif isinstance(padding, str):
        raise ValueError(
            f"conv2d: found padding={padding!r}; expected 'same_torch' or ((top, bottom), "
            "(left, right))"
        )
    steps = (stride, stride) if isinstance(stride, int) else (stride[0], stride[1])
    (top, bottom), (left, right) = padding
    size = x.shape[1], x.shape[2]
    geometry = Geometry(size, kernel, steps, ((top, bottom), (left, right)), groups)
    if min(geometry.out_size) < 1:
        raise ValueError(
            f"conv2d: a kernel of {kernel} does not fit into a map of {size} padded by {padding}"
        )
    dtype = jnp.promote_types(x.dtype, w.dtype)
    x, w = x.astype(dtype), w.astype(dtype)
    if kernel == (1, 1) and groups == 1 and geometry.padded == geometry.size:
        return products.matmul(x[:, :: steps[0], :: steps[1]], w[0, 0])
    return _make_convolution(geometry, current_lowering())(*vary_alike(x, w))


def conv2d_transpose(x: jax.Array, w: jax.Array, *, stride: int) -> jax.Array:
    """Transposed convolution whose kernel equals its stride (no overlap).

    Args:
      x: f[N,H,W,I].
      w: f[k,k,I,O] with k == stride; w[i,j] gives the output pixel (k h + i, k w + j).
      stride: k, step in rows and columns.

    Returns:
      f[N,H*k,W*k,O].

    Raises:
      ValueError: kernel and stride differ, or the channels do not fit.
    """
    kh, kw, channels, out = w.shape
    if not kh == kw == stride or channels != x.shape[-1]:
        raise ValueError(
            f"conv2d_transpose: expected w [{stride},{stride},{x.shape[-1]},O] (kernel == stride, "
            f"I of x); found {w.shape}"
        )
    n, h, width, _ = x.shape
    kernel = w.transpose(2, 0, 1, 3).reshape(channels, -1)
    y = products.matmul(x, kernel).reshape(n, h, width, kh, kw, out)
    return y.swapaxes(2, 3).reshape(n, h * kh, width * kw, out)

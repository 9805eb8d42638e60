"""XLA's own convolution, whole or in parts."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax

from mexjax.cpu import is_cpu
from mexjax.cpu.sums import sum_terms
from mexjax.ops.conv.geometry import Function, Geometry, Lowering, turn

# A convolution is split into at most so many parts, few or many; one of more weights is not split
# into many.
FEW_PARTS, MANY_PARTS, MOST_WEIGHTS = 4, 36, 2**18
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _native(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    return lax.conv_general_dilated(
        x, w, g.stride, g.padding, dimension_numbers=_DIMENSIONS, feature_group_count=g.groups
    )


def _native_input_gradient(dy: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    """The output gradient, spread out by the stride, convolved with the turned kernel."""
    padding = []
    for a in range(2):
        before = g.kernel[a] - 1 - g.padding[a][0]
        spread = (g.out_size[a] - 1) * g.stride[a] + 1
        padding.append((before, g.size[a] + g.kernel[a] - 1 - spread - before))
    if g.groups == 1 and not is_cpu():
        # XLA finds cuDNN's own input gradient if the kernel is turned, but not transposed.
        # Otherwise it convolves with the padded gradient: at stride 2, four times the operations.
        return lax.conv_general_dilated(
            dy,
            lax.rev(w, (0, 1)),
            (1, 1),
            padding,
            lhs_dilation=g.stride,
            dimension_numbers=("NHWC", "HWOI", "NHWC"),
        )
    return lax.conv_general_dilated(
        dy,
        turn(w, g.groups),
        (1, 1),
        padding,
        lhs_dilation=g.stride,
        dimension_numbers=_DIMENSIONS,
        feature_group_count=g.groups,
    )


def _native_weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
    """A convolution with channels as its batch and the output gradient as its kernel."""
    padding = []
    for a in range(2):
        before = g.padding[a][0]
        spread = (g.out_size[a] - 1) * g.stride[a] + 1
        padding.append((before, g.kernel[a] - 1 + spread - g.size[a] - before))
    return lax.conv_general_dilated(
        x,
        dy,
        (1, 1),
        padding,
        rhs_dilation=g.stride,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        batch_group_count=g.groups,
    )


def _parts(n: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if n % d == 0)


def _native_parts(most: int) -> Lowering:
    """A lowering by at most `most` convolutions, each of as many images.

    XLA:CPU runs one convolution on one core, several convolutions on several; those of few images
    stay in the cache. The price of many is their compilation, and a kernel for each of them in the
    weight gradient, so that only small kernels have many.
    """

    def by_parts(function: Function) -> Function:
        def run(a: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
            parts = jnp.split(a, _parts(a.shape[0], most))
            return jnp.concatenate([function(p, w, g) for p in parts])

        return run

    def weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
        pairs = zip(*(jnp.split(a, _parts(a.shape[0], most)) for a in (x, dy)), strict=True)
        return sum_terms(_native_weight_gradient(p, q, g).astype(jnp.float32) for p, q in pairs)

    def applies(g: Geometry, channels: int, out: int) -> bool:
        size = math.prod(g.kernel) * channels * out
        return g.groups == 1 and (most <= FEW_PARTS or size <= MOST_WEIGHTS)

    return Lowering(
        by_parts(_native),
        by_parts(_native_input_gradient),
        weight_gradient,
        applies,
        in_loop=False,
    )


_NATIVE = Lowering(
    _native, _native_input_gradient, _native_weight_gradient, lambda *_: True, in_loop=False
)


def folds_as_groups(operation: str, a: jax.Array, b: jax.Array, g: Geometry) -> jax.Array:
    """One operation of several folds as one convolution with a group, or several, for each fold.

    Args:
      operation: "forward", "input_gradient" or "weight_gradient".
      a: f[k,N,...], the first argument of the operation with a leading fold axis.
      b: f[k,...], the second one.
      g: the convolution of one fold.

    Returns:
      f[k,...], the results of the folds.
    """
    num_folds = a.shape[0]
    a, b = (jnp.moveaxis(x, 0, -2) for x in (a, b))
    a, b = (x.reshape(*x.shape[:-2], -1) for x in (a, b))
    function = getattr(_NATIVE, operation)
    y = function(a, b, dataclasses.replace(g, groups=num_folds * g.groups))
    return jnp.moveaxis(y.reshape(*y.shape[:-1], num_folds, -1), -2, 0)


LOWERINGS: dict[str, Lowering] = {
    "native": _NATIVE,
    "native_folds": _NATIVE,  # several folds are groups of one convolution, see `folds_as_groups`
    "native_parts": _native_parts(FEW_PARTS),
    "native_many": _native_parts(MANY_PARTS),
}

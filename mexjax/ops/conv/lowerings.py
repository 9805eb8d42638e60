"""The ways in which a convolution can be computed ("lowerings"), each with its two gradients.

A lowering is three functions of a `Geometry`:

    forward(x, w)          f[N,H,W,I], f[kh,kw,I/groups,O] -> f[N,H',W',O]
    input_gradient(dy, w)  f[N,H',W',O], f[kh,kw,I/groups,O] -> f[N,H,W,I]
    weight_gradient(x, dy) f[N,H,W,I], f[N,H',W',O] -> f[kh,kw,I/groups,O]

All of them compute the same numbers up to rounding; they differ in speed only.  Sums are carried in
float32, whatever the dtype of the arrays.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mexjax.cpu.ordering import room_after, zeros_after

Pair = tuple[int, int]
Function = Callable[[jax.Array, jax.Array, "Geometry"], jax.Array]

# A chunk of images is sized so that what it unfolds to stays in the second-level cache.
CHUNK_BYTES = 2**21
MIN_CHUNK_ROWS = 128
# Convolutions that one is taken apart into, and the weights of one that is into many.
FEW_PARTS, MANY_PARTS, MOST_WEIGHTS = 4, 36, 2**18


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What is static about a convolution, apart from the batch and the channels."""

    size: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    groups: int = 1

    @property
    def padded(self) -> Pair:
        return tuple(self.size[a] + sum(self.padding[a]) for a in range(2))

    @property
    def out_size(self) -> Pair:
        return tuple((self.padded[a] - self.kernel[a]) // self.stride[a] + 1 for a in range(2))

    def turned(self) -> "Geometry":
        """The convolution (stride 1) that gives the input gradient of this one."""
        padding = tuple(
            (self.kernel[a] - 1 - self.padding[a][0], self.kernel[a] - 1 - self.padding[a][1])
            for a in range(2)
        )
        return dataclasses.replace(self, size=self.out_size, padding=padding)


@dataclasses.dataclass(frozen=True)
class Lowering:
    """Three functions, where they apply, and how XLA:CPU runs them well for several folds.

    `in_loop` is false for whatever calls XLA's own convolution: within a `while`, its gradients are
    tens of times slower on CPU. `maps` is true for elementwise sums: with a fold axis they stay
    what they are, whereas XLA joins them with how a loop writes its results, into scalar code.
    """

    forward: Function
    input_gradient: Function
    weight_gradient: Function
    applies: Callable[[Geometry, int, int], bool]
    in_loop: bool = True
    maps: bool = False


def turn(w: jax.Array, groups: int = 1) -> jax.Array:
    """Mirrors the taps and swaps input and output channels: f[kh,kw,I/g,O] -> f[kh,kw,O/g,I]."""
    kh, kw, per_group, out = w.shape
    w = w[::-1, ::-1].reshape(kh, kw, per_group, groups, out // groups)
    return w.transpose(0, 1, 4, 3, 2).reshape(kh, kw, out // groups, groups * per_group)


def pad(x: jax.Array, padding: tuple[Pair, Pair]) -> jax.Array:
    """Zeros around the rows and columns (a negative width crops).

    The barrier keeps the border test out of the loops that read the padded array.
    """
    if padding == ((0, 0), (0, 0)):
        return x
    widths = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), widths))


def taps_of(g: Geometry) -> Iterator[tuple[int, int, slice, slice]]:
    """(i, j, rows, columns) of every tap of the kernel, as slices of the padded map."""
    for i in range(g.kernel[0]):
        for j in range(g.kernel[1]):
            yield (
                i,
                j,
                *(
                    slice(start, start + (g.out_size[a] - 1) * g.stride[a] + 1, g.stride[a])
                    for a, start in enumerate((i, j))
                ),
            )


def add(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def varying_axes(x: jax.Array) -> frozenset[str]:
    """The `shard_map` mesh axes over which `x` varies (none outside of `shard_map`)."""
    kind = jax.typeof(x)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying


def vary_alike(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inside `shard_map`, lets both arrays vary over the mesh axes that either varies over.

    This is outside of the custom derivative, so that the gradient of an array which the devices
    share is summed over them.
    """
    axes = [varying_axes(a) for a in (x, w)]
    missing = [tuple(sorted((axes[0] | axes[1]) - own)) for own in axes]
    if missing[0]:
        x = lax.pcast(x, missing[0], to="varying")
    if missing[1]:
        w = lax.pcast(w, missing[1], to="varying")
    return x, w


def _chunk(n: int, image_bytes: int, image_rows: int, min_rows: int = 0) -> int:
    """Images to compute at once, of a batch of n: all of them, or an odd number.

    Odd, because arrays whose sizes are multiples of 4 KiB compete for the same lines of the
    first-level cache when tens of them are read side by side (measured: up to twice as slow).
    """
    most = max(CHUNK_BYTES // image_bytes, -(-(min_rows or MIN_CHUNK_ROWS) // image_rows), 1)
    if jax.default_backend() != "cpu" or n <= most:
        return n
    return min(n, -(-n // -(-n // most)) | 1)


def _starts(n: int, chunk: int) -> tuple[int, Callable[[jax.Array], jax.Array]]:
    """Number of chunks, and where each starts; the last overlaps the one before if it must."""
    return -(-n // chunk), lambda i: jnp.minimum(i * chunk, n - chunk)


def in_chunks(
    function: Callable[[jax.Array], list[jax.Array]],
    x: jax.Array,
    image_bytes: int,
    image_rows: int,
    min_rows: int = 0,
) -> jax.Array:
    """`function(x)` by chunks of images, each small enough to be unfolded within the cache.

    Args:
      function: f[n,...] -> p arrays f[n,a,...], image by image.
      x: f[N,...].
      image_bytes: size of what `function` unfolds one image to.
      image_rows: rows of its matrix product per image.
      min_rows: rows that the product should have, even where they unfold to more than the cache;
        0: MIN_CHUNK_ROWS.

    Returns:
      f[N,a,p,...], the p arrays side by side.
    """
    n = x.shape[0]
    chunk = _chunk(n, image_bytes, image_rows, min_rows)
    if chunk == n:
        return jnp.stack(function(x), 2)
    count, start_of = _starts(n, chunk)

    def body(i: jax.Array, y: jax.Array) -> jax.Array:
        start = start_of(i)
        # Each goes to its place by itself: side by side first, they would be copied once more.
        for k, part in enumerate(function(lax.dynamic_slice_in_dim(x, start, chunk))):
            at = (start, 0, k, *[0] * (part.ndim - 2))
            y = lax.dynamic_update_slice(y, part[:, :, None], at)
        return y

    parts = jax.eval_shape(function, jax.ShapeDtypeStruct((chunk, *x.shape[1:]), x.dtype))
    _, height, *rest = parts[0].shape
    y = room_after(x, (n, height, len(parts), *rest), parts[0].dtype)
    return lax.fori_loop(0, count, body, y)


def sum_over_chunks(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    dy: jax.Array,
    shape: tuple[int, ...],
    image_bytes: int,
    image_rows: int,
) -> jax.Array:
    """As `in_chunks`, for `function(x, dy) -> f32[shape]` that sums over images."""
    n = x.shape[0]
    chunk = _chunk(n, image_bytes, image_rows)
    if chunk == n:
        return function(x, dy)
    count, start_of = _starts(n, chunk)

    def body(i: jax.Array, total: jax.Array) -> jax.Array:
        start = start_of(i)
        parts = [lax.dynamic_slice_in_dim(a, start, chunk) for a in (x, dy)]
        if n % chunk:  # images of the overlap were counted before
            is_new = start + jnp.arange(chunk) >= i * chunk
            parts[1] = jnp.where(is_new[:, None, None, None], parts[1], 0)
        return total + function(*parts)

    return lax.fori_loop(0, count, body, zeros_after(x, shape, jnp.float32))


def images_of_a_block(n: int, image_bytes: int, block_bytes: int) -> int:
    """The most images (or rows) that divide a batch of n and fit into a block; at least one."""
    most = min(n, block_bytes // image_bytes)
    return next((m for m in range(most, 0, -1) if n % m == 0), 1)


def padded_block(a: jax.Array, k: jax.Array, images: int, padding: tuple[Pair, Pair]) -> jax.Array:
    """f32 copy of images k * images and on, padded, with a column of zeros more on the right.

    The column has XLA write the block down instead of finding it anew in every sum, which it then
    compiles to scalar code.
    """
    part = lax.dynamic_slice(a, (k * images, 0, 0, 0), (images, *a.shape[1:]))
    rows, (left, right) = padding
    return pad(part.astype(jnp.float32), (rows, (left, right + 1)))


# ---- XLA's own convolution ----------------------------------------------------------------------

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
    """Channels in the place of the batch, the output gradient in the place of the kernel."""
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
    """At most so many convolutions, each of as many images.

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
        return add(_native_weight_gradient(p, q, g).astype(jnp.float32) for p, q in pairs)

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


# ---- strided input gradient, for everything made of matrix products ------------------------------


def phases(forward: Function) -> Function:
    """Input gradient: at stride 1 one convolution; else one per residue of the position.

    Input position h = s u + r - p, r in [0, s), is reached by the taps r, r + s, ... only, so each
    residue is a convolution at stride 1 with a part of the kernel; the results interleave.
    """

    def run(dy: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
        if g.stride == (1, 1):
            return forward(dy, turn(w, g.groups), g.turned())
        s = g.stride
        units = [-(-g.padded[a] // s[a]) for a in range(2)]
        channels = w.shape[2] * g.groups
        rows = []
        for r in range(s[0]):
            row = []
            for c in range(s[1]):
                part = w[r :: s[0], c :: s[1]]
                if 0 in part.shape:
                    row.append(jnp.zeros((dy.shape[0], *units, channels), dy.dtype))
                    continue
                padding = tuple((part.shape[a] - 1, units[a] - g.out_size[a]) for a in range(2))
                sub = Geometry(g.out_size, part.shape[:2], (1, 1), padding, g.groups)
                row.append(forward(dy, turn(part, g.groups), sub))
            rows.append(jnp.stack(row, 3))
        dx = jnp.stack(rows, 2).reshape(-1, units[0] * s[0], units[1] * s[1], channels)
        (top, _), (left, _) = g.padding
        tail = [(0, max(0, g.padding[a][0] + g.size[a] - dx.shape[1 + a])) for a in range(2)]
        dx = jnp.pad(dx, ((0, 0), *tail, (0, 0)))
        return dx[:, top : top + g.size[0], left : left + g.size[1]]

    return run


# ---- im2col: all taps side by side, one matrix product -------------------------------------------


def patches(x: jax.Array, g: Geometry) -> jax.Array:
    """f[n,H,W,I] -> f[n,H',W',kh*kw,I]."""
    x = pad(x, g.padding)
    return jnp.stack([x[:, rows, columns] for _, _, rows, columns in taps_of(g)], 3)


def _patch_bytes(x: jax.Array, g: Geometry) -> tuple[int, int]:
    rows = int(np.prod(g.out_size))
    return int(np.prod(g.kernel)) * rows * x.shape[-1] * x.dtype.itemsize, rows


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
    return add(matmul(x[:, rows, columns], w[i, j]) for i, j, rows, columns in taps_of(g))


def _shifted_weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry) -> jax.Array:
    x, channels = pad(x, g.padding), x.shape[-1]
    dy = dy.reshape(-1, dy.shape[-1])
    taps = [
        matmul(x[:, rows, columns].reshape(-1, channels).T, dy)
        for _, _, rows, columns in taps_of(g)
    ]
    return jnp.stack(taps).reshape(*g.kernel, channels, -1)


def is_ungrouped(g: Geometry, channels: int, out: int) -> bool:
    return g.groups == 1


LOWERINGS: dict[str, Lowering] = {
    "native": Lowering(
        _native, _native_input_gradient, _native_weight_gradient, lambda *_: True, in_loop=False
    ),
    "native_parts": _native_parts(FEW_PARTS),
    "native_many": _native_parts(MANY_PARTS),
    "im2col": Lowering(_im2col, im2col_input_gradient, _im2col_weight_gradient, lambda *_: True),
    "shifted": Lowering(_shifted, phases(_shifted), _shifted_weight_gradient, is_ungrouped),
}

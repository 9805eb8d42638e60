"""Loops over images whose intermediate arrays stay in the cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mexjax.cpu import is_cpu
from mexjax.cpu.ordering import empty_after, zeros_after
from mexjax.ops.conv.geometry import Pair, pad

# A chunk of images is sized so that its unfolded form stays in the second-level cache.
CHUNK_BYTES = 2**21
MIN_CHUNK_ROWS = 128


def _chunk(n: int, image_bytes: int, image_rows: int, min_rows: int = 0) -> int:
    """The number of images of a batch of n to compute at once: all of them, or an odd number.

    It is odd because arrays whose sizes are multiples of 4 KiB compete for the same lines of the
    first-level cache when tens of them are read side by side.
    """
    most = max(CHUNK_BYTES // image_bytes, -(-(min_rows or MIN_CHUNK_ROWS) // image_rows), 1)
    if not is_cpu() or n <= most:
        return n
    return min(n, -(-n // -(-n // most)) | 1)


def _starts(n: int, chunk: int) -> tuple[int, Callable[[jax.Array], jax.Array]]:
    """The number of chunks, and the start of each; the last overlaps the one before if it must."""
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
      image_bytes: size of one image that `function` has unfolded.
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
        # Each part is written to its place; joined first, the parts would be copied once more.
        for k, part in enumerate(function(lax.dynamic_slice_in_dim(x, start, chunk))):
            at = (start, 0, k, *[0] * (part.ndim - 2))
            y = lax.dynamic_update_slice(y, part[:, :, None], at)
        return y

    parts = jax.eval_shape(function, jax.ShapeDtypeStruct((chunk, *x.shape[1:]), x.dtype))
    _, height, *rest = parts[0].shape
    y = empty_after(x, (n, height, len(parts), *rest), parts[0].dtype)
    return lax.fori_loop(0, count, body, y)


def sum_over_chunks(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    dy: jax.Array,
    shape: tuple[int, ...],
    image_bytes: int,
    image_rows: int,
) -> jax.Array:
    """Like `in_chunks`, for `function(x, dy) -> f32[shape]` that sums over images."""
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


def padded_block(a: jax.Array, k: jax.Array, images: int, padding: tuple[Pair, Pair]) -> jax.Array:
    """A padded f32 copy of images from k * images on, with one more column of zeros on the right.

    The column makes XLA write the block down. Otherwise it computes the block anew in every sum,
    and compiles that to scalar code.
    """
    part = lax.dynamic_slice(a, (k * images, 0, 0, 0), (images, *a.shape[1:]))
    rows, (left, right) = padding
    return pad(part.astype(jnp.float32), (rows, (left, right + 1)))

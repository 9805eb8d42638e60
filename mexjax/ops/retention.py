"""Retention on the image plane with a softmax: every pixel attends to all, near ones more.

    scores = q . k + log(decay) * (|y - y'| + |x - x'|),   out = softmax(scores) v

There is no causal mask. Queries and keys come rotated (`retention_tables`) and scaled. The released
backbone of TSFmicro and GAMDSS, which is qhfan/RMT with other numbers, adds the logarithm of the
decay inside the softmax, so the weights of a pixel sum to 1. One image of L = H * W pixels with
C = heads * d channels takes

    full        2 L^2 C multiplications, L^2 scores a head at a time
    chunked     2 L^2 C multiplications, L * chunk scores a head at a time
    decomposed  2 L (H + W) C multiplications, L * max(H, W) scores a head at a time; another
                function

and in the backward pass twice the multiplications of full and decomposed, which keep the weights of
the forward pass, and 2.5 times those of chunked, which makes them again. On NVIDIA's GPUs full and
decomposed run as kernels that keep no scores (`retention_fused`), where the widths of heads allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mexjax import target
from mexjax.cpu import is_cpu
from mexjax.cpu.ordering import zeros_after
from mexjax.ops import retention_tables as tables
from mexjax.ops.gradients import custom_vjp

# Widths of heads of which a kernel holds tiles in registers (`retention_fused`).
_KERNEL_WIDTHS = (16, 32, 64, 128)


def full_retention(
    q: jax.Array, k: jax.Array, v: jax.Array, log_decay: Sequence[float]
) -> jax.Array:
    """Retention over all pairs of pixels, all scores at once.

    Args:
      q: f[N,H,W,heads,d].
      k: f[N,H,W,heads,d].
      v: f[N,H,W,heads,dv].
      log_decay: one number a head, see `retention_tables.log_decays`.

    Returns:
      f[N,H,W,heads,dv] in the dtype of `v`; the softmax is in float32.

    Raises:
      ValueError: shapes that do not belong together.
    """
    _check(q, k, v, log_decay)
    n, height, width, heads, _ = q.shape
    if _has_kernel(q.shape[-1], v.shape[-1]):
        return _fused((height, width), log_decay, (n, height * width, heads), q, k, v)
    rows = (a.reshape(n, height * width, heads, -1).swapaxes(1, 2) for a in (q, k, v))
    y = _attend((height, width), tuple(map(float, log_decay)), *rows)
    return y.swapaxes(1, 2).reshape(n, height, width, heads, -1)


def decomposed_retention(
    q: jax.Array, k: jax.Array, v: jax.Array, log_decay: Sequence[float]
) -> jax.Array:
    """Retention along x within every row, then of its result along y within every column.

    The same queries and keys serve both passes. The result differs from that of `full_retention`,
    and from that of columns before rows. Arguments, result and errors are those of
    `full_retention`.
    """
    _check(q, k, v, log_decay)
    n, height, width, heads, _ = q.shape
    log_decay = tuple(map(float, log_decay))
    if _has_kernel(q.shape[-1], v.shape[-1]):
        y = _fused((width,), log_decay, (n * height, width, heads), q, k, v)
        return _fused((height,), log_decay, (n, height, width * heads), q, k, y)
    rows = (a.transpose(1, 0, 3, 2, 4) for a in (q, k, v))  # (H, N, heads, W, d)
    y = _attend((width,), log_decay, *rows)
    columns = (a.transpose(2, 0, 3, 1, 4) for a in (q, k))  # (W, N, heads, H, d)
    y = _attend((height,), log_decay, *columns, y.transpose(3, 1, 2, 0, 4))
    return y.transpose(1, 3, 0, 2, 4)


def _has_kernel(*widths: int) -> bool:
    """True if programs are for a GPU of NVIDIA, and a kernel takes heads of these widths."""
    devices = target.current()
    is_nvidia = devices.platform == "gpu" and "NVIDIA" in devices.kind
    return is_nvidia and all(width in _KERNEL_WIDTHS for width in widths)


def _fused(
    size: tuple[int, ...],
    log_decay: Sequence[float],
    lines: tuple[int, int, int],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> jax.Array:
    """`fused_retention` of arrays f[N,H,W,heads,d], which are read as `lines` B, L, G."""
    # Only programs for a GPU need the kernels, whose import takes time.
    from mexjax.ops.retention_fused import fused_retention

    rows = (a.reshape(*lines, a.shape[-1]) for a in (q, k, v))
    y = fused_retention(size, tuple(map(float, log_decay)), is_cpu(), *rows)
    return y.reshape(v.shape)


@custom_vjp(0, 1)
def _attend(
    size: tuple[int, ...],
    log_decay: tuple[float, ...],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> jax.Array:
    """The retention softmax(q k^T + decay) v of q, k f[...,heads,L,d] and v f[...,heads,L,dv].

    `size` is (L,) for a line and (H, W), L = H * W, for a plane. The weights are divided by their
    sum after they have met the values. For a gradient they are divided before, so that nothing but
    the divided weights is kept of all pairs, and no sum.
    """
    weights = _weights(size, log_decay, q, k)
    total = weights.sum(axis=-1, keepdims=True)
    return (_products("...qk,...kd->...qd", weights.astype(v.dtype), v) / total).astype(v.dtype)


def _weights(
    size: tuple[int, ...], log_decay: tuple[float, ...], q: jax.Array, k: jax.Array
) -> jax.Array:
    """The weights exp(scores), the largest of a query 1: f32[...,heads,L,L]."""
    scores = _products("...qd,...kd->...qk", q, k) + _decay(size, log_decay)
    return jnp.exp(scores - scores.max(axis=-1, keepdims=True))


def _decay(size: tuple[int, ...], log_decay: tuple[float, ...]) -> jax.Array | np.ndarray:
    """The logarithms of the decays, f32[heads,L,L]."""
    if len(size) == 1:
        return tables.line_decay(size[0], log_decay)
    place = tables.coordinates((size[0], size[1]))
    return tables.plane_decay(place, place, log_decay)


def _products(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _attend_fwd(
    size: tuple[int, ...],
    log_decay: tuple[float, ...],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    weights = _weights(size, log_decay, q, k)
    weights = (weights / weights.sum(axis=-1, keepdims=True)).astype(v.dtype)
    y = _products("...qk,...kd->...qd", weights, v).astype(v.dtype)
    return y, (q, k, v, y, weights)


def _attend_bwd(
    size: tuple[int, ...],
    log_decay: tuple[float, ...],
    saved: tuple[jax.Array, ...],
    dy: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del size, log_decay
    q, k, v, y, weights = saved
    # This part of the softmax gradient is the same for every key of a query.
    common = (dy.astype(jnp.float32) * y).sum(axis=-1, keepdims=True)
    d_scores = weights * (_products("...qd,...kd->...qk", dy, v) - common)
    d_scores = d_scores.astype(q.dtype)
    dq = _products("...qk,...kd->...qd", d_scores, k).astype(q.dtype)
    # These are transposes, so that the product turns q and dy, which are smaller than the scores.
    dk = _products("...qd,...qk->...dk", q, d_scores).astype(k.dtype)
    dv = _products("...qd,...qk->...dk", dy, weights).astype(v.dtype)
    return dq, dk.swapaxes(-1, -2), dv.swapaxes(-1, -2)


_attend.defvjp(_attend_fwd, _attend_bwd)


def chunked_retention(
    q: jax.Array, k: jax.Array, v: jax.Array, log_decay: Sequence[float], *, chunk: int = 128
) -> jax.Array:
    """`full_retention` that holds the scores of `chunk` keys at a time, in both directions.

    The result is exact: keys come in chunks and the softmax is carried on (running maximum,
    denominator and numerator; Milakov and Gimelshein 2018). The decays of a chunk are made from
    coordinates. The backward pass keeps the output and one number a query, and makes the scores
    again. Arguments, result and errors are those of `full_retention`; `chunk` is at least 1 and
    need not divide H * W.
    """
    _check(q, k, v, log_decay)
    if chunk < 1:
        raise ValueError(f"chunked_retention: chunk must be at least 1; found {chunk}.")
    n, height, width, heads, _ = q.shape
    size = (height, width)
    rows = [
        a.reshape(n, height * width, heads, -1).swapaxes(1, 2).astype(jnp.float32)
        for a in (q, k, v)
    ]
    y = _chunked(size, tuple(map(float, log_decay)), min(chunk, height * width), *rows)
    return y.swapaxes(1, 2).reshape(n, height, width, heads, -1).astype(v.dtype)


def _check(q: jax.Array, k: jax.Array, v: jax.Array, log_decay: Sequence[float]) -> None:
    if q.ndim != 5 or k.shape != q.shape or v.shape[:-1] != q.shape[:-1]:
        raise ValueError(
            "Retention: expected q and k [N,H,W,heads,d] and v [N,H,W,heads,dv]; found "
            f"q {q.shape}, k {k.shape}, v {v.shape}."
        )
    if len(log_decay) != q.shape[3]:
        raise ValueError(
            f"Retention: expected one log decay for each of {q.shape[3]} heads; found "
            f"{len(log_decay)}."
        )


def _key_chunks(size: tables.Size, chunk: int, *keys: jax.Array) -> tuple[jax.Array, ...]:
    """Coordinates, presence and `keys` f[N,heads,L,d] in chunks, zeros after the last.

    Returns:
      f32[M,2,chunk], bool[M,chunk], and each of `keys` as f[M,N,heads,chunk,d], M chunks.
    """
    length = size[0] * size[1]
    spare = -length % chunk
    place = np.pad(tables.coordinates(size), ((0, 0), (0, spare)))
    place = place.reshape(2, -1, chunk).swapaxes(0, 1)
    is_there = (np.arange(length + spare) < length).reshape(-1, chunk)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, 0), (0, spare), (0, 0)))
        return jnp.moveaxis(x.reshape(*x.shape[:2], -1, chunk, x.shape[-1]), 2, 0)

    return jnp.asarray(place), jnp.asarray(is_there), *map(split, keys)


def _scores(
    size: tables.Size,
    log_decay: tuple[float, ...],
    q: jax.Array,
    k: jax.Array,
    place: jax.Array,
    is_there: jax.Array,
) -> jax.Array:
    """The decayed scores of one chunk of keys, f32[N,heads,L,chunk]."""
    bias = tables.plane_decay(tables.coordinates(size), place, log_decay)
    scores = jnp.einsum("nhqd,nhkd->nhqk", q, k) + bias
    return jnp.where(is_there, scores, tables.ABSENT)


@custom_vjp(0, 1, 2)
def _chunked(
    size: tables.Size,
    log_decay: tuple[float, ...],
    chunk: int,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> jax.Array:
    """The retention of q, k f32[N,heads,L,d] and v f32[N,heads,L,dv] by chunks of keys."""
    return _chunked_fwd(size, log_decay, chunk, q, k, v)[0]


def _chunked_fwd(size, log_decay, chunk, q, k, v) -> tuple[jax.Array, Any]:
    chunks = _key_chunks(size, chunk, k, v)

    def step(carry, keys):
        largest, total, y = carry
        place, is_there, k, v = keys
        scores = _scores(size, log_decay, q, k, place, is_there)
        new = jnp.maximum(largest, scores.max(axis=-1, keepdims=True))
        weights, shrink = jnp.exp(scores - new), jnp.exp(largest - new)
        total = total * shrink + weights.sum(axis=-1, keepdims=True)
        return (new, total, y * shrink + weights @ v), None

    one = zeros_after(q, (*q.shape[:-1], 1), jnp.float32)
    carry = (one + tables.ABSENT, one, zeros_after(q, v.shape, jnp.float32))
    (largest, total, y), _ = jax.lax.scan(step, carry, chunks)
    y = y / total
    return y, (q, k, v, y, largest + jnp.log(total))


def _chunked_bwd(size, log_decay, chunk, saved, dy):
    q, k, v, y, log_total = saved
    length = q.shape[2]
    # This part of the softmax gradient is the same for every key of a query.
    common = (dy * y).sum(axis=-1, keepdims=True)

    def step(dq, keys):
        place, is_there, k, v = keys
        weights = jnp.exp(_scores(size, log_decay, q, k, place, is_there) - log_total)
        d_scores = weights * (jnp.einsum("nhqd,nhkd->nhqk", dy, v) - common)
        dk = jnp.einsum("nhqk,nhqd->nhkd", d_scores, q)
        dv = jnp.einsum("nhqk,nhqd->nhkd", weights, dy)
        return dq + d_scores @ k, (dk, dv)

    nothing = zeros_after(q, q.shape, jnp.float32)
    dq, (dk, dv) = jax.lax.scan(step, nothing, _key_chunks(size, chunk, k, v))

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 2).reshape(*q.shape[:2], -1, x.shape[-1])[:, :, :length]

    return dq, join(dk), join(dv)


_chunked.defvjp(_chunked_fwd, _chunked_bwd)

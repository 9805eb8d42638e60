"""Retention in one kernel for NVIDIA's GPUs: no array of all pairs of pixels is written to memory.

XLA writes the scores, the weights and their gradients down between its kernels, eleven passes over
L^2 numbers a head and image. Here a program holds a tile of them in registers: the forward pass
carries the softmax on over tiles of keys (Milakov and Gimelshein 2018) and keeps one number a
query, and the backward pass makes the weights again from it (Dao et al. 2022, arXiv 2205.14135).
Decays are made of coordinates in the kernel. Rows, columns and planes are read where they lie, as
lines [B,L,G,d] of any stride, so nothing is transposed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from mexjax.ops.gradients import custom_vjp
from mexjax.ops.mesh import struct_like
from mexjax.ops.retention_tables import ABSENT

Decays = tuple[float, ...]
# Keys of a line that one program of the backward pass holds, so that it sees all of them.
_LONGEST_LINE = 128


@custom_vjp(0, 1, 2)
def fused_retention(
    size: tuple[int, ...],
    log_decay: Decays,
    is_interpreted: bool,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> jax.Array:
    """The retention softmax(q k^T + decay) v along the second axis.

    Args:
      size: (L,) for a line and (H, W), L = H * W, for a plane.
      log_decay: one number for each of `heads`.
      is_interpreted: true to run the kernel without a GPU, slowly, for tests.
      q: f[B,L,G,d]; entry g belongs to head g mod heads.
      k: f[B,L,G,d].
      v: f[B,L,G,dv].

    Returns:
      f[B,L,G,dv] in the dtype of `v`; scores, softmax and sums are float32.
    """
    return _forward(size, log_decay, is_interpreted, q, k, v)[0]


def _fwd(size, log_decay, is_interpreted, q, k, v):
    y, log_total = _forward(size, log_decay, is_interpreted, q, k, v)
    return y, (q, k, v, y, log_total)


def _bwd(size, log_decay, is_interpreted, saved, dy):
    q, k, v, y, log_total = saved
    # This part of the softmax gradient is the same for every key of a query.
    common = (dy.astype(jnp.float32) * y).sum(axis=-1).swapaxes(1, 2)  # (B, G, L)
    operands = (q, k, v, dy, log_total, common)
    length, width = q.shape[1], q.shape[-1]
    is_whole = length <= _LONGEST_LINE
    num_keys = _tile(length, _LONGEST_LINE if is_whole else 64)
    kernel = functools.partial(_keys_kernel, size, log_decay, _tile(length, 32), num_keys, is_whole)
    like = (k, v, q) if is_whole else (k, v)
    call = functools.partial(_call, is_interpreted, operands, width=max(width, v.shape[-1]))
    dk, dv, *rest = call(kernel, like, num_keys)
    if is_whole:
        return rest[0], dk, dv
    num_queries = _tile(length, 64)
    kernel = functools.partial(_queries_kernel, size, log_decay, num_queries, 32)
    (dq,) = call(kernel, (q,), num_queries)
    return dq, dk, dv


fused_retention.defvjp(_fwd, _bwd)


def _tile(length: int, most: int) -> int:
    """The least power of 2 that holds `length`, from 16 up to `most`."""
    return min(most, max(16, 1 << (length - 1).bit_length()))


def _call(
    is_interpreted: bool,
    operands: tuple[jax.Array, ...],
    kernel: Callable[..., None],
    like: tuple[Any, ...],
    tile: int,
    *,
    width: int,
) -> list[jax.Array]:
    """Runs `kernel` for every line, head and tile; results have the shapes and dtypes of `like`."""
    lines, length, groups, _ = operands[0].shape
    return pl.pallas_call(
        kernel,
        grid=(lines, groups, pl.cdiv(length, tile)),
        out_shape=[struct_like(operands[0], a.shape, a.dtype) for a in like],
        interpret=is_interpreted,
        compiler_params=plt.CompilerParams(num_warps=8 if width > 32 else 4, num_stages=2),
        name="retention",
    )(*operands)


def _forward(size, log_decay, is_interpreted, q, k, v) -> list[jax.Array]:
    """The result f[B,L,G,dv] and the logarithm of the sums of the softmax, f32[B,G,L]."""
    lines, length, groups, width = q.shape
    tile = _tile(length, 64)
    kernel = functools.partial(_forward_kernel, size, log_decay, tile, min(tile, 32))
    total = jax.ShapeDtypeStruct((lines, groups, length), jnp.float32)
    width = max(width, v.shape[-1])
    return _call(is_interpreted, (q, k, v), kernel, (v, total), tile, width=width)


def _product(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """The product of two tiles over an axis of each, in float32."""
    contract = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(a, b, contract, preferred_element_type=jnp.float32)


class _Program(NamedTuple):
    """One program of a grid; its numbers are asked for outside of loops.

    Attributes:
      line: its line.
      group: its entry of the third axis.
      first: the first query or key of its tile.
      decay: logarithm of the decay of its head.
      size: see `fused_retention`.
    """

    line: Any
    group: Any
    first: Any
    decay: jax.Array
    size: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of queries, which is that of keys."""
        return math.prod(self.size)


def _program(size: tuple[int, ...], log_decay: Decays, tile: int) -> _Program:
    group = pl.program_id(1)
    head = lax.rem(group, len(log_decay))
    decay = jnp.float32(log_decay[0])
    for i, value in enumerate(log_decay[1:], 1):
        decay = jnp.where(head == i, jnp.float32(value), decay)
    return _Program(pl.program_id(0), group, pl.program_id(2) * tile, decay, size)


def _rows(at: _Program, ref: Any, start: Any, tile: int) -> jax.Array:
    """The entries of a line and head from `start` on: f[tile,d] or f[tile], zeros at the end."""
    is_there = start + jnp.arange(tile) < at.length
    if len(ref.shape) == 4:
        view = ref.at[at.line, pl.ds(start, tile), at.group, :]
        return plt.load(view, mask=is_there[:, None], other=0.0)
    return plt.load(ref.at[at.line, at.group, pl.ds(start, tile)], mask=is_there, other=0.0)


def _put(at: _Program, ref: Any, start: Any, rows: jax.Array) -> None:
    """Stores what `_rows` would load."""
    tile = rows.shape[0]
    is_there = start + jnp.arange(tile) < at.length
    rows = rows.astype(ref.dtype)
    if len(ref.shape) == 4:
        plt.store(ref.at[at.line, pl.ds(start, tile), at.group, :], rows, mask=is_there[:, None])
    else:
        plt.store(ref.at[at.line, at.group, pl.ds(start, tile)], rows, mask=is_there)


def _scores(
    at: _Program, q: jax.Array, k: jax.Array, first_query: Any, first_key: Any
) -> jax.Array:
    """The decayed scores f32[Q,K] of tiles of queries f[Q,d] and keys f[K,d]."""
    queries, keys = first_query + jnp.arange(q.shape[0]), first_key + jnp.arange(k.shape[0])
    if len(at.size) == 1:
        distance = jnp.abs(queries[:, None] - keys[None, :])
    else:
        width = jnp.int32(at.size[1])
        rows, columns = ([part(a, width) for a in (queries, keys)] for part in (lax.div, lax.rem))
        distance = jnp.abs(rows[0][:, None] - rows[1][None, :])
        distance += jnp.abs(columns[0][:, None] - columns[1][None, :])
    scores = _product(q, k, (1, 1)) + at.decay * distance.astype(jnp.float32)
    return jnp.where((keys < at.length)[None, :], scores, ABSENT)


def _forward_kernel(size, log_decay, tile, num_keys, *refs) -> None:
    """A tile of queries meets all keys."""
    q_ref, k_ref, v_ref, y_ref, total_ref = refs
    at = _program(size, log_decay, tile)
    q = _rows(at, q_ref, at.first, tile)

    def step(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        largest, total, y = carry
        k, v = (_rows(at, ref, i * num_keys, num_keys) for ref in (k_ref, v_ref))
        scores = _scores(at, q, k, at.first, i * num_keys)
        new = jnp.maximum(largest, scores.max(axis=1))
        weights, shrink = jnp.exp(scores - new[:, None]), jnp.exp(largest - new)
        total = total * shrink + weights.sum(axis=1)
        return new, total, y * shrink[:, None] + _product(weights.astype(v.dtype), v, (1, 0))

    start = (
        jnp.full((tile,), ABSENT, jnp.float32),
        jnp.zeros((tile,), jnp.float32),
        jnp.zeros((tile, v_ref.shape[-1]), jnp.float32),
    )
    largest, total, y = lax.fori_loop(0, pl.cdiv(at.length, num_keys), step, start)
    _put(at, y_ref, at.first, y / total[:, None])
    _put(at, total_ref, at.first, largest + jnp.log(total))


def _gradients(
    at: _Program,
    keys: tuple[jax.Array, jax.Array],
    queries: tuple[jax.Array, ...],
    first_query: Any,
    first_key: Any,
) -> tuple[jax.Array, jax.Array]:
    """The weights of a tile and the gradient of its scores, f32[Q,K] each.

    Args:
      at: the program.
      keys: k and v.
      queries: q, dy, the logarithm of the sum and the common part of the gradient.
      first_query: number of the first query of the tile.
      first_key: number of its first key.
    """
    k, v = keys
    q, dy, log_total, common = queries
    weights = jnp.exp(_scores(at, q, k, first_query, first_key) - log_total[:, None])
    return weights, weights * (_product(dy, v, (1, 1)) - common[:, None])


def _keys_kernel(size, log_decay, num_queries, tile, is_whole, *refs) -> None:
    """A tile of keys meets all queries; if it holds all keys, the queries' gradient is whole."""
    q_ref, k_ref, v_ref, dy_ref, total_ref, common_ref, dk_ref, dv_ref, *rest = refs
    at = _program(size, log_decay, tile)
    k, v = (_rows(at, ref, at.first, tile) for ref in (k_ref, v_ref))

    def step(i: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        first = i * num_queries
        queries = tuple(
            _rows(at, ref, first, num_queries) for ref in (q_ref, dy_ref, total_ref, common_ref)
        )
        q, dy = queries[:2]
        weights, d_scores = _gradients(at, (k, v), queries, first, at.first)
        d_scores = d_scores.astype(q.dtype)
        if is_whole:
            _put(at, rest[0], first, _product(d_scores, k, (1, 0)))
        dk, dv = sums
        return dk + _product(d_scores, q, (0, 0)), dv + _product(
            weights.astype(dy.dtype), dy, (0, 0)
        )

    dk, dv = (jnp.zeros((tile, ref.shape[-1]), jnp.float32) for ref in (k_ref, v_ref))
    dk, dv = lax.fori_loop(0, pl.cdiv(at.length, num_queries), step, (dk, dv))
    _put(at, dk_ref, at.first, dk)
    _put(at, dv_ref, at.first, dv)


def _queries_kernel(size, log_decay, tile, num_keys, *refs) -> None:
    """A tile of queries meets all keys, for the queries' gradient."""
    q_ref, k_ref, v_ref, dy_ref, total_ref, common_ref, dq_ref = refs
    at = _program(size, log_decay, tile)
    queries = tuple(
        _rows(at, ref, at.first, tile) for ref in (q_ref, dy_ref, total_ref, common_ref)
    )

    def step(i: jax.Array, dq: jax.Array) -> jax.Array:
        first = i * num_keys
        k, v = (_rows(at, ref, first, num_keys) for ref in (k_ref, v_ref))
        _, d_scores = _gradients(at, (k, v), queries, at.first, first)
        return dq + _product(d_scores.astype(k.dtype), k, (1, 0))

    dq = jnp.zeros((tile, q_ref.shape[-1]), jnp.float32)
    dq = lax.fori_loop(0, pl.cdiv(at.length, num_keys), step, dq)
    _put(at, dq_ref, at.first, dq)

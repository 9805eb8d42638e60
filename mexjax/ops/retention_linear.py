"""Retention without a softmax: what can be computed in time linear in the length.

    out_n = sum over m of decay^distance(n, m) (q_n . k_m) v_m

With m <= n this is the retention of RetNet (Sun et al. 2023, arXiv 2307.08621), Eq. 2 and 5 of the
TSFmicro paper: three forms of one function. Without that condition it is bidirectional; on the
plane, with the Manhattan distance, it is separable. The scores are not normalised, and the group
norm and the gate of RetNet are not here. The released networks use none of these but the softmax
of `retention`. Queries and keys come rotated and scaled. Work for L positions of one head:

    causal_parallel      L^2 (d + dv)                      needs the L^2 scores
    causal_recurrent     2 L d dv                          needs one state d x dv, L steps in turn
    causal_chunkwise     L B (d + dv) + 2 L d dv           L / B steps in turn, chunks of B
    bidirectional        twice causal_chunkwise
    bidirectional_2d     6 H W d dv                        needs all H W states d x dv
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mexjax.cpu.ordering import zeros_after

Decays = Sequence[float] | np.ndarray | jax.Array


def _check(q: jax.Array, k: jax.Array, v: jax.Array, log_decay: Decays, ndim: int) -> jax.Array:
    axes = "N,L,heads" if ndim == 4 else "N,H,W,heads"
    if q.ndim != ndim or k.shape != q.shape or v.shape[:-1] != q.shape[:-1]:
        raise ValueError(
            f"Retention: expected q and k [{axes},d] and v [{axes},dv]; found q {q.shape}, "
            f"k {k.shape}, v {v.shape}."
        )
    decay = jnp.asarray(log_decay, jnp.float32)
    if decay.shape != q.shape[-2:-1]:
        raise ValueError(
            f"Retention: expected one log decay for each of {q.shape[-2]} heads; found "
            f"{decay.shape}."
        )
    return decay


def causal_parallel(
    q: jax.Array, k: jax.Array, v: jax.Array, log_decay: Decays, *, strict: bool = False
) -> jax.Array:
    """(q k^T * D) v with D[n,m] = decay^(n-m) for m <= n, else 0 (RetNet, parallel form).

    Args:
      q: f[N,L,heads,d].
      k: f[N,L,heads,d].
      v: f[N,L,heads,dv].
      log_decay: f32[heads], log of the decay of each head.
      strict: leaves out m = n.

    Returns:
      f[N,L,heads,dv].

    Raises:
      ValueError: shapes that do not belong together.
    """
    log_decay = _check(q, k, v, log_decay, 4)
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=jnp.float32)
    scores *= _triangle(q.shape[1], log_decay, strict=strict)
    return jnp.einsum("nhqk,nkhd->nqhd", scores.astype(v.dtype), v)


def _triangle(length: int, log_decay: jax.Array, *, strict: bool) -> jax.Array:
    """f32[heads,L,L]: decay^(n-m) below the diagonal, and on it unless `strict`."""
    place = np.arange(length)
    ahead = place[:, None] - place
    powers = jnp.exp(log_decay[:, None, None] * np.maximum(ahead, 0))
    return jnp.where(ahead >= (1 if strict else 0), powers, 0.0)


def causal_recurrent(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: Decays,
    state: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """S_n = decay S_(n-1) + k_n^T v_n, out_n = q_n S_n: one position after the other.

    Args:
      q, k, v, log_decay: as `causal_parallel`.
      state: f32[N,heads,d,dv] left by the positions before; None: there were none.

    Returns:
      f[N,L,heads,dv] and the state f32[N,heads,d,dv] after the last position.
    """
    log_decay = _check(q, k, v, log_decay, 4)
    decay = jnp.exp(log_decay)[:, None, None]

    def step(state: jax.Array, one: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q, k, v = one
        state = decay * state + k[..., :, None] * v[..., None, :]
        return state, jnp.einsum("nhd,nhde->nhe", q, state)

    inputs = tuple(a.swapaxes(0, 1).astype(jnp.float32) for a in (q, k, v))
    state, y = jax.lax.scan(step, _empty(q, k, v) if state is None else state, inputs)
    return y.swapaxes(0, 1).astype(v.dtype), state


def _empty(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The state before the first position: f32[N,heads,d,dv] of zeros."""
    shape = (q.shape[0], q.shape[2], k.shape[3], v.shape[3])
    return zeros_after(q, shape, jnp.float32)


def causal_chunkwise(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: Decays,
    state: jax.Array | None = None,
    *,
    chunk: int,
    strict: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Parallel within chunks of `chunk` positions, recurrent from one to the next.

    With B positions in a chunk, numbered j = 0 ... B-1, and R the state before it,
    out = (q k^T * D) v + decay^(j+1) q R, and R becomes decay^B R + sum of decay^(B-1-j) k^T v.
    The last chunk may be shorter than the others.

    Args:
      q, k, v, log_decay, strict: as `causal_parallel`.
      state: as `causal_recurrent`.
      chunk: positions in a chunk.

    Returns:
      As `causal_recurrent`.
    """
    log_decay = _check(q, k, v, log_decay, 4)
    if chunk < 1:
        raise ValueError(f"causal_chunkwise: chunk must be at least 1; found {chunk}.")
    length = q.shape[1]
    rows = [a.swapaxes(1, 2).astype(jnp.float32) for a in (q, k, v)]

    def step(state: jax.Array, one: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q, k, v = one
        size = q.shape[2]
        place = np.arange(size)[:, None]
        before = jnp.exp(log_decay[:, None, None] * (place + 1))  # (heads, B, 1)
        after = jnp.exp(log_decay[:, None, None] * (size - 1 - place))
        scores = jnp.einsum("nhqd,nhkd->nhqk", q, k) * _triangle(size, log_decay, strict=strict)
        y = scores @ v + (q @ state) * before
        new = jnp.exp(log_decay * size)[:, None, None] * state
        return new + jnp.einsum("nhkd,nhke->nhde", k * after, v), y

    state = _empty(q, k, v) if state is None else state
    whole = length // chunk
    parts = []
    if whole:
        chunks = tuple(
            jnp.moveaxis(
                a[:, :, : whole * chunk].reshape(*a.shape[:2], whole, chunk, a.shape[-1]), 2, 0
            )
            for a in rows
        )
        state, y = jax.lax.scan(step, state, chunks)
        y = jnp.moveaxis(y, 0, 2)
        parts.append(y.reshape(*y.shape[:2], whole * chunk, -1))
    if length % chunk:
        state, y = step(state, tuple(a[:, :, whole * chunk :] for a in rows))
        parts.append(y)
    y = jnp.concatenate(parts, axis=2)
    return y.swapaxes(1, 2).astype(v.dtype), state


def bidirectional(
    q: jax.Array, k: jax.Array, v: jax.Array, log_decay: Decays, *, chunk: int = 64
) -> jax.Array:
    """sum over all m of decay^|n-m| (q_n . k_m) v_m, in time linear in L.

    What comes before with the position itself, and what comes after, each as chunks.

    Args, returns and raises: as `causal_chunkwise`, without states.
    """
    ahead, _ = causal_chunkwise(q, k, v, log_decay, chunk=chunk)
    turned = (a[:, ::-1] for a in (q, k, v))
    behind, _ = causal_chunkwise(*turned, log_decay, chunk=chunk, strict=True)
    return ahead + behind[:, ::-1]


def bidirectional_2d(q: jax.Array, k: jax.Array, v: jax.Array, log_decay: Decays) -> jax.Array:
    """sum over all pixels of decay^(|dy|+|dx|) (q . k) v, in time linear in their number.

    decay^(|dy|+|dx|) = decay^|dy| decay^|dx|: the states k^T v are spread along x in both
    directions, the result along y, and the queries read it once. The same mask as that of
    `retention.full_retention`, without the softmax; not its decomposed form.

    Args:
      q: f[N,H,W,heads,d].
      k: f[N,H,W,heads,d].
      v: f[N,H,W,heads,dv].
      log_decay: f32[heads].

    Returns:
      f[N,H,W,heads,dv].

    Raises:
      ValueError: shapes that do not belong together.
    """
    log_decay = _check(q, k, v, log_decay, 5)
    decay = jnp.exp(log_decay)[:, None, None]

    def spread(states: jax.Array) -> jax.Array:
        """Along the first axis, both ways: f32[L,...,heads,d,dv]."""

        def step(total: jax.Array, one: jax.Array) -> tuple[jax.Array, jax.Array]:
            total = decay * total + one
            return total, total

        nothing = zeros_after(states, states.shape[1:], jnp.float32)
        ahead = jax.lax.scan(step, nothing, states)[1]
        behind = jax.lax.scan(step, nothing, states, reverse=True)[1]
        return ahead + behind - states

    q, k, v32 = (a.astype(jnp.float32) for a in (q, k, v))
    states = k[..., :, None] * v32[..., None, :]  # (N, H, W, heads, d, dv)
    states = spread(jnp.moveaxis(states, 2, 0))  # (W, N, H, ...)
    states = spread(jnp.moveaxis(states, 2, 0))  # (H, W, N, ...)
    return jnp.einsum("nyxhd,yxnhde->nyxhe", q, states).astype(v.dtype)

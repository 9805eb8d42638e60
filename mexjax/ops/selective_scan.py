"""Selective state-space scan, along a sequence and in four directions over a map (SS2D).

    h_l = exp(delta_l a) h_(l-1) + delta_l b_l u_l        y_l = c_l . h_l + skip u_l

Every channel carries a state h of S numbers. The step delta > 0, the input b and the output c are
made from the input; a < 0 is learnt (Mamba: Gu and Dao 2023, arXiv 2312.00752, Eq. 2 and Algorithm
2, with b discretised as in the public code). VMamba (Liu et al. 2024, arXiv 2401.10166, section 4)
runs it over the pixels of a map in four orders. With E numbers of state in all channels, a sequence
of L positions takes, in either direction of differentiation,

    form         operations    steps in turn       remarks
    sequential   2 L E         L                   the definition
    associative  about 6 L E   2 log2 L            all at once; a copy of both inputs at each level
    chunked      5 L E         2 B + L / B         chunks of B positions beside each other

and memory for the decays and the states, f32[L, E] twice, whatever the form: there is one backward
pass, the same recurrence from the end. All forms are equal up to rounding. A GPU starts a kernel
for every step in turn, so that `chunked` is made of thousands of kernels there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from mexjax.cpu import is_cpu
from mexjax.cpu.ordering import zeros_after
from mexjax.errors import ConfigError, unknown_name
from mexjax.ops.gradients import custom_vjp

FORMS = ("auto", "sequential", "associative", "chunked")
CHUNK = 32  # positions: at 28 or more a step is long enough not to be all overhead


def selective_scan(
    u: jax.Array,
    delta: jax.Array,
    a: jax.Array,
    b: jax.Array,
    c: jax.Array,
    skip: jax.Array | None = None,
    *,
    form: str = "auto",
    chunk: int = CHUNK,
) -> jax.Array:
    """The y of the equations above, for G independent sets of parameters.

    Args:
      u: f[G,N,L,D], the input.
      delta: f[G,N,L,D], positive: the step. 0 leaves the state as it is.
      a: f[G,D,S], negative.
      b: f[G,N,L,S].
      c: f[G,N,L,S].
      skip: f[G,D], or None for none.
      form: see `linear_scan`.
      chunk: see `linear_scan`.

    Returns:
      f[G,N,L,D] in the dtype of `u`. States and all that leads to them are float32.

    Raises:
      ConfigError: an unknown form.
      ValueError: shapes that do not belong together, or a chunk below 1.
    """
    g, n, length, channels = _check(u, delta, a, b, c, skip)
    dtype = u.dtype
    u, delta, a, b, c = (x.astype(jnp.float32) for x in (u, delta, a, b, c))
    decay = jnp.exp(delta[..., None] * a[:, None, None])  # (G, N, L, D, S)
    new = (delta * u)[..., None] * b[..., None, :]
    flat = (g, n, length, channels * a.shape[-1])
    states = linear_scan(decay.reshape(flat), new.reshape(flat), form=form, chunk=chunk)
    y = (states.reshape(decay.shape) * c[..., None, :]).sum(axis=-1)
    if skip is not None:
        y += u * skip.astype(jnp.float32)[:, None, None]
    return y.astype(dtype)


def _check(
    u: jax.Array,
    delta: jax.Array,
    a: jax.Array,
    b: jax.Array,
    c: jax.Array,
    skip: jax.Array | None,
) -> tuple[int, ...]:
    states = a.shape[-1]
    is_fine = (
        u.ndim == 4
        and delta.shape == u.shape
        and a.shape == (u.shape[0], u.shape[3], states)
        and b.shape == c.shape == (*u.shape[:3], states)
        and (skip is None or skip.shape == (u.shape[0], u.shape[3]))
    )
    if not is_fine:
        raise ValueError(
            "selective_scan: expected u and delta [G,N,L,D], a [G,D,S], b and c [G,N,L,S] and skip"
            f" [G,D]; found u {u.shape}, delta {delta.shape}, a {a.shape}, b {b.shape}, c {c.shape}"
            f", skip {None if skip is None else skip.shape}."
        )
    return u.shape


def linear_scan(
    decay: jax.Array, new: jax.Array, *, form: str = "auto", chunk: int = CHUNK
) -> jax.Array:
    """The states h_l = decay_l h_(l-1) + new_l along the last axis but one, from h = 0.

    They have one derivative, in reverse mode; no step is recorded on the way.

    Args:
      decay: f32[...,L,E].
      new: f32[...,L,E].
      form: `sequential`, `associative` or `chunked`, see the module; `auto` is `chunked` on a CPU
        and `associative` elsewhere.
      chunk: most positions in a chunk of `chunked`. Chunks are made alike in length; the last is
        shorter if the length is no multiple.

    Returns:
      f32[...,L,E]: h after each position.

    Raises:
      ConfigError: an unknown form.
      ValueError: two shapes, or a chunk below 1.
    """
    if form not in FORMS:
        raise ConfigError(unknown_name("form of the scan", form, FORMS))
    if decay.shape != new.shape or decay.ndim < 2:
        raise ValueError(
            f"linear_scan: expected two arrays [...,L,E]; found {decay.shape} and {new.shape}."
        )
    if chunk < 1:
        raise ValueError(f"linear_scan: chunk must be at least 1; found {chunk}.")
    return _linear_scan(form, chunk, decay, new)


@custom_vjp(0, 1)
def _linear_scan(form: str, chunk: int, decay: jax.Array, new: jax.Array) -> jax.Array:
    return _run(form, chunk, decay, new, is_reverse=False)


def _linear_scan_fwd(form, chunk, decay, new):
    states = _run(form, chunk, decay, new, is_reverse=False)
    return states, (decay, states)


def _linear_scan_bwd(form, chunk, saved, d_states):
    # d_new_l = d_states_l + decay_(l+1) d_new_(l+1), and d_decay_l = d_new_l h_(l-1).
    decay, states = saved
    d_new = _run(form, chunk, decay, d_states, is_reverse=True)
    before = jnp.concatenate([jnp.zeros_like(states[..., :1, :]), states[..., :-1, :]], axis=-2)
    return d_new * before, d_new


_linear_scan.defvjp(_linear_scan_fwd, _linear_scan_bwd)


def _run(form: str, chunk: int, decay: jax.Array, new: jax.Array, *, is_reverse: bool) -> jax.Array:
    """The recurrence, or with `is_reverse` its transpose g_l = new_l + decay_(l+1) g_(l+1)."""
    if form == "auto":
        form = "chunked" if is_cpu() else "associative"
    if form == "sequential":
        return _sequential(decay, new, is_reverse)
    if form == "associative":
        return _associative(decay, new, is_reverse)
    return _chunked(decay, new, chunk, is_reverse)


def _step(
    carry: jax.Array, decay: jax.Array, new: jax.Array, is_reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """The carry for the next position, and the result at this one."""
    if is_reverse:
        result = new + carry
        return decay * result, result
    carry = decay * carry + new
    return carry, carry


def _sequential(decay: jax.Array, new: jax.Array, is_reverse: bool) -> jax.Array:
    def step(carry: jax.Array, one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return _step(carry, one[0], one[1], is_reverse)

    decay, new = (jnp.moveaxis(x, -2, 0) for x in (decay, new))
    nothing = zeros_after(decay, decay.shape[1:], jnp.float32)
    _, result = lax.scan(step, nothing, (decay, new), reverse=is_reverse)
    return jnp.moveaxis(result, 0, -2)


def _associative(decay: jax.Array, new: jax.Array, is_reverse: bool) -> jax.Array:
    def join(
        first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """The composition of two maps h -> decay h + new."""
        return first[0] * second[0], second[0] * first[1] + second[1]

    if is_reverse:  # a position takes the decay of the one after it
        decay = jnp.concatenate([decay[..., 1:, :], jnp.ones_like(decay[..., :1, :])], axis=-2)
    axis = decay.ndim - 2
    return lax.associative_scan(join, (decay, new), reverse=is_reverse, axis=axis)[1]


def _chunked(decay: jax.Array, new: jax.Array, most: int, is_reverse: bool) -> jax.Array:
    """All chunks step together, first to find the map of each over states, then from its state.

    The steps of a chunk are taken where they lie: an array with the positions in front would have
    to be made first, which takes longer than the scan (four times, on a CPU).
    """
    *lead, length, width = decay.shape
    num_chunks = -(-length // most)
    chunk = -(-length // num_chunks)
    spare = num_chunks * chunk - length
    if spare:
        # A position without decay and without input changes nothing, in either direction.
        pad = [(0, 0)] * len(lead) + [(0, spare), (0, 0)]
        decay = jnp.pad(decay, pad, constant_values=1.0)
        new = jnp.pad(new, pad)
    shape = (*lead, num_chunks, chunk, width)
    decay, new = decay.reshape(shape), new.reshape(shape)
    axis = len(lead) + 1

    def place(i: jax.Array) -> jax.Array:
        return chunk - 1 - i if is_reverse else i

    def at(x: jax.Array, i: jax.Array) -> jax.Array:
        return lax.dynamic_index_in_dim(x, place(i), axis, keepdims=False)

    # A chunk turns a state h into whole * h + part.
    def compose(i: jax.Array, totals: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        whole, part = totals
        return whole * at(decay, i), _step(part, at(decay, i), at(new, i), is_reverse)[0]

    nothing = zeros_after(decay, (*lead, num_chunks, width), jnp.float32)
    whole, part = lax.fori_loop(0, chunk, compose, (nothing + 1.0, nothing))

    def hand_on(
        carry: jax.Array, totals: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return totals[0] * carry + totals[1], carry

    by_chunk = jnp.moveaxis(whole, -2, 0), jnp.moveaxis(part, -2, 0)
    _, start = lax.scan(hand_on, nothing[..., 0, :], by_chunk, reverse=is_reverse)

    def fill(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        carry, results = state
        carry, result = _step(carry, at(decay, i), at(new, i), is_reverse)
        return carry, lax.dynamic_update_index_in_dim(results, result, place(i), axis)

    results = zeros_after(decay, decay.shape, jnp.float32)
    _, results = lax.fori_loop(0, chunk, fill, (jnp.moveaxis(start, 0, -2), results))
    return results.reshape(*lead, num_chunks * chunk, width)[..., :length, :]


def cross_scan(x: jax.Array) -> jax.Array:
    """The pixels of a map in four orders: f[N,H,W,C] -> f[4,N,H*W,C].

    The orders are row after row, column after column, and both of them from the end.
    """
    n, height, width, channels = x.shape
    rows = x.reshape(n, height * width, channels)
    columns = x.swapaxes(1, 2).reshape(n, height * width, channels)
    return jnp.stack([rows, columns, rows[:, ::-1], columns[:, ::-1]])


def cross_merge(y: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The transpose of `cross_scan`: f[4,N,H*W,C] -> f[N,H,W,C], the sum of the four at each pixel.

    Args:
      y: sequences in the orders of `cross_scan`.
      size: H, W.

    Raises:
      ValueError: not four sequences, or another number of pixels.
    """
    height, width = size
    if y.ndim != 4 or y.shape[0] != 4 or y.shape[2] != height * width:
        raise ValueError(
            f"cross_merge: expected [4,N,{height * width},C] for a map of {height}x{width}; found"
            f" {y.shape}."
        )
    _, n, _, channels = y.shape
    rows, columns = y[0] + y[2, :, ::-1], y[1] + y[3, :, ::-1]
    rows = rows.reshape(n, height, width, channels)
    return rows + columns.reshape(n, width, height, channels).swapaxes(1, 2)

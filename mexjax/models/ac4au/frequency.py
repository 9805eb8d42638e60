"""A clip's features split by frequency over time: the constant part (DC) and the rest (AC).

The frequency-aware redundancy decomposer of AC4AU ("Regulatory Focus Theory Induced
Micro-Expression Analysis with Structured Representation Learning", ACM MM 2025). For l frames F,

    F_k = sum_t F_t exp(-2 pi i k t / l),     k = 0 ... l // 2     (real FFT over time)
    DC  = F_0 = sum_t F_t
    AC  = the inverse transform of the spectrum without bin 0.

The inverse of a spectrum that has bin 0 alone is the constant F_0 / l, so AC_t = F_t - mean F: no
transform is needed, and a clip of equal frames, or a vector added to every frame, gives nothing.

Equation 3 of the paper, as printed, sums Re(F_k exp(2 pi i k t / l)) over k = 1 ... l // 2 without
1 / l and without counting the bins that have a conjugate twice. It is exactly

    l odd:   l / 2 * AC_t
    l even:  l / 2 * AC_t + (-1)^t / 2 * N,    N = sum_s (-1)^s F_s   (the last bin)

so for even l the fastest alternation has twice the weight of the rest.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mexjax.cpu.sums import sum_terms
from mexjax.errors import ConfigError, unknown_name

MODES = ("irfft", "eq3")


def frd(
    x: jax.Array, *, mode: str = "irfft", bands: tuple[int, int] | None = None
) -> tuple[jax.Array, jax.Array]:
    """Decomposes features over time, along the second last axis.

    Args:
      x: f[..., l, C].
      mode: `irfft`, the inverse transform computed as the mean subtraction that it is; `eq3`,
        equation 3 as printed.
      bands: keep bins a ... b of the real FFT, both included, 1 <= a <= b <= l // 2; None: all. A
        band is a product with one l x l matrix.

    Returns:
      DC f[..., C], the sum over time (bands leave it alone), and AC f[..., l, C].

    Raises:
      ConfigError: an unknown mode, bands that the clip does not have, or no axis of time.
    """
    if mode not in MODES:
        raise ConfigError(unknown_name("mode of the frequency decomposition", mode, MODES))
    if x.ndim < 2 or x.shape[-2] < 1:
        raise ConfigError(f"The frequency decomposition takes [..., l, C]; found {x.shape}.")
    length = x.shape[-2]
    if bands is not None and not 1 <= bands[0] <= bands[1] <= length // 2:
        raise ConfigError(
            f"Bands {tuple(bands)} of {length} frames: expected 1 <= first <= last <="
            f" {length // 2}."
        )
    # Frames are added one by one: a reduction over an outer axis is a slow loop on the CPU.
    total = sum_terms(x[..., t, :] for t in range(length))
    if bands is not None:
        matrix = _band_matrix(length, *bands, is_printed=mode == "eq3")
        # Rows of the matrix sum to zero; rounded by a GPU, they would let the constant part pass.
        highest = jax.lax.Precision.HIGHEST
        bins = jnp.einsum("ts,...sc->...tc", jnp.asarray(matrix, x.dtype), x, precision=highest)
        return total, bins
    changing = x - total[..., None, :] / length
    if mode == "irfft":
        return total, changing
    printed = length / 2 * changing
    if length % 2 == 0:
        signs = jnp.asarray((-1.0) ** np.arange(length), x.dtype)[:, None]
        alternating = sum_terms(x[..., t, :] * (-1) ** t for t in range(length))
        printed += signs * alternating[..., None, :] / 2
    return total, printed


def _band_matrix(length: int, first: int, last: int, *, is_printed: bool) -> np.ndarray:
    """The matrix f64[l, l] from F to its bins first ... last, by the inverse or by equation 3."""
    t, s = np.meshgrid(np.arange(length), np.arange(length), indexing="ij")
    matrix = np.zeros((length, length))
    for k in range(first, last + 1):
        has_conjugate = 2 * k != length
        weight = 1.0 if is_printed else (2.0 if has_conjugate else 1.0) / length
        matrix += weight * np.cos(2 * np.pi * k * (t - s) / length)
    return matrix

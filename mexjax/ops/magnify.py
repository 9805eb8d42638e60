"""Motion magnification of one frame against another, without any learned weights.

`factor` m is the total displacement: what moved by d from the onset to the frame moves by m d in
the result, so m = 1 changes nothing. (Oh et al., ECCV 2018, write 1 + alpha for it.)

    linear   y = a + m (b - a): Wu et al., "Eulerian video magnification", SIGGRAPH 2012. It is
             right below about 0.3 px, and multiplies noise by more than m.
    phase    the phase of every band of a complex steerable pyramid moves m times as far: Wadhwa et
             al., "Phase-based video motion processing", SIGGRAPH 2013, for two frames instead of a
             video and without subsampling. It is right up to about m d = 6 px, the coarsest
             useful band.

On a texture of 64 x 64 px and m = 3 phase moves it 2.6 d for d = 1 px, linear 2.3 d; phase falls
short because the two residuals of the pyramid are not moved. Results made with `phase` are not
those of a learned magnifier and should be labelled so.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ("none", "linear", "phase")
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

_FLOOR = 1e-8  # least amplitude, against a division by zero


def linear_magnify(first: jax.Array, second: jax.Array, factor: float | jax.Array) -> jax.Array:
    """The frame `first + factor (second - first)`: f[...] twice -> f[...]."""
    return first + factor * (second - first)


def phase_magnify(
    first: jax.Array,
    second: jax.Array,
    factor: float | jax.Array,
    *,
    num_levels: int | None = None,
    num_orientations: int = 4,
    sigma_px: float = 2.0,
    padding_px: int = 16,
) -> jax.Array:
    """Magnify the motion from `first` to `second` by phases.

    With fx, fy the frequencies in cycles per pixel, r = 2 sqrt(fx^2 + fy^2) (1 at Nyquist) and
    t_k = clip(log2 r + k + 1, 0, 1), lo_k = cos(pi t_k / 2), hi_k = sin(pi t_k / 2), the filters
    are hi_0, lo_K and, for levels k = 1 ... K and orientations b = 0 ... O - 1,

        G_kb = lo_{k-1} hi_k c max(cos(theta - pi b / O), 0)^{O-1},
        c = 2^{O-1} (O-1)! / sqrt(O (2 (O-1))!)

    so that hi_0^2 + lo_K^2 + sum (G(f)^2 + G(-f)^2) = 1 (Portilla and Simoncelli, 2000). The phase
    difference of a band is smoothed with the band's amplitude as weight.

    Args:
      first: f[..., H, W], the onset's luma; integers are taken as they are.
      second: f[..., H, W], the frame whose motion is magnified.
      factor: total displacement, 1 is the identity; may be traced, a scalar.
      num_levels: K; None: floor(log2 min(H, W)) - 2, which is 5 at 224 px.
      num_orientations: O.
      sigma_px: deviation of the Gaussian that smooths phase differences; 0: off.
      padding_px: mirrored border against wrapping around; 0: the image is periodic.

    Returns:
      f[..., H, W] in float32 (float64 for float64 input), not clipped.

    Raises:
      ValueError: shapes that differ, or an image not larger than its border.
    """
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(
            f"phase_magnify: expected two f[..., H, W] of one shape; found {first.shape} and"
            f" {second.shape}"
        )
    height, width = first.shape[-2:]
    if min(height, width) <= max(padding_px, 7):
        raise ValueError(
            f"phase_magnify: an image of {width}x{height} px is too small; it must be larger than"
            f" 7 px and than its border (padding_px={padding_px})"
        )
    levels = num_levels or int(math.log2(min(height, width))) - 2
    dtype = jnp.result_type(first, second, jnp.float32)
    size = (height + 2 * padding_px, width + 2 * padding_px)
    residual, bands = steerable_filters(size, levels, num_orientations)
    blur = gaussian_transfer(size, sigma_px) if sigma_px > 0 else None
    border = [(0, 0)] * (first.ndim - 2) + [(padding_px, padding_px)] * 2
    out = _magnify_phases(
        jnp.pad(first.astype(dtype), border, mode="reflect"),
        jnp.pad(second.astype(dtype), border, mode="reflect"),
        jnp.asarray(factor, dtype),
        residual.astype(dtype),
        bands.astype(dtype),
        None if blur is None else blur.astype(dtype),
    )
    return out[..., padding_px : padding_px + height, padding_px : padding_px + width]


@jax.jit
def _magnify_phases(
    first: jax.Array,
    second: jax.Array,
    factor: jax.Array,
    residual: jax.Array,
    bands: jax.Array,
    blur: jax.Array | None,
) -> jax.Array:
    """The magnified frame f[..., H, W] from padded frames and the filters of the pyramid."""
    spectra = jnp.fft.fft2(jnp.stack([first, second]))[..., None, :, :]  # (2, ..., 1, H, W)
    # All bands share one inverse transform: the real part of a sum is the sum of the real parts.
    total = spectra[1, ..., 0, :, :] * residual
    for band in bands:  # (O, H, W)
        c_first, c_second = jnp.fft.ifft2(spectra * band)  # (..., O, H, W) each
        delta = jnp.angle(c_second * jnp.conj(c_first))
        if blur is not None:
            weight = jnp.abs(c_second) + _FLOOR
            # Two real images are blurred as one complex one: the kernel is real.
            both = jnp.fft.ifft2(jnp.fft.fft2(weight * (delta + 1j)) * blur)
            delta = both.real / jnp.maximum(both.imag, _FLOOR)
        bands_moved = c_second * jnp.exp(1j * (factor - 1) * delta)
        total = total + (2 * jnp.fft.fft2(bands_moved) * band).sum(axis=-3)
    return jnp.fft.ifft2(total).real


@functools.lru_cache(maxsize=16)
def steerable_filters(
    size: tuple[int, int], num_levels: int, num_orientations: int
) -> tuple[np.ndarray, np.ndarray]:
    """The transfer functions of the pyramid (see `phase_magnify`).

    Args:
      size: H, W.
      num_levels: K.
      num_orientations: O.

    Returns:
      hi_0^2 + lo_K^2 as f64[H, W], and the bands f64[K, O, H, W]; frequencies as `fft2` has them.
    """
    fy, fx = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), indexing="ij")
    radius, theta = 2 * np.hypot(fx, fy), np.arctan2(fy, fx)
    with np.errstate(divide="ignore"):
        octave = np.log2(radius)  # minus infinity at 0: every low-pass is 1 there

    def low_high(k: int) -> tuple[np.ndarray, np.ndarray]:
        t = np.clip(octave + k + 1, 0, 1)
        return np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)

    power = num_orientations - 1
    gain = 2**power * math.factorial(power)
    gain /= math.sqrt(num_orientations * math.factorial(2 * power))
    angular = [
        gain * np.maximum(np.cos(theta - np.pi * b / num_orientations), 0) ** power
        for b in range(num_orientations)
    ]
    radial = [low_high(k - 1)[0] * low_high(k)[1] for k in range(1, num_levels + 1)]
    bands = np.array(radial)[:, None] * np.array(angular)[None]
    residual = low_high(0)[1] ** 2 + low_high(num_levels)[0] ** 2
    for array in (residual, bands):
        array.setflags(write=False)
    return residual, bands


@functools.lru_cache(maxsize=16)
def gaussian_transfer(size: tuple[int, int], sigma_px: float) -> np.ndarray:
    """The transfer function exp(-2 pi^2 sigma^2 |f|^2) of a periodic Gaussian blur, f64[H, W]."""
    fy, fx = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), indexing="ij")
    transfer = np.exp(-2 * np.pi**2 * sigma_px**2 * (fx**2 + fy**2))
    transfer.setflags(write=False)
    return transfer


def magnify(
    onset: jax.Array,
    frames: jax.Array,
    factor: float | jax.Array,
    *,
    method: str = "phase",
    sigma_px: float = 2.0,
    padding_px: int = 16,
) -> jax.Array:
    """Magnify the luma of images and keep their chroma.

    Y' of ITU-R BT.601 is magnified and its change added to R, G and B alike, which leaves Cb and Cr
    as they are.

    Args:
      onset: f[..., H, W, C] in [0, 1], C = 3 (RGB) or 1.
      frames: f[..., H, W, C] of the same shape.
      factor: total displacement, 1 is the identity.
      method: one of `METHODS`.
      sigma_px: see `phase_magnify`.
      padding_px: see `phase_magnify`.

    Returns:
      f[..., H, W, C], clipped to [0, 1].

    Raises:
      ValueError: an unknown method, or shapes that do not fit.
    """
    if method == "none":
        return jnp.clip(frames, 0, 1)
    if onset.shape != frames.shape or frames.ndim < 3 or frames.shape[-1] not in (1, 3):
        raise ValueError(
            f"magnify: expected two f[..., H, W, 1 or 3] of one shape; found {onset.shape} and"
            f" {frames.shape}"
        )
    before, luma = _luma(onset), _luma(frames)
    if method == "linear":
        result = linear_magnify(before, luma, factor)
    elif method == "phase":
        result = phase_magnify(before, luma, factor, sigma_px=sigma_px, padding_px=padding_px)
    else:
        raise ValueError(f"magnify: unknown method {method!r}; known: {', '.join(METHODS)}")
    return jnp.clip(frames + (result - luma)[..., None], 0, 1)


def _luma(image: jax.Array) -> jax.Array:
    """The luma f[..., H, W] of f[..., H, W, C], by a sum: matrix products round on GPUs."""
    if image.shape[-1] == 1:
        return image[..., 0]
    return LUMA[0] * image[..., 0] + LUMA[1] * image[..., 1] + LUMA[2] * image[..., 2]

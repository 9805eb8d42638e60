"""The loss of JPEG compression, without a codec: the same bits on every machine and version."""

from __future__ import annotations

import functools

import numpy as np

# The numbers are tables K.1 and K.2 of ITU-T T.81.
_LUMINANCE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62  18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMINANCE = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)


@functools.cache
def quantisation_tables(quality: int) -> np.ndarray:
    """f32[2, 8, 8]: luminance and chrominance steps at a quality from 1 to 100 (libjpeg's rule)."""
    base = np.array([_LUMINANCE.split(), _CHROMINANCE.split()], float).reshape(2, 8, 8)
    scale = 200 - 2 * quality if quality >= 50 else 5000 / quality
    return np.clip(np.floor((base * scale + 50) / 100), 1, 255).astype(np.float32)


@functools.cache
def _dct() -> np.ndarray:
    """f32[8, 8]: orthonormal DCT-II; row k is frequency k."""
    k, n = np.arange(8)[:, None], np.arange(8)[None]
    basis = np.cos(np.pi * k * (2 * n + 1) / 16) * np.sqrt(2 / 8)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def compress(images: np.ndarray, quality: int) -> np.ndarray:
    """Images as they are after JPEG compression (4:4:4) and decompression.

    Args:
      images: f32[T, H, W, C], whole gray levels from 0 to 255, C 1 or 3 (RGB).
      quality: 1 to 100.

    Returns:
      f32[T, H, W, C], not rounded or clipped. Edges are repeated to whole blocks of 8.
    """
    t, h, w, channels = images.shape
    tables = quantisation_tables(quality)
    values = images @ _TO_YCC.T if channels == 3 else images
    planes = np.moveaxis(values, 3, 1)
    pad = [(0, 0), (0, 0), (0, -h % 8), (0, -w % 8)]
    if h % 8 or w % 8:
        planes = np.pad(planes, pad, mode="edge")
    rows, columns = planes.shape[2] // 8, planes.shape[3] // 8
    blocks = planes.reshape(t, channels, rows, 8, columns, 8).swapaxes(3, 4)
    center = np.array([128] + [0] * (channels - 1), np.float32).reshape(-1, 1, 1, 1, 1)
    steps = tables[[0] + [1] * (channels - 1)].reshape(channels, 1, 1, 8, 8)
    dct = _dct()
    coefficients = np.round((dct @ (blocks - center) @ dct.T) / steps) * steps
    blocks = dct.T @ coefficients @ dct + center
    planes = blocks.swapaxes(3, 4).reshape(planes.shape)[:, :, :h, :w]
    values = np.moveaxis(planes, 1, 3)
    return values @ np.linalg.inv(_TO_YCC).T if channels == 3 else values

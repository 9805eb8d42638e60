"""The apex as the frame about which a face changes fastest, found with a 3-D Fourier transform.

This is our reading of the baseline "3DF-N" that GAMDSS compares with. The cited article (Li, Huang,
Zhao, "Joint Local and Global Information Learning With Single Apex Frame Detection for
Micro-Expression Recognition", IEEE TIP 2021) spots the apex in the frequencies of local
spatio-temporal blocks; it does not give the meaning of N or the fate of onset and offset. Here N is
the frames of a block, and onset and offset stay as annotated.
"""

from __future__ import annotations

import numpy as np

from mexjax.errors import ConfigError, DataError

BLOCKS = 6  # blocks along each side of the face
HIGH_PASS = 1.0  # bins: changes nearer to the origin of the 3-D spectrum are slow and uniform


def spot_apex(
    frames: np.ndarray, *, num_frames: int = 5, blocks: int = BLOCKS, high_pass: float = HIGH_PASS
) -> int:
    """The place about which the summed high-frequency amplitude of all blocks is largest.

    Args:
      frames: u8[T, H, W], luma, from onset to offset.
      num_frames: N, frames of a block; the window slides over the clip and tells of its centre.
      blocks: blocks along each side; pixels that do not divide evenly are cut off at the lower
        right.
      high_pass: radius in bins of the part of the spectrum that does not count, beside all that
        does not change in time.

    Returns:
      A place in `frames`; the first of several; the middle of a clip shorter than N.

    Raises:
      ConfigError: fewer than 2 frames or 1 block.
      DataError: no frame, or frames smaller than the blocks are many.
    """
    if num_frames < 2 or blocks < 1:
        raise ConfigError(
            f"3-D blocks need at least 2 frames and 1 block a side, found {num_frames}, {blocks}."
        )
    if frames.ndim != 3 or not len(frames) or min(frames.shape[1:]) < blocks:
        raise DataError(
            f"Expected frames [T,H,W] of at least {blocks} x {blocks} pixels, found"
            f" {list(frames.shape)}."
        )
    if len(frames) < num_frames:
        return len(frames) // 2
    height, width = (size // blocks for size in frames.shape[1:])
    cut = frames[:, : height * blocks, : width * blocks].astype(np.float32)
    cut = cut.reshape(-1, blocks, height, blocks, width).transpose(1, 3, 0, 2, 4)
    keep = _high_band((num_frames, height, width), high_pass)
    amplitudes = [
        (np.abs(np.fft.rfftn(cut[:, :, t : t + num_frames], axes=(2, 3, 4))) * keep).sum()
        for t in range(len(frames) - num_frames + 1)
    ]
    return int(np.argmax(amplitudes)) + num_frames // 2


def _high_band(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    """f32[N, h, w // 2 + 1]: 1 where a frequency is far from the origin and not constant in time.

    Only half of the last axis is computed; its inner bins stand for two.
    """
    axes = [np.fft.fftfreq(n, 1 / n) for n in shape[:2]] + [np.fft.rfftfreq(shape[2], 1 / shape[2])]
    time, row, column = np.meshgrid(*axes, indexing="ij")
    is_kept = (np.sqrt(time**2 + row**2 + column**2) > radius) & (time != 0)
    twice = np.where((column > 0) & (2 * column < shape[2]), 2, 1)
    return (is_kept * twice).astype(np.float32)

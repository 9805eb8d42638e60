"""Weights made by a written rule, so that golden figures need no weight file beside them.

Each entry of a state dict is drawn by numpy's PCG64, seeded with the CRC-32 of its name, in
PyTorch's shape. The golden figures were computed by the released PyTorch code with these weights.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np


def rule_array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array called `name`.

    Two or more axes: normal / sqrt(entries of a row), of embeddings of tokens and positions 0.02
    normal. One axis: "weight" belongs to a norm and is 1 + 0.1 normal, "running_mean" 0.05 normal,
    "running_var" uniform in [0.5, 1.5), any other a bias, 0.02 normal. A counter is zero.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        return (0.5 + rng.random(shape)).astype(np.float32)
    values = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("running_mean"):
        return np.float32(0.05) * values
    if len(shape) >= 2 and not name.endswith(
        ("token_embedding.weight", "position_embedding.weight")
    ):
        return values * np.float32(1 / math.sqrt(math.prod(shape[1:])))
    if len(shape) == 1 and name.endswith("weight"):
        return 1 + np.float32(0.1) * values
    return np.float32(0.02) * values


def rule_state(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, np.ndarray]:
    """The state dict with these names and shapes; each is seeded with `prefix` + its name."""
    return {name: rule_array(prefix + name, shape) for name, shape in shapes.items()}

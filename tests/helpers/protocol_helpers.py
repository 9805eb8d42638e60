"""The part of the configuration that protocols read, and the worked example of key frames."""

from __future__ import annotations

import dataclasses

import numpy as np

# Mean brightness of every frame of the clip that the rule's worked examples use.
BRIGHTNESS = (
    12, 10, 11, 13, 16, 20, 25, 31, 38, 46, 55, 64, 74, 84, 95, 107, 118, 130, 141, 150, 146,
    152, 149, 140, 128, 114, 100, 88, 77, 67, 58, 50, 43, 37, 32, 28, 25, 22, 20, 18, 17, 16,
    15, 14, 13, 12, 11, 9, 14, 12, 13, 8, 7, 6, 5,
)  # fmt: skip


@dataclasses.dataclass
class Config:
    """The part of the configuration that protocols read."""

    name: str = "loso"
    classes: int | str = 5
    num_splits: int = 5
    num_validation_subjects: int = 0
    task: str = "emotion"
    units: str = "cd6me"
    is_unsure_present: bool = False
    class_map: str = ""


def clip_of(values) -> np.ndarray:
    """A clip u8[T,1,1,1] of one pixel with these values."""
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)

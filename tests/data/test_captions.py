"""Captions: legible on any ground, nothing of them away from their letters."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mexjax.data.captions import caption

GROUND = 128


def drawn(text: str, width: int = 300) -> np.ndarray:
    image = np.full((40, width, 3), GROUND, np.uint8)
    caption(image, text)
    return image[..., 0]


def test_the_edge_lies_around_the_letters_and_nowhere_else():
    image = drawn("EP02 01f 68 x2")
    letters = (image > 180).astype(np.uint8)
    assert letters.sum() > 80 and (image < 25).sum() > 200
    around = cv2.dilate(letters, np.ones((7, 7), np.uint8)) > 0
    assert (image[~around] == GROUND).all()


@pytest.mark.parametrize("text", ["", "too long to fit " * 20, "Ünïcödé 表情"])
def test_any_text(text: str):
    image = drawn(text, width=90)
    assert (image != GROUND).any() == bool(text)
    assert (image[20:] == GROUND).all()


def test_a_part_of_a_picture_is_written_in_place():
    image = np.full((60, 100, 3), GROUND, np.uint8)
    caption(image[30:], "below")
    assert (image[:30] == GROUND).all() and (image[30:] != GROUND).any()

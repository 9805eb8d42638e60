"""Frame sampling against published figures and its own promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexjax.data.sampling import RULES, nearest_frame, sample_indices
from mexjax.errors import ConfigError, DataError

# T -> (linspace, floor_stride), n = 8: worked out by hand from the two formulas.
TABLE = {
    1: ([0] * 8, [0] * 8),
    3: ([0, 1, 2, 2, 2, 2, 2, 2], [0, 1, 2, 2, 2, 2, 2, 2]),
    7: ([0, 1, 2, 3, 4, 5, 6, 6], [0, 1, 2, 3, 4, 5, 6, 6]),
    8: ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]),
    9: ([0, 1, 2, 3, 4, 5, 6, 8], [0, 1, 2, 3, 4, 5, 6, 7]),
    10: ([0, 1, 2, 3, 5, 6, 7, 9], [0, 1, 2, 3, 5, 6, 7, 8]),
    20: ([0, 2, 5, 8, 10, 13, 16, 19], [0, 2, 5, 7, 10, 12, 15, 17]),
    100: ([0, 14, 28, 42, 56, 70, 84, 99], [0, 12, 25, 37, 50, 62, 75, 87]),
}


@pytest.mark.parametrize("length", TABLE)
def test_the_two_rules_of_ac4au(length: int):
    linspace, floor_stride = TABLE[length]
    assert sample_indices(length, 8).tolist() == linspace
    assert sample_indices(length, 8, rule="floor_stride").tolist() == floor_stride


def test_linspace_is_what_numpy_gives_cut_to_integers():
    for length in range(8, 2000):
        expected = np.linspace(0, length - 1, 8).astype(int)
        np.testing.assert_array_equal(sample_indices(length, 8), expected)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(15, list(range(8))), (16, [0, 2, 4, 6, 8, 10, 12, 14]), (23, [0, 2, 4, 6, 8, 10, 12, 14])],
)
def test_the_released_stride_of_fdp_misses_the_tail(length: int, expected: list[int]):
    assert sample_indices(length, 8, rule="stride").tolist() == expected


@pytest.mark.parametrize(
    ("length", "offset", "expected"),
    [
        (8, 0.5, [0, 1, 2, 3, 4, 5, 6, 7]),
        (80, 0.0, [0, 10, 20, 30, 40, 50, 60, 70]),
        (80, 0.5, [5, 15, 25, 35, 45, 55, 65, 75]),
        (80, 0.99, [9, 19, 29, 39, 49, 59, 69, 79]),
        (20, 0.5, [1, 3, 6, 8, 11, 13, 16, 18]),
    ],
)
def test_segments(length: int, offset: float, expected: list[int]):
    assert sample_indices(length, 8, rule="segment", offset=offset).tolist() == expected


@given(
    st.sampled_from(sorted(RULES)),
    st.integers(1, 400),
    st.integers(1, 40),
    st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=200, deadline=None)
def test_indices_lie_in_the_clip_and_never_fall(rule, length, num, offset):
    indices = sample_indices(length, num, rule=rule, offset=offset)
    assert indices.shape == (num,) and indices.dtype == np.int64
    assert indices.min() >= 0 and indices.max() < length
    assert (np.diff(indices) >= 0).all()
    if length >= num:
        assert len(set(indices.tolist())) == num
    if rule == "linspace" and num > 1:
        assert (indices[0], indices[-1]) == (0, length - 1)


@given(st.integers(8, 300), st.floats(0, 1, exclude_max=True))
@settings(max_examples=50, deadline=None)
def test_each_segment_gives_one_frame(length: int, offset: float):
    indices = sample_indices(length, 8, rule="segment", offset=offset)
    ends = np.arange(9) * length / 8
    assert ((indices > ends[:-1] - 1) & (indices < ends[1:])).all()


def test_short_clips_may_be_refused():
    with pytest.raises(DataError, match="has 7 frames and 8 are wanted"):
        sample_indices(7, 8, short="refuse")
    assert sample_indices(8, 8, short="refuse").tolist() == list(range(8))


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'linspace'"):
        sample_indices(9, 8, rule="linspac")
    with pytest.raises(ConfigError, match="short"):
        sample_indices(9, 8, short="drop")
    with pytest.raises(ConfigError, match=r"\[0, 1\), found 1"):
        sample_indices(9, 8, rule="segment", offset=1)
    with pytest.raises(ConfigError, match="at least 1, found 0"):
        sample_indices(9, 0)
    with pytest.raises(DataError, match="no frame"):
        sample_indices(0, 8)


@pytest.mark.parametrize(
    ("wanted", "place"), [(10, 0), (11, 0), (12, 0), (13, 1), (99, 3), (-5, 0)]
)
def test_nearest_frame_jumps_over_gaps(wanted: int, place: int):
    assert nearest_frame(np.array([10, 14, 15, 20]), wanted) == place


def test_nearest_of_nothing():
    with pytest.raises(DataError, match="no frame"):
        nearest_frame(np.array([], np.int64), 3)

"""Key frames chosen anew: the worked examples of the rule, its edges, and what it may not touch."""

import numpy as np
import pytest
from protocol_helpers import BRIGHTNESS, clip_of

from mexjax.data import keyframes
from mexjax.data.keyframes import Rule, reselect
from mexjax.errors import ConfigError, DataError

A = list(BRIGHTNESS)
SHORT = [5, 2, 9, 20, 40, 70, 100, 120, 125, 124, 110, 90, 70, 50, 30, 20, 10, 6, 7, 3]


def wrapping():
    values = [100 + i if i <= 20 else 140 - i if i < 40 else 100 for i in range(60)]
    for place, value in {1: 102, 18: 99, 19: 130, 20: 118}.items():
        values[place] = value
    return values


@pytest.mark.parametrize(
    ("values", "annotated", "rule", "expected"),
    [
        (A, (0, 20, 50), Rule(), (1, 19, 47)),
        (A, (0, 20, 50), Rule(difference="uint8_wrap"), (1, 19, 47)),
        (A, (0, 20, 50), Rule(window="alg1"), (1, 19, 53)),
        (A, (0, 20, 50), Rule(window="eq2"), (1, 21, 53)),
        (A, (0, 20, 50), Rule(window="apex"), (0, 21, 50)),
        (SHORT, (0, 9, 18), Rule(), (0, 9, 18)),
        (A[:21], (0, 20, 20), Rule(), (1, 19, 20)),
        (A[:21], (0, 20, 20), Rule(window="eq2"), (1, 19, 20)),
        ([7] * 60, (0, 20, 50), Rule(), (0, 20, 50)),
        ([7] * 60, (0, 20, 50), Rule(window="eq2"), (0, 20, 50)),
        (A, (0, 20, 10), Rule(), (1, 19, 10)),
        (wrapping(), (0, 20, 50), Rule(difference="uint8_wrap"), (0, 18, 50)),
        (wrapping(), (0, 20, 50), Rule(), (0, 19, 50)),
    ],
)
def test_worked_examples(values, annotated, rule, expected):
    assert reselect(clip_of(values), *annotated, rule) == expected


def test_order_and_scores_of_the_pairs():
    found = keyframes.pairs(0, 20, 50, 55, Rule())
    assert found == [
        (0, 20), (1, 20), (1, 19), (1, 18), (2, 20), (2, 19), (2, 18), (0, 19), (0, 18),
    ]  # fmt: skip
    scores = [abs(A[a] - A[o]) for o, a in found]
    assert scores == [134, 131 + 5, 140, 131, 135, 139, 130, 138, 129]
    assert keyframes.offsets(20, 50, 19, 55, Rule()) == [50, 49, 48, 47]
    assert len(keyframes.pairs(0, 20, 50, 55, Rule(window="eq2"))) == 3 * 5


def test_pairs_of_the_printed_windows():
    rule = Rule(window="alg1", lambda_rise=0.1)
    assert keyframes.pairs(3, 14, 30, 40, rule) == [(4, 14), (4, 13), (3, 13)]
    assert keyframes.offsets(14, 34, 13, 40, rule) == [35, 36]
    rule = Rule(window="eq2", lambda_rise=0.1)
    found = keyframes.pairs(3, 14, 14, 40, rule)  # an apex that may not pass the offset
    assert found == [(3, 14), (3, 13), (4, 14), (4, 13)]
    assert keyframes.pairs(3, 14, 30, 40, rule) == [
        (3, 14), (3, 13), (3, 15), (4, 14), (4, 13), (4, 15),
    ]  # fmt: skip
    assert keyframes.pairs(3, 14, 30, 40, Rule(window="apex")) == [(3, 14), (3, 13), (3, 15)]
    assert keyframes.offsets(14, 30, 13, 40, Rule(window="apex")) == [30]
    assert keyframes.offsets(14, 34, 13, 36, rule) == [34, 35]


def test_reach_is_the_truncated_product():
    for share in (0.05, 0.1, 0.15, 0.2, 0.25):
        hundredths = round(share * 100)
        for length in range(400):
            assert keyframes.reach(share, 7, 7 + length) == hundredths * length // 100
    assert keyframes.reach(0.1, 50, 10) == 0


def brute_force(frames, onset, apex, offset, rule):
    """Every candidate by itself, differences of whole frames."""

    def norm(p, q):
        d = frames[p] - frames[q]  # wraps
        if rule.difference == "signed":
            d = frames[p].astype(int) - frames[q].astype(int)
        if rule.difference == "same_light":
            d = 128 * (frames[p] / frames[p].mean() - frames[q] / frames[q].mean())
            return round(float(np.square(d).sum()), 6)
        return int(np.square(d.astype(int)).sum())

    best = max(
        keyframes.pairs(onset, apex, offset, len(frames), rule), key=lambda x: norm(*x[::-1])
    )
    later = keyframes.offsets(apex, offset, best[1], len(frames), rule)
    return (*best, max(later, key=lambda place: norm(best[1], place)))


@pytest.mark.parametrize("window", keyframes.WINDOWS)
@pytest.mark.parametrize("difference", keyframes.DIFFERENCES)
def test_gram_matrix_finds_what_every_pair_by_itself_does(window, difference, monkeypatch):
    monkeypatch.setattr(keyframes, "_BLOCK", 7)  # several blocks, the last one shorter
    rng = np.random.default_rng(3)
    rule = Rule(window=window, difference=difference, lambda_rise=0.3, lambda_fall=0.2)
    for _ in range(20):
        frames = rng.integers(0, 256, (40, 4, 3, 2), dtype=np.uint8)
        onset, apex, offset = sorted(rng.choice(40, 3, replace=False).tolist())
        found = reselect(frames, onset, apex, offset, rule)
        assert found == brute_force(frames, onset, apex, offset, rule)
        assert 0 <= found[0] < found[1] <= found[2] < 40


@pytest.mark.parametrize("window", keyframes.WINDOWS)
def test_order_holds_for_any_lambda(window):
    rng = np.random.default_rng(5)
    for share in (0.5, 0.8, 1.0):
        rule = Rule(window=window, lambda_rise=share, lambda_fall=share)
        for _ in range(20):
            frames = rng.integers(0, 256, (30, 3, 3, 1), dtype=np.uint8)
            places = sorted(rng.choice(30, 3, replace=False).tolist())
            onset, apex, offset = reselect(frames, *places, rule)
            assert 0 <= onset < apex <= offset < 30


def test_light_that_flickers_is_no_expression():
    rng = np.random.default_rng(0)
    face = rng.integers(40, 160, (8, 8, 1))
    frames = np.repeat(face[None], 60, axis=0).astype(float)
    frames[19, 2:4, 2:4] += 30  # the expression, a frame before the annotated apex
    frames[18] *= 1.2  # the light, two frames before
    frames = frames.round().astype(np.uint8)
    assert reselect(frames, 0, 20, 50, Rule())[1] == 18
    assert reselect(frames, 0, 20, 50, Rule(difference="same_light"))[1] == 19
    still = np.full((60, 4, 4, 1), 7, np.uint8)
    assert reselect(still, 0, 20, 50, Rule(difference="same_light")) == (0, 20, 50)


def test_nothing_outside_the_reach_is_read():
    frames = np.full((60, 2, 2, 1), 7, np.uint8)
    frames[5], frames[30] = 255, 255
    assert reselect(frames, 0, 20, 50, Rule()) == (0, 20, 50)


def test_bad_input_is_told():
    with pytest.raises(ConfigError, match="inward"):
        Rule(window="outward")
    with pytest.raises(ConfigError, match="signed"):
        Rule(difference="absolute")
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="lambda_rise"):
            Rule(lambda_rise=share)
    with pytest.raises(DataError, match="float32"):
        reselect(np.zeros((9, 2, 2, 1), np.float32), 0, 4, 8, Rule())
    with pytest.raises(DataError, match="clip of 9"):
        reselect(np.zeros((9, 2, 2, 1), np.uint8), 0, 4, 9, Rule())

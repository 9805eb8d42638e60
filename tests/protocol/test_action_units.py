"""Action units: strings of every dataset, what must not be guessed, sets, label matrices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexjax.errors import DataError
from mexjax.protocol.action_units import AU_SETS, ParsedAus, is_coded, label_aus, parse_aus


@pytest.mark.parametrize(
    ("text", "present", "unsure", "static"),
    [
        ("4+15+R10", (4, 10, 15), (), ()),
        ("R12 + R15", (12, 15), (), ()),
        ("T28+14", (14, 28), (), ()),
        ("L14A", (14,), (), ()),
        ("AUR2+12(k)+45", (2, 45), (), (12,)),
        ("14,L24,", (14, 24), (), ()),
        ("4，11", (4, 11), (), ()),
        ("13?", (), (13,), ()),
        ("AU4(k)+L7", (7,), (), (4,)),
        # Spellings that follow from the grammar.
        ("L5+R6B+B25", (5, 6, 25), (), ()),
        ("10+2+1", (1, 2, 10), (), ()),
        ("4++7,", (4, 7), (), ()),
        ("au4 + l7", (4, 7), (), ()),
        ("AU04", (4,), (), ()),
        ("4（k）＋13？", (), (13,), (4,)),
        # One unit on two sides: what moves on one side moves.
        ("L12?+R12", (12,), (), ()),
        ("L4(k)+R4", (4,), (), ()),
        ("L4(k)+R4?", (), (4,), ()),
    ],
)
def test_strings(text, present, unsure, static):
    assert parse_aus(text) == ParsedAus(present, unsure, static)


@pytest.mark.parametrize("cell", [4, 4.0, np.int64(4), np.float64(4), " 4 "])
def test_numbers_that_spreadsheets_make(cell):
    assert parse_aus(cell) == ParsedAus((4,))


@pytest.mark.parametrize("cell", [None, float("nan"), np.nan, "", "  ", "/", ",", "+"])
def test_empty_cells(cell):
    assert parse_aus(cell) == ParsedAus()


@pytest.mark.parametrize(
    "text",
    [
        *("12 or 14", "L14 or R14", "1214", "4/7", "4 7", "4-7", "x4", "4(x)", "?", "4+?", "0+4"),
        *("AU", "²", 4.5, True),
    ],
)
def test_nothing_is_guessed(text):
    with pytest.raises(DataError, match="action units"):
        parse_aus(text)


@pytest.mark.parametrize("cell", [0, 0.0, "0", "AU0", "none", " None "])
def test_cells_that_say_that_there_is_no_unit(cell):
    assert parse_aus(cell) == ParsedAus()


def test_units_that_were_not_coded_are_unknown():
    cells = ["4", "", "0", "none", "4 or 7", "/", "4(k)", "12?", ",", "NA"]
    table = pd.DataFrame({"dataset": ["casme2"] * len(cells), "au": cells})
    known = [True, False, True, True, False, False, True, True, False, False]
    assert is_coded(table).tolist() == known
    assert is_coded(table.assign(dataset="synthetic_casme2")).all()
    assert is_coded(table.drop(columns="au")).all()


def test_an_alternative_is_named_in_the_message():
    with pytest.raises(
        DataError, match=r"Cannot read '12 or 14' in the action units '4\+12 or 14'"
    ):
        parse_aus("4+12 or 14")


@given(st.sets(st.integers(1, 99)), st.sets(st.integers(1, 99)))
def test_what_is_written_is_read(present, unsure):
    unsure -= present
    text = "+".join([f"L{au}B" for au in present] + [f"{au}?" for au in unsure])
    assert parse_aus(text) == ParsedAus(tuple(sorted(present)), tuple(sorted(unsure)))


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        aus = parse_aus(text)
    except DataError:
        return
    units = [*aus.present, *aus.unsure, *aus.static]
    assert len(units) == len(set(units)) and all(0 < au < 100 for au in units)


# --- label matrices ---

TABLE = pd.DataFrame(
    {
        "aus": [["4", "7"], [], ["12", "45"], ["1", "2"]],
        "aus_unsure": [[], ["14"], [], ["4"]],
    }
)


def test_the_sets_of_the_papers():
    assert len(AU_SETS["cd6me"]) == 12
    assert set(AU_SETS["micro_au_samm"]) < set(AU_SETS["micro_au_casme2"]) < set(AU_SETS["cd6me"])


def test_columns_follow_the_units_and_no_clip_is_left_out():
    labels = label_aus(TABLE, "micro_au_casme2")
    assert labels.dtype == np.int8
    np.testing.assert_array_equal(
        labels,
        [
            [0, 0, 1, 1, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0, 0],
        ],
    )
    np.testing.assert_array_equal(label_aus(TABLE, (45, 4))[2], [1, 0])


def test_unsure_units_count_only_when_asked_for():
    sure, all_coded = label_aus(TABLE, "cd6me"), label_aus(TABLE, "cd6me", unsure_is_present=True)
    assert sure.sum() == 5
    assert all_coded.sum() == 7


def test_a_table_without_units_says_so():
    with pytest.raises(DataError, match="no column aus"):
        label_aus(TABLE.drop(columns="aus"), "cd6me")
    with pytest.raises(DataError, match="Did you mean 'cd6me'"):
        label_aus(TABLE, "cdme")

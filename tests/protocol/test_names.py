"""Names that look alike are one name."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexjax.protocol.classes import canonical_emotion
from mexjax.protocol.names import fold, tidy


@pytest.mark.parametrize(
    "text",
    [
        "Jose\u0301 1",  # decomposed, as a Mac writes it
        "Jos\u00e9\u200b 1",  # a blank of no width
        "\ufeffJos\u00e9 1",
        "Jos\u00e9\u00a0\u20091",  # two blanks that are no spaces
        "Jos\u00e9\t 1\u3000",
        "\uff2aos\u00e9 \uff11",  # full-width
        "Jo\u00ads\u00e9 1",  # a soft hyphen
        "Jose\u200d\u0301 1\ufe0f",
    ],
)
def test_spellings_that_look_alike(text):
    assert tidy(text) == "Jos\u00e9 1"


def test_what_looks_different_stays_different():
    names = ["S1", "s1", "S01", "S 1", "S_1", "S-1", "Jose", "Jos\u00e9", "\u5f20", "\u738b"]
    assert [tidy(name) for name in names] == names
    assert fold("Jos\u00c9") == fold("jose\u0301") != fold("jose")
    assert tidy("S\u20111") == "S-1"  # a hyphen where no line is broken


def test_marks_that_programs_put_in_place_of_typed_ones():
    assert {tidy(f"S{dash}1") for dash in "\u2010\u2012\u2013\u2014\u2015\u2212\uff0d"} == {"S-1"}
    assert {tidy(f"O{mark}Brien") for mark in "'\u02bc\u2018\u2019\u2032"} == {"O'Brien"}


def test_emotions_are_read_as_they_look():
    assert canonical_emotion("\uff28appy\u200b ") == "happiness"


@given(st.text(max_size=12))
def test_a_tidy_name_stays(text):
    name = tidy(text)
    assert tidy(name) == name == name.strip() and "  " not in name
    assert tidy(unicodedata.normalize("NFD", text)) == name

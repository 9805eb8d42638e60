"""Names with letters of other scripts that look like Latin ones are told and not united."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from small import small_config

from mexjax.data import loading
from mexjax.data.dataset import Takes
from mexjax.protocol.lookalikes import lines_of_people, lookalikes, looks, with_code_points

TAKES = Takes(model="a model", views=("uniform",), tasks=("emotion", "au"))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Sub a1", "Sub \u0430 1".replace(" 1", "1")),  # Cyrillic a
        ("Tom", "T\u03bfm"),  # Greek omicron
        ("ANNA", "\u0391\u039d\u039d\u0391"),  # Greek capitals alone
        ("anna", "\u0410NNA"),  # a Cyrillic capital, in another case
        ("Zo\u00eb", "Zo\u0451"),  # the letter with its accent is one code point
        ("P5", "\u04205"),
        ("irem", "\u0131rem"),  # dotless i
    ],
)
def test_names_that_look_alike(one, two):
    assert looks(one) == looks(two)
    assert lookalikes([one, two, "other"]) == [(one, two)]
    (line,) = lines_of_people([one, two])
    assert one in line and two in line and "2 people" in line
    letter = next(mark for mark in unicodedata.normalize("NFD", two) if ord(mark) > 0x7F)
    assert f"U+{ord(letter):04X} {unicodedata.name(letter)}" in line


def test_other_names_are_left_alone():
    names = [
        "anna",
        "Anna",
        "anne",
        "s1",
        "\u0441\u04431",
        "\u4f60",
        "\u0431\u0432\u0433",
        "Jos\u00e9",
        "Jose",
    ]
    assert not lookalikes(names)
    assert with_code_points("anna") == "'anna' (Latin letters)"


def test_a_run_says_it_before_it_begins(monkeypatch):
    config = small_config()
    table = loading.SOURCES["synthetic"](config, "annotated", TAKES)[0]
    table["subject"] = [
        f"mine/{name}" for name in np.array(["anna", "\u0430nna"])[np.arange(len(table)) % 2]
    ]
    clips = np.zeros((len(table), 8, 32, 32, 1), np.uint8)
    monkeypatch.setitem(loading.SOURCES, "synthetic", lambda *_: (table, clips))
    notices = loading.load(config, TAKES).notices
    assert [line for line in notices if "U+0430 CYRILLIC SMALL LETTER A" in line]

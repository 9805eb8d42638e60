"""Rows that the CD6ME benchmark changes by their number, on sheets of as many rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from protocol_helpers import Config
from source_helpers import found, read, write_sheet

from mexjax.prepare.sources import Reading, get_source
from mexjax.prepare.sources.cd6me import rules
from mexjax.prepare.sources.counts import published
from mexjax.protocol.splits import label_table

FIELDS = ("subject", "clip", "onset", "apex", "offset", "emotion", "au")
ALTERNATIVES = {
    15: "R12 or R15",
    18: "R12 or L15",
    41: "L14 or 17",
    64: "R14 or 4",
    154: "R14A or 4",
}


def sheet_rows(dataset: str) -> list[list]:
    """Rows like those of the release: each that is to be changed has the flaw it is known for."""
    rule = rules()[dataset]
    rows = []
    for number in range(rule["rows"]):
        key = str(number)
        target = dict(rule.get("ranges", {}).get(key, {}))
        apex = rule.get("apexes", {}).get(key)
        middle = apex or target.get("apex") or target.get("offset", 30) - 10
        onset = target.get("onset", middle - 5)
        row = [number // 10 + 1, f"c{number:03d}", onset, middle, middle + 10, "fear", 45]
        if apex:
            row[3] = "/" if dataset == "casme2" else None
        for column in target:
            row[FIELDS.index(column)] = {"onset": onset - 3, "apex": middle + 1, "offset": 9000}[
                column
            ]
        if dataset == "samm" and number in ALTERNATIVES:
            row[6] = ALTERNATIVES[number]
        rows.append(row)
    return rows


def read_rows(dataset: str, root: Path, rows: list[list]) -> Reading:
    form = get_source(dataset).form
    header = [form.fields[field][0] for field in FIELDS]
    write_sheet(root / form.files[0], [header, *rows])
    return read(dataset, root)


@pytest.mark.parametrize("dataset", ["casme", "casme2", "samm", "mmew"])
def test_ranges_known_by_row_are_those_of_the_benchmark(dataset, tmp_path):
    rule = rules()[dataset]
    reading = read_rows(dataset, tmp_path, sheet_rows(dataset))
    table = reading.table
    assert len(table) == rule["rows"] == published()["datasets"][dataset]["clips"][0]
    changes = {int(number): columns for number, columns in rule["ranges"].items()}
    for number, apex in rule.get("apexes", {}).items():
        changes.setdefault(int(number), {})["apex"] = apex
    for number, columns in changes.items():
        row = table.iloc[number]
        assert {name: row[name] for name in columns} == columns
        assert all(
            f"{name} {value} as CD6ME has it" in row["notes"] for name, value in columns.items()
        )
        lines = found(reading, f"c{number:03d} (row {number + 2}): ")
        assert sum("as CD6ME has it" in line for line in lines) == len(columns)
    others = [number for number in range(len(table)) if number not in changes]
    assert not table.iloc[others]["notes"].str.contains("CD6ME has it: the spreadsheet").any()
    assert len(changes) == {"casme": 5, "casme2": 21, "samm": 4, "mmew": 16}[dataset]


def test_alternative_units_of_samm_count_as_the_benchmark_counts_them(tmp_path):
    rows = sheet_rows("samm")
    counts = dict(
        zip(published()["action_units"], published()["datasets"]["samm"]["aus"], strict=True)
    )
    for unit, share in ((12, 2), (15, 2), (14, 3)):
        counts[unit] -= share  # those of the five rows
    plain = [number for number in range(len(rows)) if number not in ALTERNATIVES]
    for unit, count in counts.items():
        for number in plain[:count]:
            rows[number][6] = f"{rows[number][6]}+{unit}"
    reading = read_rows("samm", tmp_path, rows)
    assert not found(reading, "clips with AU")
    table = reading.table
    assert table["au"][15] == "R12 or R15"  # as coded
    assert [table["aus_unsure"][n] for n in ALTERNATIVES] == [["12", "15"]] * 2 + [["14"]] * 3
    assert len(found(reading, "are doubtful. CD6ME counts")) == 5
    # They count in the benchmark; elsewhere alternatives are unknown, and so the clips are out.
    counted, names = label_table(table, Config(task="au", units="cd6me", is_unsure_present=True))
    assert counted.min() == 0
    assert dict(zip(names, counted.sum(axis=0).tolist(), strict=True)) == {
        f"AU{unit}": count
        for unit, count in zip(
            published()["action_units"], published()["datasets"]["samm"]["aus"], strict=True
        )
    }
    strict, _ = label_table(table, Config(task="au", units="cd6me"))
    assert np.flatnonzero((strict < 0).any(axis=1)).tolist() == list(ALTERNATIVES)


def fourd_rows() -> list[list]:
    """Rows with as many clips of each unit as the benchmark has, and a pair of other labels."""
    rows = sheet_rows("fourd")
    rows[144][5:], rows[145][5:] = ["surprise", "1+2"], ["disgust", "4"]
    counts = dict(
        zip(published()["action_units"], published()["datasets"]["fourd"]["aus"], strict=True)
    )
    for unit in (1, 2, 4):
        counts[unit] -= 1
    for unit, count in counts.items():
        for number in range(count):
            rows[number][6] = f"{rows[number][6]}+{unit}"
    return rows


@pytest.mark.parametrize("unit", [1, 4, 17])
def test_the_pair_of_another_4dme_is_left_alone(unit, tmp_path):
    """A sheet of as many rows is told by the clips of its units; a line has what was expected."""
    rows = fourd_rows()
    rows[200][6] = f"45+{unit}"
    reading = read_rows("fourd", tmp_path, rows)
    assert reading.table["emotion"][144:146].tolist() == ["surprise", "disgust"]
    expected = published()["datasets"]["fourd"]["aus"][published()["action_units"].index(unit)]
    (line,) = found(reading, "is another one")
    assert f"(AU{unit} in {expected + 1} rows and not {expected})" in line


def test_columns_of_units_tell_the_4dme_of_the_benchmark(tmp_path):
    """Their text may have a mistake in one cell."""
    rows = fourd_rows()
    units = published()["action_units"]
    columns = [[int(str(u) in str(row[6]).split("+")) for u in units] for row in rows]
    rows[3][6] = "45"
    form = get_source("fourd").form
    header = [form.fields[field][0] for field in FIELDS] + [f"AU{unit}" for unit in units]
    rows = [[*row, *flags] for row, flags in zip(rows, columns, strict=True)]
    write_sheet(tmp_path / form.files[0], [header, *rows])
    assert found(read("fourd", tmp_path), "emotion and units exchanged, as CD6ME")


@pytest.mark.parametrize("dataset", ["casme", "casme2", "samm", "fourd", "mmew"])
def test_a_sheet_of_other_length_says_how_long_it_should_be(dataset, tmp_path):
    rows = sheet_rows(dataset)[:-1]
    reading = read_rows(dataset, tmp_path, rows)
    (line,) = found(reading, "CD6ME")
    assert f"has {len(rows)} rows and that of CD6ME {len(rows) + 1}" in line
    assert "were not applied" in line


def test_the_pair_of_4dme_is_exchanged(tmp_path):
    rows = fourd_rows()
    reading = read_rows("fourd", tmp_path, rows)
    table = reading.table
    assert table["emotion"][144:146].tolist() == ["disgust", "surprise"]
    assert table["aus"][144:146].tolist() == [["4"], ["1", "2"]]
    assert table["clip"][144:146].tolist() == ["c144", "c145"]
    assert table["onset"][144] == rows[144][2]
    assert found(reading, "15/c144 (row 146) and row 147: emotion and units exchanged, as CD6ME")
    assert "labels exchanged with those of 15/c145" in table["notes"][144]


@pytest.mark.parametrize("dataset", ["casme", "casme2", "samm", "fourd", "mmew"])
def test_a_sheet_in_another_order_is_left_as_it_is(dataset, tmp_path):
    rows = sheet_rows(dataset)
    rows = rows[7:] + rows[:7]  # the first subject stands in two places
    reading = read_rows(dataset, tmp_path / "long/release", rows)
    assert found(reading, "is another one (subjects are mixed)")
    assert not found(reading, "as CD6ME has it")
    reading = read_rows(dataset, tmp_path / "short/release", sheet_rows(dataset)[1:])
    assert not found(reading, "as CD6ME has it")


def test_a_row_without_the_flaw_shows_another_sheet(tmp_path):
    rows = sheet_rows("samm")
    rows[41][6] = "4 or 7"
    assert found(read_rows("samm", tmp_path / "a", rows), "row 43 has the units '4 or 7'")
    rows = sheet_rows("casme2")
    rows[35][3] = rows[35][2] + 1
    assert found(read_rows("casme2", tmp_path / "b/c", rows), "row 37 has the apex")
    rows = sheet_rows("mmew")
    rows[33][2] = 500
    text = "row 35 would be from 500 over 40 to 75"
    assert found(read_rows("mmew", tmp_path / "c", rows), text)


def test_a_sheet_that_was_corrected_already_is_not_changed(tmp_path):
    rows = sheet_rows("samm")
    for number, columns in (("56", {"offset": 5739}), ("125", {"apex": 1105})):
        for column, value in columns.items():
            rows[int(number)][FIELDS.index(column)] = value
    rows[15][6] = "R12 + R15"
    reading = read_rows("samm", tmp_path, rows)
    assert len(found(reading, "as CD6ME has it")) == 2
    assert reading.table["aus"][15] == ["12", "15"]
    assert reading.table["aus_unsure"][15] == []

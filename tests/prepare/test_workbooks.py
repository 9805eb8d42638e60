"""Workbooks with several tables, words that look like nothing, merged cells, rows that repeat."""

from __future__ import annotations

import openpyxl
import pytest
from biff_writer import write_xls
from source_helpers import found, read, write_frames, write_sheet

HEADER = ["subject", "clip", "onset", "apex", "offset", "emotion", "au"]
ROWS = [
    ["anna", "c1", 1, 5, 9, "fear", "4"],
    ["anna", "c2", 1, 5, 9, "sad", "1"],
    ["bert", "c1", 1, 5, 9, "happy", "12"],
]


def frames(root, rows=ROWS):
    for subject, clip, *_ in rows:
        write_frames(root / str(subject) / str(clip), range(1, 10))


def names(reading):
    table = reading.table
    return [f"{s}/{c}" for s, c in zip(table["subject"], table["clip"], strict=True)]


def test_one_table_a_subject(tmp_path):
    frames(tmp_path)
    notes = [["notes"], ["light was changed on day two"]]
    write_sheet(
        tmp_path / "table.xlsx",
        [HEADER, *ROWS[:2]],
        [["a title row"], [], HEADER[::-1], ROWS[2][::-1]],
        notes,
        names=["anna", "bert", "diary"],
    )
    reading = read("csv", tmp_path)
    assert names(reading) == ["csv/anna/c1", "csv/anna/c2", "csv/bert/c1"]
    assert reading.table["aus"].tolist() == [["4"], ["1"], ["12"]]
    assert (reading.table["num_missing_frames"] == 0).all()
    assert found(reading, "2 tables with the same columns, which were joined: anna, bert.")
    assert found(reading, "the tables diary have other columns and were left out; anna was read")


def test_a_row_of_a_second_table_is_named(tmp_path):
    frames(tmp_path)
    write_sheet(tmp_path / "t.xlsx", [HEADER, ROWS[0]], [HEADER, ["bert", "c1", 1, 5, 9, "", "4"]])
    assert found(read("csv", tmp_path), "bert/c1 (row 2 of table 2): no emotion.")


def test_tables_of_a_release_are_joined(tmp_path):
    header = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame"]
    header += ["Estimated Emotion", "Action Units"]
    tables = [[header, [n, "EP1", 1, 5, 9, "others", "4"]] for n in (1, 2, 3)]
    write_sheet(tmp_path / "CASME2-coding-20190701.xlsx", *tables)
    assert read("casme2", tmp_path).table["subject"].tolist() == [f"casme2/0{n}" for n in (1, 2, 3)]


def test_workbooks_of_casme_squared_are_joined(tmp_path):
    rows = [[n, "anger1_1", 1, 5, 9, "4+7", "negative", "micro-expression"] for n in (1, 2)]
    write_sheet(tmp_path / "CAS(ME)^2code_final.xlsx", rows[:1], rows[1:])
    assert read("casme_sq", tmp_path).table["subject"].tolist() == ["casme_sq/s1", "casme_sq/s2"]


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_words_that_stand_for_nothing_elsewhere(tmp_path, suffix):
    words = ["NA", "None", "null", "nan"]
    rows = [[word, f"{word}_1", 1, 5, 9, "fear", "4"] for word in words]
    rows += [["anna", word, 1, "NA", 9, "NA", "4"] for word in words[:4]]
    frames(tmp_path, rows)
    write_sheet(tmp_path / f"table.{suffix}", [HEADER, *rows])
    reading = read("csv", tmp_path)
    assert len(reading.table) == len(rows)
    assert {"csv/NA", "csv/None", "csv/null", "csv/nan"} <= set(reading.table["subject"])
    assert {"NA", "None", "null", "nan"} <= set(reading.table["clip"])
    assert reading.table["apex"].tolist() == [5] * len(reading.table)
    assert reading.table["emotion"].tolist()[-1] == "" and found(
        reading,
        "anna/NA",
    )
    assert (reading.table["frame_folder"] != "").all()


def test_merged_cells_fill_their_rows(tmp_path):
    frames(tmp_path)
    path = write_sheet(tmp_path / "table.xlsx", [["my clips"], HEADER, *ROWS])
    book = openpyxl.load_workbook(path)
    sheet = book.active
    sheet.merge_cells("A1:G1")
    sheet.merge_cells("A3:A4")  # anna
    sheet.merge_cells("E3:E5")  # the offset of all
    sheet.merge_cells("F5:F30")  # beyond the last row
    book.save(path)
    assert openpyxl.load_workbook(path).active["A4"].value is None
    reading = read("csv", tmp_path)
    assert names(reading) == ["csv/anna/c1", "csv/anna/c2", "csv/bert/c1"]
    assert reading.table["offset"].tolist() == [9, 9, 9] and len(reading.table) == 3


def test_merged_cells_of_old_workbooks(tmp_path):
    frames(tmp_path)
    rows = [HEADER, *([None, *row[1:]] if row[1] == "c2" else row for row in ROWS)]
    write_xls(tmp_path / "table.xls", rows, merged=[(1, 2, 0)])
    reading = read("csv", tmp_path)
    assert names(reading) == ["csv/anna/c1", "csv/anna/c2", "csv/bert/c1"]


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_a_row_that_stands_twice_is_one_clip(tmp_path, suffix):
    frames(tmp_path)
    other = ["anna", "c2", 2, 5, 9, "sad", "1"]
    write_sheet(tmp_path / f"table.{suffix}", [HEADER, *ROWS, ROWS[0], other])
    reading = read("csv", tmp_path)
    assert names(reading) == ["csv/anna/c1", "csv/anna/c2", "csv/bert/c1", "csv/anna/c2_2"]
    assert found(reading, "anna/c1 (row 5): this row is the same as row 2, so it was left out")
    assert found(reading, "c2 occurs before, so this row is c2_2")


def test_a_row_that_stands_twice_in_other_words_is_one_clip(tmp_path):
    header = ["subject", "clip", "path", "onset", "apex", "offset", "emotion", "au", "fps"]
    first = ["anna", "c1", "anna/c1", "0", "/", "9", "fear", "4+7", "30"]
    again = ["Anna", "c1", "./anna\\c1/", "0.0", "", "9,0", "Fear ", "7, 4", "30.0"]
    other = ["anna", "c1", "anna/c1", "0", "/", "9", "fear", "4", "30"]
    write_frames(tmp_path / "anna/c1", range(10))
    write_sheet(tmp_path / "table.csv", [header, first, again, other])
    reading = read("csv", tmp_path)
    assert names(reading) == ["csv/anna/c1", "csv/anna/c1_2"]
    assert found(reading, "(row 3): this row is the same as row 2, so it was left out")


def test_frames_of_several_clips_get_a_line(tmp_path):
    header = ["subject", "clip", "path", "emotion"]
    rows = [["anna", "a", "anna/c1", "fear"], ["bert", "b", "anna/c1", "sad"]]
    rows += [["anna", "c", "anna/c2", "fear"], ["anna", "d", "anna/c2", "fear"]]
    for clip in ("c1", "c2"):
        write_frames(tmp_path / "anna" / clip, range(1, 10))
    write_sheet(tmp_path / "table.csv", [header, *rows])
    two, one = found(read("csv", tmp_path), "have the same frames")
    assert "(anna/c1, 1 to 9): csv/anna/a, csv/bert/b. They are of several subjects" in two
    assert "emotions differ" in two
    assert "csv/anna/c, csv/anna/d. Leave one row" in one


def test_a_row_that_ends_before_its_emotion_has_a_remark(tmp_path):
    frames(tmp_path)
    text = "subject,clip,emotion\nanna,c1\nanna,c2,sad\n"
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    assert found(read("csv", tmp_path), "anna/c1 (row 2): no emotion.")


def test_a_row_that_stands_twice_in_a_release(tmp_path):
    header = ["Subject", "Filename", "Onset", "Apex", "Offset", "emotion", "AU"]
    rows = [["spNO.1", "a", 1, 5, 9, "happy", "12"], ["spNO.1", "a", 20, 25, 29, "fear", "4"]]
    write_sheet(
        tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", [header, *rows, rows[0], rows[1]]
    )
    reading = read("casme3a", tmp_path)
    assert names(reading) == ["casme3a/spNO.1/a", "casme3a/spNO.1/a2"]
    assert len(found(reading, "this row is the same as")) == 2


def test_a_hidden_table_is_named(tmp_path):
    book = openpyxl.Workbook()
    for name in ("p1", "p2"):
        page = book.create_sheet(name)
        page.append(["subject", "clip", "onset", "offset"])
        page.append([name, "c1", 1, 9])
    book.remove(book["Sheet"])
    book["p2"].sheet_state = "hidden"
    book.save(tmp_path / "t.xlsx")
    reading = read("csv", tmp_path)
    assert len(reading.table) == 2
    assert found(reading, "t.xlsx: the table p2 is hidden")

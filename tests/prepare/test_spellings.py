"""Tables and folders whose names look alike: one person is one subject, with a remark."""

from __future__ import annotations

import numpy as np
import pytest
from source_helpers import found, read, write_frames, write_sheet

from mexjax.prepare.landmark_table import LandmarkTable

HEADER = ["subject", "clip", "onset", "offset", "emotion"]
SPELLINGS = ["Jos\u00e9", "Jose\u0301", "Jos\u00e9\u200b", "\uff2aos\u00e9"]


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_one_person_in_four_spellings(tmp_path, suffix):
    rows = [[name, f"c{i}", 1, 9, "happy\u200b"] for i, name in enumerate(SPELLINGS)]
    write_sheet(tmp_path / f"table.{suffix}", [HEADER, *rows, ["anna", "c9", 1, 9, "sad"]])
    for i in range(4):
        write_frames(tmp_path / "Jose\u0301" / f"c{i}", range(1, 10))  # as a Mac writes the disk
    write_frames(tmp_path / "anna/c9", range(1, 10))
    reading = read("csv", tmp_path)
    assert reading.table["subject"].tolist() == ["csv/Jos\u00e9"] * 4 + ["csv/anna"]
    assert set(reading.table["emotion"]) == {"happiness", "sadness"}
    assert (reading.table["frame_folder"] != "").all()
    (line,) = found(reading, "Names of subjects")
    assert r"'Jos\xe9' and 'Jose\u0301' and" in line and "are read as Jos\u00e9" in line
    assert found(reading, "Names of emotions") and not found(reading, "Names of clips")


def test_dashes_and_apostrophes_of_a_spreadsheet_program(tmp_path):
    rows = [["O'Brien", "a-1", 1, 9, "sad"], ["O\u2019Brien", "a\u20132", 1, 9, "happy"]]
    write_sheet(tmp_path / "table.csv", [HEADER, *rows])
    for clip in ("a-1", "a-2"):
        write_frames(tmp_path / "O'Brien" / clip, range(1, 10))
    reading = read("csv", tmp_path)
    assert reading.table["subject"].tolist() == ["csv/O'Brien"] * 2
    assert (reading.table["frame_folder"] != "").all()
    assert found(reading, "are read as O'Brien")


def test_blanks_and_full_width_in_a_release(tmp_path):
    header = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame"]
    header += ["Estimated Emotion", "Action Units"]
    rows = [["01", "EP01  1", 1, 5, 9, "others", "4"], ["\uff10\uff11", "EP02\u00a01", 1, 5, 9]]
    rows[1] += ["others", "4"]
    write_sheet(tmp_path / "CASME2-coding-20190701.xlsx", [header, *rows])
    write_frames(tmp_path / "sub01/EP01 1", range(1, 10))
    write_frames(tmp_path / "sub01/EP02 1", range(1, 10))
    reading = read("casme2", tmp_path)
    assert reading.table["subject"].tolist() == ["casme2/01"] * 2
    assert reading.table["clip"].tolist() == ["EP01 1", "EP02 1"]
    assert (reading.table["frame_folder"] != "").all()
    assert found(reading, "'01' and '\\uff10\\uff11' are read as 01")
    assert found(reading, "Names of clips")


def test_plain_names_give_no_remark(tmp_path):
    write_sheet(tmp_path / "table.csv", [HEADER, ["anna ", "c1", 1, 9, "sad"]])
    write_frames(tmp_path / "anna/c1", range(1, 10))
    assert not found(read("csv", tmp_path), "Names of")


def test_folders_of_classes_and_their_table(tmp_path):
    write_frames(tmp_path / "joie\u0301/a\u0301", range(1, 10))
    write_sheet(tmp_path / "table.csv", [["clip", "subject"], ["\u00e1", "Jose\u0301"]])
    reading = read("folder", tmp_path)
    assert reading.table["subject"].tolist() == ["folder/Jos\u00e9"]
    assert reading.table["clip"].tolist() == ["\u00e1"]
    assert reading.table["emotion"].tolist() == ["joi\u00e9"]


def test_subjects_that_differ_in_case_get_a_remark(tmp_path):
    rows = [["Jos\u00e9", "c1", 1, 9, "sad"], ["JOSE\u0301", "c2", 1, 9, "sad"]]
    write_sheet(tmp_path / "table.csv", [HEADER, *rows])
    reading = read("csv", tmp_path)
    assert set(reading.table["subject"]) == {"csv/Jos\u00e9"}
    assert found(reading, "differ only in case and are taken for one person")


def test_landmarks_of_a_clip_typed_otherwise(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("clip,frame,x,y,w,h\nJose\u0301/c1,,10,10,60,60\n", encoding="utf-8")
    face = LandmarkTable(path)(np.zeros((100, 100)), ("csv/Jos\u00e9/c1", 1))
    assert face.landmarks.shape == (68, 2)

"""Tables and folders whose names look alike: one person is one subject, with a remark."""

from __future__ import annotations

import numpy as np
import pytest
from source_helpers import found, read, write_frames, write_sheet

from mexjax.prepare import command, pipeline
from mexjax.prepare.landmark_table import LandmarkTable
from mexjax.prepare.options import Input

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


def test_two_folders_of_one_name_are_told(tmp_path):
    """The one that is spelled as the table is read; a clip of the other is found as well."""
    write_frames(tmp_path / "Jos\u00e9/c1", range(1, 10))
    write_frames(tmp_path / "Jose\u0301/c1", range(1, 4))
    write_frames(tmp_path / "Jose\u0301/c2", range(1, 6))
    write_frames(tmp_path / "anna/c3", range(1, 10))
    rows = [["Jos\u00e9", "c1", "sad"], ["Jose\u0301", "c2", "sad"], ["anna", "c3", "happy"]]
    write_sheet(tmp_path / "table.csv", [["subject", "clip", "emotion"], *rows])
    reading = read("csv", tmp_path)
    assert reading.table["n_frames"].tolist() == [9, 5, 9]
    (line,) = found(reading, "look alike or differ in case")
    assert f"{tmp_path} has 'Jose\\u0301' and 'Jos\\xe9'" in line
    assert "clips were read from 'Jose\\u0301' and 'Jos\\xe9'" in line


def test_the_table_does_not_decide_between_two_folders(tmp_path):
    write_frames(tmp_path / "Sub 01/c1", range(1, 10))
    write_frames(tmp_path / "sub 01/c1", range(1, 4))
    write_frames(tmp_path / "SUB 02/c1", range(1, 4))
    rows = [["SUB 01", "c1", "sad"], ["sub 02", "c1", "sad"]]
    write_sheet(tmp_path / "table.csv", [["subject", "clip", "emotion"], *rows])
    reading = read("csv", tmp_path)
    assert reading.table["subject"].tolist() == ["csv/sub 02"]
    (line,) = found(reading, "look alike or differ in case")
    assert "'Sub 01' and 'sub 01'" in line and "none was read" in line
    # A path says which.
    write_sheet(tmp_path / "table.csv", [["subject", "path"], ["SUB 01", "sub 01/c1"]])
    reading = read("csv", tmp_path)
    assert reading.table["n_frames"].tolist() == [3]
    assert "clips were read from 'sub 01'" in found(reading, "look alike or differ in case")[0]


def test_two_folders_of_one_name_in_a_release(tmp_path):
    header = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame"]
    header += ["Estimated Emotion", "Action Units"]
    rows = [["01", "EP01", 1, 5, 9, "others", "4"]]
    write_sheet(tmp_path / "CASME2-coding-20190701.xlsx", [header, *rows])
    write_frames(tmp_path / "sub01/EP01", range(1, 10))
    write_frames(tmp_path / "sub01/ep01", range(1, 10))
    reading = read("casme2", tmp_path)
    assert reading.table["frame_folder"].tolist() == ["sub01/EP01"]
    assert "'EP01' and 'ep01'" in found(reading, "look alike or differ in case")[0]


def test_a_folder_and_a_video_of_one_clip_are_told(tmp_path):
    write_frames(tmp_path / "a/c1", range(1, 10))
    write_frames(tmp_path / "c1", range(1, 4))
    write_frames(tmp_path / "a/c2", range(1, 10))
    write_sheet(tmp_path / "table.csv", [["subject", "clip"], ["a", "c1"], ["a", "c2"]])
    reading = read("csv", tmp_path)
    assert reading.table["n_frames"].tolist() == [9, 9]
    (line,) = found(reading, "its frames may be")
    assert "a/c1" in line and "c1 was read" in line and "column path" in line


def test_two_emotion_folders_of_one_name_in_smic(tmp_path):
    for place in ("s1/micro/positive/s1_po_01", "s1/micro/Positive/s1_po_02"):
        write_frames(tmp_path / "HS" / place, range(1, 10))
    reading = read("smic", tmp_path)
    assert sorted(reading.table["clip"]) == ["s1_po_01", "s1_po_02"]
    assert (reading.table["frame_folder"] != "").all()
    assert found(reading, "'Positive' and 'positive'")


def test_a_letter_of_another_script_is_told_and_first(tmp_path, capsys):
    """Two people stay two; forty other remarks do not push the line off the terminal."""
    rows = [["anna1", "c1", 1, 9, "sad"], ["\u0430nna1", "c2", 1, 9, "s\u0430d"]]
    rows += [[f"p{i:02}", "c1", 1, 9, ""] for i in range(70)]
    write_sheet(tmp_path / "table.csv", [HEADER, *rows])
    for subject, clip in [row[:2] for row in rows]:
        write_frames(tmp_path / subject / clip, range(1, 10))
    reading = read("csv", tmp_path)
    assert reading.table["subject"].nunique() == 72
    (line,) = found(reading, "Subjects 'anna1'")
    assert "'\u0430nna1' (U+0430 CYRILLIC SMALL LETTER A)" in line and "2 people" in line
    (words,) = found(reading, "Emotions 'sadness'")
    assert "2 classes" in words
    assert command.main(["--dataset=csv", f"--root={tmp_path}", "--check"]) == 0
    shown = capsys.readouterr().out
    assert "remarks:\n  Subjects 'anna1'" in shown


@pytest.mark.parametrize(
    ("names", "is_told"),
    [
        (["sub 01", "sub_01"], True),
        (["Sub-02", "sub2"], True),
        (["p.1", "P1"], True),
        (["1-11", "11-1"], False),
        (["1 1", "11"], False),
        (["_", "-"], False),
        (["s1", "s10"], False),
    ],
)
def test_subjects_that_differ_in_signs_get_a_remark(names, is_told, tmp_path):
    rows = [[name, f"c{i}", 1, 9, "sad"] for i, name in enumerate(names)]
    write_sheet(tmp_path / "table.csv", [HEADER, *rows])
    reading = read("csv", tmp_path)
    assert reading.table["subject"].nunique() == 2
    assert bool(found(reading, "leading zeros, blanks or signs")) == is_told


def test_one_person_in_two_releases(tmp_path, capsys):
    """Spellings are united over all roots of one reader, and what may be one person is told."""
    names = [
        ("a", "Anna"),
        ("a", "bob"),
        ("a", "s1"),
        ("b", "anna"),
        ("b", "b\u043eb"),
        ("b", "S_01"),
    ]
    for root, name in names:
        write_frames(tmp_path / root / name / "joy" / f"{root}1", range(1, 10))
    inputs = [Input("folder", tmp_path / root) for root in "ab"]
    reading = pipeline.read_inputs(inputs)
    assert sorted(set(reading.table["subject"])) == sorted(
        ["folder/Anna", "folder/bob", "folder/s1", "folder/b\u043eb", "folder/S_01"]
    )
    assert [job.row["subject"] for job in reading.jobs] == reading.table["subject"].tolist()
    assert found(reading, "1 subjects are in several releases and are taken for one person each")
    assert found(reading, "Subjects folder/s1, folder/S_01 of several releases differ only by")
    assert found(reading, "U+043E CYRILLIC SMALL LETTER O")
    only = pipeline.read_inputs(inputs[:1])
    assert not found(only, "several releases") and not found(only, "look alike")

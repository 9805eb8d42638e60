"""Readers on releases that are incomplete, contradictory, damaged or hostile."""

from __future__ import annotations

import json

import pytest
from source_helpers import found, numbers, read, write_frames, write_sheet

from mexjax.errors import DataError
from mexjax.prepare.sources import corrections, folders, get_source, workbooks

MMEW_HEADER = [
    *("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units"),
    "Estimated Emotion",
]
CASME2_NAME = "CASME2-coding-20190701.xlsx"
CASME3A_NAME = "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"


def write_casme2(root, *rows):
    """Rows of subject, clip, onset, apex, offset; columns are those of MMEW in this release."""
    write_sheet(root / CASME2_NAME, [MMEW_HEADER, *([*row, "4", "others"] for row in rows)])
    return root


def write_casme3a(root, *rows):
    header = ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]
    cells = [[*row, "4", "I", "happy"] for row in rows]
    write_sheet(root / CASME3A_NAME, [header, *cells])
    return root


# --- corrections


def test_corrections_replace_only_what_they_know(tmp_path):
    root = write_casme3a(
        tmp_path,
        ("spNO.149", "d", 112, 83, 140),  # wrong apex
        ("spNO.40", "e", 1812, 1820, 0),  # two wrong offsets in one video
        ("spNO.40", "e", 2327, 2350, 0),
        ("spNO.214", "c", 5, 20, 40),  # another value than the known error
        ("spNO.216", "e", 0, 0, 30),  # onset and apex
        ("spNO.216", "d", 2647, 2660, 2700),  # a sheet that is corrected already
        ("spNO.2", "e", 138, 143, 150),
    )
    reading = read("casme3a", root)
    table = reading.table
    assert table["onset"].tolist() == [112, 1812, 2327, 5, 1, 2647, 138]
    assert table["apex"].tolist() == [123, 1820, 2350, 20, 1, 2660, 143]
    assert table["offset"].tolist() == [140, 1845, 2403, 40, 30, 2700, 150]
    assert table["n_frames"].tolist() == [29, 34, 77, 36, 30, 54, 13]
    assert table["clip"].tolist() == ["d", "e", "e2", "c", "e", "d", "e"]
    notes = table["notes"].tolist()
    assert notes[0] == "apex corrected from 83 to 123"
    assert "onset corrected from 0 to 1; apex corrected from 0 to 1" in notes[4]
    assert notes[3] == notes[5] == "" and "the face is covered" in notes[6]
    assert found(reading, "spNO.149/d at onset 112 (row 2): apex corrected from 83 to 123: ")
    assert found(reading, "spNO.214/c at onset 5 (row 5): offset is '40', not 3460, so it was not")
    assert not [line for line in found(reading, "spNO.216/d") if "corrected" in line]
    (row,) = read("casme2", write_casme2(tmp_path, (4, "EP12_01f", 261, "/", 321))).table["apex"]
    assert row == 279


def test_a_correction_without_its_row_is_said(tmp_path):
    root = write_casme3a(tmp_path, ("spNO.149", "d", 115, 120, 140))
    lines = found(read("casme3a", root), "spNO.149/d at onset 112")
    assert lines == [
        "spNO.149/d at onset 112: no such row, so its apex was not corrected from 83 to 123."
    ]


def test_a_sheet_with_the_corrected_onset_keeps_its_remarks(tmp_path):
    reading = read("casme3a", write_casme3a(tmp_path, ("spNO.216", "e", 1, 1, 30)))
    assert "the face is covered" in reading.table["notes"][0]
    assert not found(reading, "at onset 0")


@pytest.mark.parametrize("onset", [3647, 2647])
def test_folders_named_by_the_printed_or_the_corrected_onset(tmp_path, onset):
    root = write_casme3a(tmp_path, ("spNO.216", "d", 3647, 2660, 2700))
    write_frames(root / f"ME_A/spNO.216_d_{onset}", range(2647, 2701), "{}.jpg")
    table = read("casme3a", root).table
    assert table["onset"].tolist() == [2647]
    assert table["frame_folder"].tolist() == [f"ME_A/spNO.216_d_{onset}"]


def test_the_file_of_corrections_is_well_formed():
    entries = corrections._load()
    keys = [
        tuple(str(entry[name]) for name in ("dataset", "subject", "clip", "onset", "column"))
        for entry in entries["corrections"]
    ]
    assert len(keys) == len(set(keys)) == 8
    for entry in entries["corrections"]:
        assert entry["column"] in ("onset", "apex", "offset", "au", "emotion")
        assert entry["old"] != entry["new"] and entry["why"]
        get_source(entry["dataset"])
    assert len(entries["remarks"]) == 16
    json.dumps(entries)


# --- frames and sheets that contradict each other


def test_a_range_that_contradicts_the_files(tmp_path):
    home = tmp_path / "CASME2_RAW_selected/sub01"
    rows = [
        (1, "elsewhere", 1, 5, 30),  # none of these frames is there
        (1, "reversed", 30, 25, 20),
        (1, "no_offset", 11, 15, None),
        (1, "moved", 101, 105, 110),  # as many frames, under other numbers
        (1, "longer", 5, 8, 12),  # more files than frames
    ]
    for _, clip, *_ in rows[:3]:
        write_frames(home / clip, range(11, 41) if clip != "elsewhere" else range(100, 120))
    write_frames(home / "moved", range(1, 11))
    write_frames(home / "longer", range(1, 21))
    reading = read("casme2", write_casme2(tmp_path, *rows))
    table = reading.table
    assert table["onset"].tolist() == [100, 30, 11, 1, 5]
    assert table["apex"].tolist() == [109, 35, 15, 5, 8]
    assert table["offset"].tolist() == [119, 40, 40, 10, 12]
    assert table["num_missing_frames"].tolist() == [0] * 5
    assert (
        "range taken from the files, 100 to 119: the spreadsheet has 1 to 30" in table["notes"][0]
    )
    assert len(found(reading, "range taken from the files")) == 3
    (line,) = found(reading, "01/no_offset")
    assert line.endswith("taken from the files, 11 to 40: the spreadsheet has 11 to (none).")
    assert found(reading, "moved by -100") and found(reading, "12 images are outside of 5 to 12")
    assert numbers("casme2", tmp_path, table.iloc[4]) == list(range(5, 13))


def test_a_video_keeps_the_range_of_the_sheet(tmp_path):
    root = write_casme3a(tmp_path, ("spNO.1", "a", 30, 25, 20), ("spNO.1", "b", 500, 505, 520))
    write_frames(root / "ME_A/spNO.1/a/color", range(11, 41), "{}.jpg")
    write_frames(root / "ME_A/spNO.1/b/color", range(11, 41), "{}.jpg")
    reading = read("casme3a", root)
    assert reading.table["offset"].tolist() == [20, 520]
    assert reading.table["frame_folder"].tolist() == ["", ""]
    assert found(reading, "the offset 20 is before the onset 30, so the clip has no frames")
    assert found(reading, "none of the frames 500 to 520; it has 30, from 11 to 40")


def test_two_files_of_one_number(tmp_path):
    root = write_casme2(tmp_path, (1, "a", 1, 5, 10), (1, "b", 1, 5, 10))
    both = write_frames(root / "CASME2_RAW_selected/sub01/a", range(1, 11))
    write_frames(both, range(1, 11), "reg_img{}.jpg")
    write_frames(root / "CASME2_RAW_selected/sub01/b", range(1, 11))
    reading = read("casme2", root)
    assert reading.table["frame_folder"].tolist() == ["", "CASME2_RAW_selected/sub01/b"]
    assert found(reading, "two images with the frame number 1: img1.jpg and reg_img1.jpg")


def test_one_name_for_two_clips(tmp_path):
    root = write_casme2(tmp_path, (1, "a", 1, 5, 10), (1, "A", 3, 5, 10), (2, "a", 1, 5, 10))
    reading = read("casme2", root)
    assert reading.table["clip"].tolist() == ["a", "A_2", "a"]
    assert found(reading, "01/A_2 (row 3): A occurs before")


def test_subjects_that_differ_in_case_are_one(tmp_path):
    rows = [("SpNO.1", "a", 5, 6, 9), ("spNO.1", "a", 30, 31, 39), ("spNO.01", "b", 1, 2, 9)]
    reading = read("casme3a", write_casme3a(tmp_path, *rows))
    assert reading.table["subject"].tolist() == [
        *("casme3a/SpNO.1", "casme3a/SpNO.1", "casme3a/spNO.01"),
    ]
    assert reading.table["clip"].tolist() == ["a", "a2", "b"]
    assert found(reading, "Subjects SpNO.1, spNO.1 differ only in case and are taken for one")
    (line,) = found(reading, "differ only by leading zeros")
    assert line.startswith("Subjects SpNO.1, spNO.01 ") and "taken for 2 people" in line


def test_raw_and_cropped_are_not_mixed(tmp_path):
    clips = ["a", "b", "c", "d"]
    root = write_casme2(tmp_path, *((1, clip, 1, 5, 10) for clip in clips))
    for clip in clips[:2]:
        write_frames(root / "CASME2_RAW_selected/sub01" / clip, range(1, 11))
    for clip in clips:
        write_frames(root / "Cropped/sub01" / clip, range(1, 11), "reg_img{}.jpg")
    reading = read("casme2", root)
    assert reading.table["frame_folder"].tolist()[1:3] == ["CASME2_RAW_selected/sub01/b", ""]
    assert len(found(reading, "no frame folder")) == 2
    # A raw folder with a few clips only is not the one to use.
    (root / "CASME2_RAW_selected/sub01/b").rename(root / "b")
    table = read("casme2", root).table
    assert table["frame_folder"].tolist() == [f"Cropped/sub01/{clip}" for clip in clips]


def test_a_home_of_another_name_is_found(tmp_path):
    root = write_casme2(tmp_path, (1, "a", 1, 5, 10))
    write_frames(root / "my copy/frames/SUB01/A", range(1, 11))
    assert read("casme2", root).table["frame_folder"].tolist() == ["my copy/frames/SUB01/A"]


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    rows = [("spNO.1", "a", 10 * i, 10 * i + 3, 10 * i + 8) for i in range(20)]
    root = write_casme3a(tmp_path, *rows)
    write_frames(root / "ME_A/spNO.1/a/color", range(200), "{}.jpg")
    listed = []
    monkeypatch.setattr(
        folders,
        "list_frames",
        lambda path, *, real=folders.list_frames, **how: listed.append(path) or real(path, **how),
    )
    table = read("casme3a", root).table
    assert len(table) == 20 and table["num_missing_frames"].sum() == 0
    assert listed == [root / "ME_A/spNO.1/a/color"]


# --- hostile cells


@pytest.mark.parametrize(
    "cell",
    [
        "../../etc",
        "..",
        "/etc/passwd",
        "a/../../b",
        r"..\..\x",
        r"C:\x",
        "C:x",
        "a\x7f/b",
        "*",
        ".",
    ],
)
@pytest.mark.parametrize("is_subject", [True, False])
def test_cells_that_climb_are_refused(tmp_path, cell, is_subject):
    row = (cell, "a", 1, 5, 10) if is_subject else (1, cell, 1, 5, 10)
    root = write_casme2(tmp_path / "root", (1, "fine", 1, 5, 10), row)
    write_frames(tmp_path / "etc", range(1, 11))
    with pytest.raises(DataError, match=r"Row 3 of the spreadsheet: .* lead out of the dataset"):
        read("casme2", root)


def test_an_emotion_that_climbs_is_refused(tmp_path):
    write_sheet(tmp_path / "MMEW_Micro_Exp.xlsx", [MMEW_HEADER, [1, "a", 1, 5, 10, "4", "../x"]])
    with pytest.raises(DataError, match=r"Row 2 of the spreadsheet: '\.\./x'"):
        read("mmew", tmp_path)


def test_links_that_lead_out_are_refused(tmp_path):
    outside = write_frames(tmp_path / "outside", range(1, 11))
    root = write_casme2(tmp_path / "root", (1, "a", 1, 5, 10))
    home = root / "CASME2_RAW_selected/sub01"
    home.mkdir(parents=True)
    (home / "a").symlink_to(outside)
    with pytest.raises(DataError, match=r"01/a \(row 2\): .* is a link to .*outside"):
        read("casme2", root)
    # The folder of all clips may be on another disk: that link is the user's own.
    (home / "a").unlink()
    disk = tmp_path / "disk"
    write_frames(disk / "sub01/a", range(1, 11))
    home.rmdir()
    home.parent.rmdir()
    home.parent.symlink_to(disk)
    table = read("casme2", root).table
    assert numbers("casme2", root, table.iloc[0]) == list(range(1, 11))


@pytest.mark.parametrize("folder", ["../outside", "/etc", "a/../../outside", r"..\outside"])
def test_a_manifest_that_climbs_is_refused(tmp_path, folder):
    write_frames(tmp_path / "outside", range(1, 11))
    (tmp_path / "root").mkdir()
    row = {"subject": "casme2/01", "clip": "a", "onset": 1, "offset": 10, "frame_folder": folder}
    with pytest.raises(DataError, match=r"Clip casme2/01/a: "):
        get_source("casme2").frames(tmp_path / "root", row)
    row["frame_folder"] = "gone"
    with pytest.raises(DataError, match=r"gone does not exist. Has the dataset moved\?"):
        get_source("casme2").frames(tmp_path / "root", row)


# --- damaged spreadsheets


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.xlsx", b""),
        ("x.xlsx", b"PK\x03\x04 not a zip"),
        ("x.xls", b"<html><table></table></html>"),
        ("x.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)),
        ("x.pkl", b"cos\nsystem\n"),
        ("x.csv", b""),
        ("x.csv", b"\x00\xff\xfe" * 50),
    ],
)
def test_damaged_sheets_are_refused_in_one_sentence(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.(xlsx|xls|pkl|csv)"):
        read("casme2", tmp_path, spreadsheet=path)


def test_a_sheet_of_absurd_size_is_refused(tmp_path, monkeypatch):
    root = write_casme2(tmp_path, (1, "a", 1, 5, 10))
    monkeypatch.setattr(workbooks, "MAX_UNPACKED_BYTES", 1000)  # the zip says that it holds more
    with pytest.raises(DataError, match=r"more than any table of annotations"):
        read("casme2", root)


@pytest.mark.parametrize(("encoding", "delimiter"), [("gb18030", ","), ("utf-8-sig", ";")])
def test_csv_files_of_other_encodings(tmp_path, encoding, delimiter):
    rows = [[*MMEW_HEADER, "备注"], [1, "a", 1, 5, 10, "4+7", "others", "遮挡"]]
    text = "\r\n".join(delimiter.join(map(str, row)) for row in rows)
    (tmp_path / "CASME2-coding-20190701.csv").write_bytes(text.encode(encoding))
    table = read("casme2", tmp_path).table
    assert table["aus"].tolist() == [["4", "7"]] and table["subject"].tolist() == ["casme2/01"]


def test_numbers_that_are_no_frame_numbers(tmp_path):
    row = (1, "a", 10.0, "12 ", "1e300"), (1, "b", 10.5, 12, 20), (1, "c", 10, 2**40, 20)
    root = write_casme2(tmp_path, *row)
    reading = read("casme2", root)
    assert reading.table["clip"].tolist() == ["c"] and reading.table["apex"].tolist() == [15]
    assert found(reading, "01/a (row 2): offset: Expected a frame number, found '1e300'")
    assert found(reading, "01/b (row 3): onset: Expected a frame number, found '10.5'")
    assert len(found(reading, "left out")) == 2

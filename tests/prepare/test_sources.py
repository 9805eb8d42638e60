"""Readers of the public sets on small releases written by hand, quirk by quirk."""

from __future__ import annotations

import pytest
from source_helpers import found, numbers, read, write_frames, write_sheet

from mexjax.data import manifest
from mexjax.errors import DataError
from mexjax.prepare.sources import SOURCES, get_source
from mexjax.protocol.action_units import is_coded

CASME2_HEADER = [
    *("Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None),
    *("Action Units", "Estimated Emotion"),
]


def casme2_row(subject=1, clip="EP02_01f", onset=46, apex=59, offset=66, au="4", emotion="others"):
    return [subject, clip, None, onset, apex, offset, None, au, emotion]


def write_casme2(root, *rows, name="CASME2-coding-20190701.xlsx", has_frames=True):
    write_sheet(root / name, [CASME2_HEADER, *rows])
    for row in rows if has_frames else ():
        folder = root / "CASME2_RAW_selected" / f"sub{row[0]:02d}" / row[1]
        write_frames(folder, range(row[3], row[5] + 1))
    return root


def test_casme(tmp_path):
    header = [
        *("Subject", " Filename", None, "OnsetF", "ApexF1", "ApexF2", "OffsetF", None),
        *("Onset", "Total", "AU", "Emotion "),
    ]
    rows = [
        [1, "EP01_5", None, 8, 10, None, 12, None, 33, 66, "L4+R2?", "Tense"],
        [1, "EP01_6", None, 98, 101, 103, 104, None, 50, 99, 4, "disgust"],
        [19, "EP02_1", None, 1, 4, None, 9, None, 50, 99, None, "happiness"],
    ]
    write_sheet(tmp_path / "casme.xlsx", [header, *rows])
    raw = tmp_path / "CASME_raw_selected"
    write_frames(raw / "sub01/EP01_5", range(8, 13), "EP01_5-{}.jpg")  # not padded
    write_frames(raw / "sub01/EP01_6", range(98, 105), "EP01_6-{:03d}.jpg")
    write_frames(raw / "sub19/ep02_1", range(1, 10), "ep02_1-{:03d}.JPG")
    reading = read("casme", tmp_path)
    table = reading.table
    assert list(table.columns) == list(manifest.BASE | manifest.READING)
    assert table["subject"].tolist() == ["casme/01", "casme/01", "casme/19"]
    assert table["onset"].tolist() == [8, 98, 1]  # not the duration "Onset" beside it
    assert table["apex"].tolist() == [10, 101, 4] and table["offset"].tolist() == [12, 104, 9]
    assert table["aus"].tolist() == [["4"], ["4"], []]
    assert table["aus_unsure"].tolist() == [["2"], [], []] and table["au"][0] == "L4+R2?"
    assert table["emotion"].tolist() == ["tense", "disgust", "happiness"]
    assert table["fps"].tolist() == [60.0] * 3 and table["num_missing_frames"].tolist() == [0] * 3
    assert table["frame_folder"][2] == "CASME_raw_selected/sub19/ep02_1"
    assert numbers("casme", tmp_path, table.iloc[1]) == list(range(98, 105))
    assert reading.problems == (
        "The action units of 1 of 3 rows are empty and so unknown; protocol.task=au leaves these"
        " clips out: 19/EP02_1 (row 4). Write 0 where no unit is shown.",
        "Clips of fewer than 8 frames (2): casme/01/EP01_5, casme/01/EP01_6.",
        "1 doubtful action units count with protocol.is_unsure_present=True alone: AU2 of 01/EP01_5"
        " (row 2).",
        "casme: 3 clips, published 189.",
    )
    # Cropped frames, given as the root, with a sheet elsewhere.
    cropped = tmp_path / "elsewhere" / "Cropped"
    write_frames(cropped / "sub1/EP01_5", range(8, 13), "reg_EP01_5-{}.jpg")
    reading = read("casme", cropped, spreadsheet=tmp_path / "casme.xlsx")
    assert reading.table["frame_folder"].tolist() == ["sub1/EP01_5", "", ""]
    assert len(found(reading, "no frame folder; expected sub01/EP01_6 or sub1/EP01_6")) == 1


def test_casme2_apexes_and_stray_files(tmp_path):
    rows = [
        casme2_row(apex="/", offset=67),
        casme2_row(clip="EP03_02", apex=None),
        casme2_row(clip="EP03_05", apex=200, au="R12 + R15", emotion=" Happiness "),
        casme2_row(clip="EP04_01", apex="early"),
    ]
    root = write_casme2(tmp_path, *rows)
    folder = root / "CASME2_RAW_selected/sub01/EP02_01f"
    for name in ("img50.jpg.lnk", "Thumbs.db", "._img51.jpg", "notes.txt", "cover.jpg"):
        (folder / name).touch()
    (folder / "img60.jpg").unlink()
    reading = read("casme2", root)
    table = reading.table
    assert table["apex"].tolist() == [(46 + 67) // 2, 56, 56, 56]
    missing = "no annotated apex: midpoint"
    outside = "annotated apex 200 is outside of 46 to 66: midpoint"
    assert table["notes"].tolist() == [missing, missing, outside, missing]
    assert found(reading, "EP03_05 (row 4): annotated apex 200 is outside")
    assert found(reading, "EP04_01 (row 5): apex: Expected a frame number, found 'early'")
    assert table["num_missing_frames"].tolist() == [1, 0, 0, 0]
    assert found(reading, "EP02_01f (row 2): 1 of 22 frames are missing: 60.")
    assert table["aus"][2] == ["12", "15"] and table["emotion"][2] == "happiness"
    assert 60 not in numbers("casme2", root, table.iloc[0])


def test_the_preferred_release_of_a_sheet_is_taken(tmp_path):
    write_casme2(tmp_path, casme2_row(emotion="fear"), name="CASME2-coding-20140508.xlsx")
    write_casme2(tmp_path, casme2_row(emotion="sadness"))
    write_sheet(tmp_path / "~$CASME2-coding-20190701.xlsx", [["lock"]])
    reading = read("casme2", tmp_path)
    assert reading.table["emotion"].tolist() == ["sadness"]
    (line,) = found(reading, "also present: ")
    assert line.startswith(f"Read {tmp_path / 'CASME2-coding-20190701.xlsx'}; also present: ")
    assert "20140508.xlsx. Name another one with --spreadsheet" in line and "~$" not in line
    # Beside the folder of frames, too.
    assert len(read("casme2", tmp_path / "CASME2_RAW_selected").table) == 1
    other = tmp_path / "copy"
    write_casme2(other, casme2_row())
    with pytest.raises(DataError, match=r"Several files could be .*20190701.*--spreadsheet"):
        read("casme2", tmp_path)


def test_a_renamed_sheet_is_found_by_its_columns(tmp_path):
    write_casme2(tmp_path, casme2_row(), name="labels.xlsx")
    write_sheet(tmp_path / "other.csv", [["a", "b"], [1, 2]])
    reading = read("casme2", tmp_path)
    assert len(reading.table) == 1
    assert found(reading, "labels.xlsx was taken for the spreadsheet of CASME II by its columns")
    write_casme2(tmp_path, casme2_row(), name="labels2.xlsx")
    with pytest.raises(DataError, match=r"Several files have the columns .*labels.*labels2"):
        read("casme2", tmp_path)


def test_a_missing_sheet_is_described(tmp_path):
    root = tmp_path / "data"
    write_frames(root / "sub01/EP02_01f", range(3))
    with pytest.raises(
        DataError, match=r"Expected CASME2-coding-20190701.*Action Units.*no spread"
    ):
        read("casme2", root)
    # MMEW has the same columns: its sheet is no candidate for CASME II.
    write_casme2(root, casme2_row(), name="MMEW_Micro_Exp.xlsx")
    with pytest.raises(DataError, match=r"No spreadsheet of CASME II.*found .*MMEW_Micro_Exp"):
        read("casme2", root)
    with pytest.raises(DataError, match="There is no spreadsheet"):
        read("casme2", root, spreadsheet=root / "no.xlsx")
    with pytest.raises(DataError, match="There is no folder"):
        read("casme2", root / "no folder")


def test_headers_are_matched_tolerantly(tmp_path):
    header = ["SUBJECT", "file_name", "Onset frame ", "apex-frame", "Offset_Frame", "action  units"]
    rows = [["CASME II, corrected"], [], [*header, "estimated emotion"], [1, "a", 1, 2, 9, 4, "x"]]
    write_frames(tmp_path / "sub01/a", range(1, 10))
    path = write_sheet(tmp_path / "CASME2-coding-20140508 (1).xlsx", rows)
    assert read("casme2", tmp_path).table["aus"].tolist() == [["4"]]
    write_sheet(path, [header, [1, "a", 1, 2, 9, 4]])
    with pytest.raises(DataError, match=r"emotion \(Estimated Emotion or Emotion\).*SUBJECT, file"):
        read("casme2", tmp_path)


def test_rows_without_names_or_range_are_left_out_and_said(tmp_path):
    rows = [casme2_row(), [None] * 9, ["Total", *[None] * 8], casme2_row(clip="b", onset=None)]
    write_sheet(tmp_path / "CASME2-coding-20190701.xlsx", [CASME2_HEADER, *rows])
    reading = read("casme2", tmp_path)
    assert reading.table["clip"].tolist() == ["EP02_01f"]
    assert reading.table["frame_folder"].tolist() == [""]
    assert found(reading, "row 4: no subject or no clip name, left out: Total")
    assert found(reading, "01/b (row 5): no onset or no offset, left out")
    assert found(reading, "01/EP02_01f (row 2): no frame folder; expected sub01/EP02_01f")
    with pytest.raises(DataError, match=r"casme2/01/EP02_01f: its frames were not found"):
        get_source("casme2").frames(tmp_path, reading.table.iloc[0])


def test_samm(tmp_path):
    header = [
        *("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame"),
        *("Duration", "Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes"),
    ]
    rows = [
        ["006", "006_1_2", 1, 5562, 5588, 5632, 71, "1/2", "R14A+L12B", "Other", 7, None],
        [6, "006_1_3", 1, 9998, None, 10007, 10, "1/2", "12 or 15", "Others", 7, None],
        ["028", "028_4_1", 4, 5, 99, 14, 10, "1/2", 4, "Contempt", 4, None],
    ]
    text = [["SAMM"], *[[f"line {i}"] for i in range(12)]]
    path = write_sheet(tmp_path / "SAMM_Micro_FACS_Codes_v2.xlsx", [*text, header, *rows])
    write_frames(tmp_path / "SAMM/006/006_1_2", range(5562, 5633), "006_{:05d}.jpg")
    write_frames(tmp_path / "SAMM/006/006_1_3", range(9998, 10008), "006_{:05d}.jpg")
    write_frames(tmp_path / "SAMM/028/028_4_1", range(5, 15), "028_{:05d}.jpg")
    reading = read("samm", tmp_path, spreadsheet=path)
    table = reading.table
    assert table["subject"].tolist() == ["samm/006", "samm/006", "samm/028"]
    assert table["emotion"].tolist() == ["others", "others", "contempt"]
    assert table["apex"].tolist() == [5588, (9998 + 10007) // 2, 9]
    assert table["aus"].tolist() == [["12", "14"], [], ["4"]]
    assert "action units could not be read" in table["notes"][1] and table["au"][1] == "12 or 15"
    assert found(reading, "006_1_3 (row 16): Cannot read '12 or 15'")
    assert numbers("samm", tmp_path, table.iloc[1]) == list(range(9998, 10008))


def test_fourd(tmp_path):
    header = [
        *("sub_ID", "fold", "fold_name", "Onset", "Apex", "Offset", "eye blink"),
        *("AUs", "AU4", "AU7", "AU12", "Emotion", "Positive"),
    ]
    rows = [
        ["S1", 1, "S1_001", 1, 4.0, 10, 0, "AU4(k)+L7", 1, 1, 0, "Negative", 0],
        ["S1", 1, "S1_002", 1, 4, 10, 0, "AU12", 1, 0, 1, "Positive + Repression", 1],
        ["S2", 2, "S2_001", 1, 4, 10, 0, "AUR7+12(k)+45", 0, 1, 0, "Surprise", 0],
    ]
    write_sheet(tmp_path / "4DME_Labelling_Micro_release v1.xlsx", [header, *rows])
    write_sheet(tmp_path / "4DME_Labelling_Micro_extras_release v1.xlsx", [["sub_ID"], ["S1"]])
    for row in rows:
        write_frames(tmp_path / "gray_micro" / row[0] / row[2], range(1, 11), "{}.jpg")
    reading = read("fourd", tmp_path)
    assert reading.table["aus"].tolist() == [["7"], ["12"], ["7", "45"]]
    assert reading.table["emotion"].tolist() == ["negative", "positive+repression", "surprise"]
    assert [line for line in reading.problems if "differ" in line] == [
        "S1/S1_002 (row 3): the units 'AU12' and the columns AU4, AU12 differ; the text is used."
    ]


def test_fourd_clips_whose_columns_say_that_there_is_no_unit(tmp_path):
    header = ["sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs", "AU4", "AU7", "Emotion"]
    rows = [
        ["S1", "S1_001", 1, 4, 10, None, 0, 0, "Negative"],
        ["S1", "S1_002", 1, 4, 10, None, None, None, "Negative"],
        ["S1", "S1_003", 1, 4, 10, "AU4", 1, 0, "Negative"],
    ]
    write_sheet(tmp_path / "4DME_Labelling_Micro_release v1.xlsx", [header, *rows])
    reading = read("fourd", tmp_path)
    assert reading.table["aus"].tolist() == [[], [], ["4"]]
    assert is_coded(reading.table).tolist() == [True, False, True]
    assert found(reading, "The action units of 1 of 3 rows are empty and so unknown")


MMEW_HEADER = [
    *("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units"),
    *("Estimated Emotion", "remarks"),
]


@pytest.mark.parametrize(
    "folder",
    ["others/{}", "repression/{}", "Others/{}", "S01/repression/{}", "1/others/{}", "01/others/{}"],
)
def test_mmew_folders_of_others(tmp_path, folder):
    row = [1, "S01-07-001", 1, 4, 10, "4+7", "others", None]
    write_sheet(tmp_path / "MMEW_Micro_Exp (20).xlsx", [MMEW_HEADER, row])
    write_frames(tmp_path / "Micro_Expression" / folder.format(row[1]), range(1, 11), "{}.jpg")
    reading = read("mmew", tmp_path)
    table = reading.table
    assert table["emotion"].tolist() == ["others"] and table["subject"].tolist() == ["mmew/01"]
    assert table["frame_folder"].tolist() == [f"Micro_Expression/{folder.format(row[1])}"]
    assert found(reading, "mmew: 1 clips")


def test_mmew_in_the_numbers_of_the_whole_video(tmp_path):
    row = ["S03", "S03-02-001", 41, 50, 60, "2", "surprise", None]
    write_sheet(tmp_path / "MMEW_Micro_Exp.xlsx", [MMEW_HEADER, row])
    write_frames(tmp_path / "Micro_Expression/surprise/S03-02-001", range(1, 21), "{}.jpg")
    reading = read("mmew", tmp_path)
    (row,) = reading.table.to_dict("records")
    assert (row["onset"], row["apex"], row["offset"], row["n_frames"]) == (1, 10, 20, 20)
    assert row["num_missing_frames"] == 0 and "moved by -40" in row["notes"]
    assert found(reading, "frame numbers moved by -40: the files are 1 to 20, not 41 to 60")


def test_casme3a_names_and_folders(tmp_path):
    header = ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]
    spots = [("spNO.1", "a", 5), ("spNO.1", "a", 30), ("spNO.1", "b", 5), ("spNO.14", "b", 5)]
    spots += [("spNO.14", "J", 5), ("spNO.14", "j", 30), ("spNO.14", "j", 50)]
    rows = [[s, c, n, n + 4, n + 9, "4+R10", "IV", "Others"] for s, c, n in spots]
    name = "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"
    write_sheet(tmp_path / name, [header, *rows], [], [], names=("label", "Sheet2", "Sheet3"))
    home = tmp_path / "ME_A"
    write_frames(home / "spNO.1/a/color", range(60), "{}.jpg")  # the whole video
    write_frames(home / "spNO.1/a/depth", range(60), "{}.png")
    write_frames(home / "spNO.1/b/color", range(5, 15), "{}.jpg")
    write_frames(home / "spNO.14/J/color", range(5, 15), "{}.jpg")  # copied clip by clip
    write_frames(home / "spNO.14/j2/color", range(30, 40), "{}.jpg")
    reading = read("casme3a", tmp_path)
    table = reading.table
    assert table["clip"].tolist() == ["a", "a2", "b", "b", "j", "j2", "j3"]
    assert table["frame_folder"].tolist() == [
        *("ME_A/spNO.1/a/color", "ME_A/spNO.1/a/color", "ME_A/spNO.1/b/color", ""),
        *("ME_A/spNO.14/J/color", "ME_A/spNO.14/j2/color", ""),
    ]
    assert table["emotion"].unique().tolist() == ["others"] and table["au"][0] == "4+R10"
    assert numbers("casme3a", tmp_path, table.iloc[1]) == list(range(30, 40))
    frames = get_source("casme3a").frames(tmp_path, table.iloc[1])
    assert frames[0].path == home / "spNO.1/a/color/30.jpg"
    assert found(reading, "spNO.14/j3 (row 8): its folder has none of the frames 50 to 59")
    assert found(reading, "spNO.14/b (row 5): no frame folder")


def test_casme3c(tmp_path):
    header = ["sub", "count", "onset", "offset", "au", "emotion"]
    cells = ["4，11", "14,L24,", "13?", 4, "4,7"]
    rows = [[1, i, 100, 112, au, "negative"] for i, au in enumerate(cells, start=1)]
    write_sheet(tmp_path / "CAS(ME)3_part_C_ME.xlsx", [header, *rows], names=("mockCrimeME",))
    for i in range(1, 6):
        subject = "01" if i % 2 else "1"
        write_frames(tmp_path / f"ME_C/{subject}/{i}/color", range(100, 113), "{}.jpg")
    reading = read("casme3c", tmp_path)
    table = reading.table
    assert table["aus"].tolist() == [["4", "11"], ["14", "24"], [], ["4"], ["4", "7"]]
    assert table["aus_unsure"].tolist() == [[], [], ["13"], [], []]
    assert table["subject"].unique().tolist() == ["casme3c/01"]
    assert table["clip"].tolist() == ["1", "2", "3", "4", "5"]
    assert table["apex"].unique().tolist() == [106]
    assert table["num_missing_frames"].sum() == 0


@pytest.mark.parametrize("has_header", [False, True])
def test_casme_sq(tmp_path, has_header):
    micro, macro = "micro-expression", "macro-expression"
    rows = [
        [1, "anger1_1", 10, 14, 30, "4", "negative", macro, "anger"],
        [1, "anger1_2", 40, 44, 51, "4+7", "negative", micro, "anger"],
        [7, "happy3_1", 5, 0, 14, 12, "positive", micro, "happy"],
        [7, "happy3_2", 5, 8, 14, 12, "positive", "unclear", "happy"],
    ]
    if has_header:
        rows.insert(0, ["Subject", "Clip", "Onset", "Apex", "Offset", "AUs", "Valence", "Type"])
    rule1 = [["x", "s15", 1], ["x", "s22", 7]]
    rule2 = [[401, "anger1"], ["0505", "happy3"]]
    names = ("CASFEcode_final", "naming rule1", "naming rule2")
    write_sheet(tmp_path / "CAS(ME)^2code_final.xlsx", rows, rule1, rule2, names=names)
    write_frames(tmp_path / "rawpic/s15/15_0401girlcrashing", range(1, 60), "img_{}.jpg")
    write_frames(tmp_path / "rawpic/s15/15_0402beating", range(1, 60))
    write_frames(tmp_path / "rawpic/s22/22_0505funnyinnovations", range(1, 60))
    reading = read("casme_sq", tmp_path)
    table = reading.table
    assert table["subject"].tolist() == ["casme_sq/s15", "casme_sq/s22"]
    assert table["clip"].tolist() == ["anger1_2", "happy3_1"]
    assert table["apex"].tolist() == [44, 9]  # 0 stands for unknown there
    assert table["frame_folder"].tolist() == [
        *("rawpic/s15/15_0401girlcrashing", "rawpic/s22/22_0505funnyinnovations"),
    ]
    assert numbers("casme_sq", tmp_path, table.iloc[0]) == list(range(40, 52))
    assert found(reading, "1 macro-expressions were left out")
    assert found(reading, f"row {5 if has_header else 4}: neither micro- nor macro-expression")
    with pytest.raises(DataError, match="not the workbook of CAS"):
        read("casme_sq", tmp_path, spreadsheet=write_sheet(tmp_path / "x.xlsx", [[1, "a", 2]]))


def test_smic_with_and_without_a_sheet(tmp_path):
    home = tmp_path / "HS"
    write_frames(home / "s1/micro/positive/s1_po_01", range(90, 103), "image{:06d}.bmp")
    write_frames(home / "s02/micro/surprise/s2_sur_03", range(7, 17), "reg_image{:06d}.bmp")
    (home / "s18/micro/surprise/s18_sur_03").mkdir(parents=True)
    (home / "s1/non_micro").mkdir()
    reading = read("smic", tmp_path)
    table = reading.table
    assert table["subject"].tolist() == ["smic/s1", "smic/s2"]
    assert table["emotion"].tolist() == ["positive", "surprise"]
    assert table["onset"].tolist() == [90, 7] and table["offset"].tolist() == [102, 16]
    assert table["apex"].tolist() == [96, 11] and set(table["fps"]) == {100.0}
    assert table["num_missing_frames"].tolist() == [0, 0]
    assert found(reading, "No spreadsheet: emotions and ranges were read from the folders")
    assert found(reading, "s18_sur_03: no images, left out")
    header = [None, "subject", "material", "emotion", "onset", "offset"]
    rows = [[0, "s1", "s1_po_01", "positive", 90, 103]]
    rows += [[1, "s18", "s18_sur_03", "surprise", 5, 15]]
    write_sheet(tmp_path / "smic.xlsx", [header, *rows])
    reading = read("smic", tmp_path)
    assert reading.table["num_missing_frames"].tolist() == [1, 11]
    assert reading.table["frame_folder"].tolist() == ["HS/s1/micro/positive/s1_po_01", ""]
    assert found(reading, "s18/s18_sur_03 (row 3): ") and found(reading, "holds no images")
    with pytest.raises(DataError, match=r"No clips of SMIC-HS in .*HS/s1/micro/positive"):
        read("smic", home / "s1")


def test_the_sources_are_the_known_datasets():
    names = "casme casme2 samm casme_sq casme3a casme3c mmew fourd smic folder csv".split()
    assert list(SOURCES) == names
    assert {name: SOURCES[name].fps for name in names[:9]} == {
        **{"casme": 60, "casme2": 200, "samm": 200, "casme_sq": 30, "casme3a": 30},
        **{"casme3c": 30, "mmew": 90, "fourd": 60, "smic": 100},
    }
    with pytest.raises(DataError, match=r"Unknown dataset 'casme_2'. Did you mean 'casme2'\?"):
        get_source("casme_2")

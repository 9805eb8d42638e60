"""A user's own clips: folders of classes, tables, images and videos."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from source_helpers import found, numbers, read, write_frames, write_sheet

from mexjax.errors import DataError
from mexjax.prepare.sources import folders, get_source
from mexjax.prepare.sources.folders import count_video_frames, list_frames, video_fps


def write_video(path, num_frames=12, fps=50.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    assert writer.isOpened()
    for k in range(num_frames):
        writer.write(np.full((48, 64, 3), 10 * k, np.uint8))
    writer.release()
    return path


def test_table_with_folders_and_videos(tmp_path):
    header = ["Subject ID", " CLIP", "path", "Onset Frame", "apex", "Offset", "Emotion", "AUs"]
    rows = [
        [7, "one", r"material\first", 3, 5, 11, "Happy", "6+12"],
        [7, "two", "material/film.avi", None, None, None, "sad", None],
        ["anna", None, "material/film.avi", 2, 4, 9, "other", "4?"],
        ["anna", "three", None, None, None, None, "fear", 4],
        ["anna", "four", None, 5, 7, 14, "fear", 4],
    ]
    write_sheet(tmp_path / "my clips.csv", [[*header, "FPS"], *([*row, 120] for row in rows[:1])])
    write_sheet(tmp_path / "table.xlsx", [header, *rows])
    write_frames(tmp_path / "material/first", range(1, 13), "f_{:04d}.png")
    write_video(tmp_path / "material/film.avi")
    write_frames(tmp_path / "anna/three", range(20, 31), "{}.bmp")
    reading = read("csv", tmp_path, spreadsheet=tmp_path / "table.xlsx")
    table = reading.table
    assert table["subject"].tolist() == ["csv/7", "csv/7", "csv/anna", "csv/anna", "csv/anna"]
    assert table["clip"].tolist() == ["one", "two", "film", "three", "four"]
    assert table["frame_folder"].tolist() == [
        *("material/first", "material/film.avi", "material/film.avi", "anna/three", ""),
    ]
    assert table["onset"].tolist() == [3, 0, 2, 20, 5]
    assert table["apex"].tolist() == [5, 5, 4, 25, 7]
    assert table["offset"].tolist() == [11, 11, 9, 30, 14]
    assert table["fps"].tolist() == [30.0, 50.0, 50.0, 30.0, 30.0]
    assert table["emotion"].tolist() == ["happiness", "sadness", "others", "fear", "fear"]
    assert table["aus"].tolist() == [["6", "12"], [], [], ["4"], ["4"]]
    assert found(reading, "The frames per second of 3 of 5 clips are unknown and taken as 30")
    assert found(reading, "anna/four (row 6): no frame folder; expected anna/four")
    frames = get_source("csv").frames(tmp_path, table.iloc[2])
    assert [f.number for f in frames] == list(range(2, 10))
    assert {f.path for f in frames} == {tmp_path / "material/film.avi"}
    only = read("csv", tmp_path, spreadsheet=tmp_path / "my clips.csv")
    (line,) = only.problems
    assert only.table["fps"].tolist() == [120.0]
    assert "2 clips below" in line and "anna/three, material/film.avi" in line
    with pytest.raises(DataError, match="Several files have the columns of your table"):
        read("csv", tmp_path)


def test_one_recording_with_several_clips(tmp_path):
    rows = [["a", "talk.avi", 0, 5], ["a", "talk.avi", 4, 11]]
    write_sheet(tmp_path / "t.csv", [["subject", "path", "onset", "offset"], *rows])
    write_video(tmp_path / "talk.avi")
    reading = read("csv", tmp_path)
    assert reading.table["clip"].tolist() == ["talk", "talk_2"]
    assert reading.table["emotion"].tolist() == ["", ""]
    assert numbers("csv", tmp_path, reading.table.iloc[1]) == list(range(4, 12))


def test_a_table_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match=r"Expected a table, or one file with the columns subject"):
        read("csv", tmp_path)
    path = write_sheet(tmp_path / "t.csv", [["subject", "emotion"], ["a", "fear"]])
    with pytest.raises(DataError, match="neither a column clip nor a column path"):
        read("csv", tmp_path, spreadsheet=path)
    for cell in ("../x", "/etc", r"C:\x", "a/../../b"):
        write_sheet(path, [["subject", "path"], ["a", "fine"], ["a", cell]])
        with pytest.raises(DataError, match=r"Row 3 of t\.csv: "):
            read("csv", tmp_path, spreadsheet=path)


@pytest.mark.parametrize("cell", ["x", "0", "-5", "nan", "1e9"])
def test_frames_per_second_that_are_none(tmp_path, cell):
    write_sheet(tmp_path / "t.csv", [["subject", "clip", "fps"], ["a", "one", cell]])
    write_frames(tmp_path / "a/one", range(9))
    reading = read("csv", tmp_path)
    assert reading.table["fps"].tolist() == [30.0] and "30 assumed" in reading.table["notes"][0]
    assert found(reading, f"{cell!r} is no number of frames per second")


def test_class_folders(tmp_path):
    write_frames(tmp_path / "Happy/a1", range(1, 13))
    write_frames(tmp_path / "Happy/a2", range(5, 20), "x{:03d}.jpg")
    write_video(tmp_path / "Sad/b1.avi", num_frames=9)
    write_frames(tmp_path / "Sad/loose", [])
    (tmp_path / "Empty").mkdir()
    (tmp_path / ".cache/deep").mkdir(parents=True)
    reading = read("folder", tmp_path)
    table = reading.table
    assert table["clip"].tolist() == ["a1", "a2", "b1"]
    assert table["emotion"].tolist() == ["happiness", "happiness", "sadness"]
    assert set(table["subject"]) == {"folder/unknown"}
    assert table["onset"].tolist() == [1, 5, 0] and table["offset"].tolist() == [12, 19, 8]
    assert table["frame_folder"].tolist() == ["Happy/a1", "Happy/a2", "Sad/b1.avi"]
    assert found(reading, "The subjects of 4 of 4 clips are unknown; splits by subject")
    assert found(reading, "Empty: no clips in this folder")
    assert found(reading, "unknown/loose") and found(reading, "holds no images")
    # The same with a table beside the folders.
    header = ["clip", "subject", "onset", "apex", "offset", "AU", "fps"]
    rows = [["a1", "s1", 3, 6, 12, "12", 200], ["B1.avi", "s2", None, 4, None, "15", None]]
    rows += [["gone", "s2", 1, 2, 10, "", 200], ["a1", "s3", 1, 2, 3, "", 200]]
    write_sheet(tmp_path / "clips.csv", [header, *rows])
    reading = read("folder", tmp_path)
    table = reading.table.set_index("clip")
    assert table["subject"].to_dict() == {
        **{"a1": "folder/s1", "a2": "folder/unknown", "b1": "folder/s2", "gone": "folder/s2"},
    }
    assert table.loc["a1", ["onset", "apex", "offset"]].tolist() == [3, 6, 12]
    assert table.loc["b1", ["onset", "apex", "offset"]].tolist() == [0, 4, 8]
    assert table["fps"].tolist() == [200.0, 30.0, 50.0, 200.0]
    assert table["aus"].tolist() == [["12"], [], ["15"], []]
    assert table["frame_folder"]["gone"] == "" and found(reading, "row 5: a second a1, left out")
    assert numbers("folder", tmp_path, reading.table.iloc[2]) == list(range(9))


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (["clip", "subject"], [["sadness/001", "bob"], [r"Happy\001.avi", "al"]]),
        (["clip", "subject", "emotion"], [["001", "bob", "Sad"], ["001", "al", "HAPPINESS"]]),
    ],
)
def test_one_name_in_several_classes(tmp_path, header, rows):
    for emotion in ("happiness", "sadness"):
        write_frames(tmp_path / emotion / "001", range(1, 13))
    write_frames(tmp_path / "sadness/002", range(1, 13))
    path = write_sheet(tmp_path / "t.csv", [header, *rows, ["002", "cy", ""][: len(header)]])
    table = read("folder", tmp_path).table
    assert table["frame_folder"].tolist() == ["happiness/001", "sadness/001", "sadness/002"]
    assert table["subject"].tolist() == ["folder/al", "folder/bob", "folder/cy"]
    write_sheet(path, [["clip", "subject"], ["sadness/001", "al"], ["001", "bob"]])
    with pytest.raises(
        DataError, match=r"row 3: '001' .* there are happiness/001, sadness/001\. W"
    ):
        read("folder", tmp_path)


def test_a_row_of_another_class_serves_no_clip(tmp_path):
    write_frames(tmp_path / "happiness/001", range(1, 13))
    header = ["clip", "subject", "onset", "offset"]
    write_sheet(tmp_path / "t.csv", [header, ["sadness/001", "bob", 1, 12]])
    reading = read("folder", tmp_path)
    assert reading.table["subject"].tolist() == ["folder/unknown", "folder/bob"]
    assert reading.table["clip"].tolist() == ["001", "001"]
    assert found(reading, "bob/001 (row 2): no frame folder; expected sadness/001 below")


def test_subjects_typed_in_two_ways(tmp_path):
    names = ["P1", "p1", "1", "01", "10"]
    write_sheet(tmp_path / "t.csv", [["subject", "clip"], *([name, "a"] for name in names)])
    for folder in ("P1", "1", "01", "10"):
        write_frames(tmp_path / folder / "a", range(9))
    write_frames(tmp_path / "p1/a", range(9))
    reading = read("csv", tmp_path)
    subjects = [f"csv/{name}" for name in ("P1", "P1", "1", "01", "10")]
    assert reading.table["subject"].tolist() == subjects
    assert reading.table["clip"].tolist() == ["a", "a_2", "a", "a", "a"]
    assert reading.table["frame_folder"].tolist()[:2] == ["P1/a", "p1/a"]
    assert found(reading, "Subjects P1, p1 differ only in case")
    assert found(reading, "Subjects 1, 01 differ only by leading zeros")
    write_frames(tmp_path / "own/fear/a", range(9))
    write_frames(tmp_path / "own/fear/b", range(9))
    write_sheet(tmp_path / "own/t.csv", [["clip", "subject"], ["a", "Ann"], ["b", "ann"]])
    assert set(read("folder", tmp_path / "own").table["subject"]) == {"folder/Ann"}


def test_a_folder_without_clips(tmp_path):
    with pytest.raises(DataError, match=r"No clips in .* Expected a folder for each emotion"):
        read("folder", tmp_path)


def test_images_without_numbers_are_numbered_by_name(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for name in ("b.png", "a.png", "C.png"):
        (folder / name).touch()
    frames = list_frames(folder)
    assert [(f.number, f.path.name) for f in frames] == [(1, "a.png"), (2, "b.png"), (3, "C.png")]


@pytest.mark.parametrize("said", [5, 13])
def test_headers_that_miscount_a_video(tmp_path, said):
    """Without an annotated offset the last frame is the last that can be read."""
    video = write_video(tmp_path / "a/one.avi", num_frames=12)
    data = bytearray(video.read_bytes())
    for name, place in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # dwTotalFrames, dwLength
        at = data.index(name) + place
        data[at : at + 4] = said.to_bytes(4, "little")
    video.write_bytes(data)
    assert count_video_frames(video) == said and count_video_frames(video, is_counted=True) == 12
    write_sheet(tmp_path / "t.csv", [["subject", "clip", "onset"], ["a", "one", 2]])
    reading = read("csv", tmp_path)
    (row,) = reading.table.to_dict("records")
    assert (row["onset"], row["offset"], row["num_missing_frames"]) == (2, 11, 0)
    assert numbers("csv", tmp_path, row) == list(range(2, 12))


def test_videos(tmp_path, monkeypatch):
    video = write_video(tmp_path / "größe 漢字.avi", num_frames=7, fps=200.0)
    assert count_video_frames(video) == 7 and video_fps(video) == 200.0
    assert [f.number for f in list_frames(video)] == list(range(7))
    monkeypatch.setattr(folders, "MAX_VIDEO_FRAMES", 5)
    with pytest.raises(DataError, match="7 frames by its header; expected 1 to 5"):
        count_video_frames(video)
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"RIFF not a video")
    with pytest.raises(DataError, match=r"Expected a video .*broken\.avi"):
        list_frames(broken)
    write_sheet(tmp_path / "t.csv", [["subject", "path", "onset", "offset"]])
    write_sheet(
        tmp_path / "t.csv",
        [["subject", "path", "onset", "offset"], ["a", "broken.avi", 0, 9], ["a", "x.avi", 0, 9]],
    )
    reading = read("csv", tmp_path)
    assert reading.table["frame_folder"].tolist() == ["", ""]
    assert found(reading, "Expected a video") and found(reading, "a/x (row 3): no frame fold")


def test_a_place_with_a_name_that_no_file_has_is_not_found(tmp_path):
    text = folders.not_found([("x" * 400, "one")], tmp_path)
    assert text.startswith("no frame folder; expected xxx")


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ("Emotion label", "emotion"),
        ("emotoin", "emotion"),
        ("OnSet Frame(s)", "onset"),
        ("ofset", "offset"),
        ("apex (index)", "apex"),
        ("Action Units (FACS)", "au"),
        ("FPS_camera", ""),
        ("notes", ""),
        ("age", ""),
    ],
)
def test_a_column_that_is_not_read_is_named(header, field, tmp_path):
    """A header that is nearly a field's would leave its cells out without a word."""
    write_frames(tmp_path / "anna/c1", range(1, 10))
    write_sheet(tmp_path / "t.csv", [["subject", "clip", header], ["anna", "c1", "2"]])
    reading = read("csv", tmp_path)
    assert reading.table["onset"].tolist() == [1]
    (line,) = found(reading, "t.csv: ")
    assert (f"call it {field}" if field else "columns that are not read: ") in line
    # Where the field is there, the other column is a note, and an empty one is nothing.
    rows = [["subject", "clip", field or "onset", header], ["anna", "c1", "2", "3"]]
    write_sheet(tmp_path / "t.csv", rows)
    assert found(read("csv", tmp_path), "columns that are not read: ")
    write_sheet(tmp_path / "t.csv", [["subject", "clip", header], ["anna", "c1", ""]])
    assert not found(read("csv", tmp_path), "t.csv: ")


def test_flags_of_units_may_be_true_and_false(tmp_path):
    write_frames(tmp_path / "anna/c1", range(1, 10))
    rows = [["subject", "clip", "AU1", "AU4", "AU7"], ["anna", "c1", True, False, True]]
    for name in ("t.csv", "t.xlsx"):
        write_sheet(tmp_path / name, rows)
        assert read("csv", tmp_path).table["aus"].tolist() == [["1", "7"]]
        (tmp_path / name).unlink()

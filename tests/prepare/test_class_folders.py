"""The reader `folder`: layouts, their guess, rules on names, and clips that lie elsewhere."""

from __future__ import annotations

import pytest
from prepared_helpers import run
from source_helpers import found, read, write_frames, write_sheet

from mexjax.errors import ConfigError, DataError
from mexjax.prepare.next_step import class_lines, training_command
from mexjax.prepare.sources import get_source
from mexjax.prepare.sources.folder_layout import parse_layout


def write(root, *places):
    for place in places:
        write_frames(root / place, range(1, 10))
    return root


def clips_of(reading):
    columns = ["subject", "clip", "emotion", "frame_folder"]
    return [tuple(row) for row in reading.table[columns].to_numpy().tolist()]


@pytest.mark.parametrize(
    ("text", "names", "words"),
    [
        ("emotion/clip", ["joy", "a"], {"emotion": "joy", "clip": "a"}),
        ("subject/emotion/clip", ["s", "e", "c"], {"subject": "s", "emotion": "e", "clip": "c"}),
        ("emotion/subject_clip", ["e", "s1_a_2"], {"subject": "s1", "emotion": "e"}),
        ("*/subject-emotion/clip", ["x", "s-e", "c"], {"subject": "s", "emotion": "e"}),
        ("subject_emotion_clip", ["s_e_1"], {"subject": "s", "emotion": "e", "clip": "s_e_1"}),
        ("emotion/subject_clip", ["e", "s1"], None),
        ("emotion/clip", ["a", "b", "c"], None),
    ],
)
def test_layouts_are_read_from_their_text(text, names, words):
    answer = parse_layout(text).read(names)
    assert answer is None if words is None else words.items() <= (answer or {}).items()
    assert answer is None or answer["clip"] == names[-1]


@pytest.mark.parametrize(
    "text", ["", "emotion", "clip/emotion", "person/clip", "subjects/clip", "clip/clip", "a//clip"]
)
def test_layouts_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match=r"--layout=.*subject/emotion/clip"):
        parse_layout(text)


def test_subjects_from_folders(tmp_path):
    write(tmp_path, "anna/Happy/1", "anna/fear/1", "bob/Happy/1", "bob/fear/2")
    (tmp_path / "bob/fear/x").mkdir()
    reading = read("folder", tmp_path)
    assert clips_of(reading) == [
        ("folder/anna", "1", "fear", "anna/fear/1"),
        ("folder/anna", "1_2", "happiness", "anna/Happy/1"),
        ("folder/bob", "2", "fear", "bob/fear/2"),
        ("folder/bob", "1", "happiness", "bob/Happy/1"),
    ]
    assert reading.problems[0].startswith("The folders were read as subject/emotion/clip, because")
    assert not found(reading, "The subjects of")
    assert found(reading, "bob/x (bob/fear/x): no onset or no offset, left out")


def test_the_level_of_emotions_is_found_by_its_words(tmp_path):
    write(tmp_path, "surprise/anna/1", "fear/anna/1", "fear/bob/7")
    reading = read("folder", tmp_path)
    assert found(reading, "were read as emotion/subject/clip") and found(reading, "--layout=subje")
    assert {row[0::2] for row in clips_of(reading)} == {
        *(("folder/anna", "surprise"), ("folder/anna", "fear"), ("folder/bob", "fear")),
    }
    other = get_source("folder", "subject/emotion/clip").read(tmp_path)
    assert {row[0::2] for row in clips_of(other)} == {
        *(("folder/surprise", "anna"), ("folder/fear", "anna"), ("folder/fear", "bob")),
    }
    deep = write(tmp_path / "deep", "day 1/anna/fear/1", "day 1/bob/surprise/1")
    assert found(read("folder", deep), "read as */subject/emotion/clip, because clips lie 4 names")


def test_a_rule_on_the_names_of_clips(tmp_path):
    write(tmp_path, "joy/p1_01", "joy/p2_01", "joy/nobody", "fear/p1_02")
    reading = get_source("folder", "emotion/subject_clip").read(tmp_path)
    assert clips_of(reading) == [
        ("folder/p1", "p1_02", "fear", "fear/p1_02"),
        ("folder/p1", "p1_01", "joy", "joy/p1_01"),
        ("folder/p2", "p2_01", "joy", "joy/p2_01"),
    ]
    assert found(reading, "The folders were read as emotion/subject_clip.")
    assert found(reading, "nobody: its name does not fit the layout emotion/subject_clip")
    flat = write(tmp_path / "flat", "p1_joy_1", "p2_fear_1")
    with pytest.raises(DataError, match=r"No clips in .*Not read.*p1_joy_1, p2_fear_1 \(2 clips\)"):
        read("folder", flat)
    reading = get_source("folder", "subject_emotion_clip").read(flat)
    assert [row[0::2] for row in clips_of(reading)] == [("folder/p1", "joy"), ("folder/p2", "fear")]


def test_no_clip_is_lost_without_a_line(tmp_path):
    write(tmp_path, "joy/a", "joy/b", "fear/c", "fear/more/d", "loose")
    reading = read("folder", tmp_path)
    (line,) = found(reading, "Not read, because the place is not emotion/clip")
    assert "fear/more/d" in line and "loose" in line and "(2 clips)" in line
    (tmp_path / "joy/cover.jpg").touch()  # a picture beside clips is no clip
    assert [row[1] for row in clips_of(read("folder", tmp_path)) if row[3]] == ["c", "a", "b"]


def test_a_table_finds_its_clips_in_folders_of_subjects(tmp_path):
    write(tmp_path, "anna/fear/1", "anna/joy/1", "bob/joy/1", "bob/joy/2")
    header = ["subject", "clip", "emotion", "onset", "offset"]
    rows = [["anna", "1", "joy", 2, 8], ["BOB", "1", "", 3, 8], ["", "bob/joy/2", "", 4, 8]]
    rows += [["cy", "1", "joy", 5, 8]]
    path = write_sheet(tmp_path / "t.csv", [header, *rows])
    reading = get_source("folder", "subject/emotion/clip").read(tmp_path)
    onsets = dict(zip(reading.table["frame_folder"], reading.table["onset"], strict=True))
    assert onsets == {"anna/fear/1": 1, "anna/joy/1": 2, "bob/joy/1": 3, "bob/joy/2": 4, "": 5}
    assert found(reading, "cy/1 (row 5): no frame folder; expected cy/joy/1 below")
    write_sheet(path, [header, ["anna", "1", "", 2, 8]])
    with pytest.raises(DataError, match=r"there are anna/fear/1, anna/joy/1\. Write it with its"):
        get_source("folder", "subject/emotion/clip").read(tmp_path)


def test_spellings_of_emotions_are_told(tmp_path):
    write(tmp_path, "s/Happy/1", "t/happiness/1", "t/joié/2", "s/joie/2")
    reading = get_source("folder", "subject/emotion/clip").read(tmp_path)
    assert found(reading, "Emotions Happy, happiness are one word and one class, happiness.")
    (line,) = found(reading, "differ only by accents")
    assert line.startswith("Emotions joie, joié") and "are 2 classes" in line


def test_columns_of_units_as_programs_write_them(tmp_path):
    write(tmp_path, "a/1", "a/2")
    write_sheet(tmp_path / "t.csv", [["subject", "clip", "AU1", "AU2"], ["a", "1", "1.0", "0.0"]])
    reading = read("csv", tmp_path)
    assert reading.table["aus"].tolist() == [["1"]]
    assert not found(reading, "expected 0 or 1") and found(
        reading, "Any other unit counts as absent"
    )


def test_columns_of_units(tmp_path):
    write(tmp_path, "a/1", "a/2", "b/3", "b/4")
    header = ["subject", "clip", "AU01", "AU 4", "au12", "AU04_r"]
    rows = [["a", "1", 1, 0, 1, 2.5], ["a", "2", 0, 0, 0, 0], ["b", "3", 1.0, "", 0, 1]]
    rows += [["b", "4", "", "", "", ""]]
    write_sheet(tmp_path / "t.xlsx", [header, *rows])
    reading = read("csv", tmp_path)
    assert reading.table["au"].tolist() == ["1+12", "0", "", ""]
    assert reading.table["aus"].tolist() == [["1", "12"], [], [], []]
    assert found(reading, "Action units were read from the columns AU1, AU4, AU12.")
    assert found(reading, "row 4: expected 0 or 1 in the columns of action units, found AU4 ''")
    assert found(reading, "The action units of 2 of 4 rows are empty and so unknown")
    write_sheet(tmp_path / "t.xlsx", [[*header, "AU"], *([*row, "4"] for row in rows)])
    assert read("csv", tmp_path).table["aus"].tolist() == [["4"]] * 4


def test_the_next_step_is_a_command_or_a_reason(tmp_path):
    write(tmp_path, "s/fear/1", "t/fear/2", "t/joy/3")
    table = get_source("folder", "subject/emotion/clip").read(tmp_path).table
    command, why = training_command("out", table)
    assert command.endswith("--config.data.root=out --config.protocol.classes=own") and not why
    first, second = class_lines(table)
    assert first.startswith("Classes, in this order: fear (2 clips), joy (1).")
    assert second.startswith("Class joy: its one clip is of one subject, folder/t")
    alone = table.assign(subject="folder/unknown")
    assert training_command("out", alone)[1].startswith("All clips are of one subject, folder/unk")
    assert len(class_lines(alone)) == 1
    same = table.assign(emotion="fear")
    assert "Telling classes apart needs two" in training_command("out", same)[1]
    units = same.assign(au=["4+9", "4", "9"], aus=[["4", "9"], ["4"], ["9"]])
    command, why = training_command("out", units)
    assert "--config=configs/ac4au.py" in command and "--config.protocol.units=4,9" in command


def test_layout_is_an_option_of_folder_alone(tmp_path, capsys):
    write(tmp_path / "in", "s/fear/1", "t/joy/2")
    given = [f"--root={tmp_path / 'in'}", "--check"]
    assert run("--dataset=folder", "--layout=emotion/subject/clip", *given) == 0
    said = capsys.readouterr().out
    assert "The folders were read as emotion/subject/clip." in said and "published" not in said
    assert run("--dataset=folder", "--layout=who/clip", *given) == 2
    assert "--layout='who/clip' cannot be read" in capsys.readouterr().err
    assert run("--dataset=csv", "--layout=emotion/clip", *given) == 2
    assert "--layout goes with --dataset=synthetic and" in capsys.readouterr().err


def test_clips_without_a_table_are_named_by_their_folder(tmp_path):
    """There is no row; SMIC's folders too."""
    write(tmp_path / "own", "fear/a", "joy/a", "joy/odd*name/x", "sad/b?")
    (tmp_path / "own/fear/empty").mkdir()
    reading = read("folder", tmp_path / "own")
    assert found(reading, "unknown/a_2 (joy/a): a occurs before, so this clip is a_2.")
    assert found(reading, "unknown/empty (fear/empty): no onset")
    assert {"a", "a_2", "b?"} == set(reading.table["clip"])
    write(tmp_path / "smic", "HS/s1/micro/positive/c1", "HS/s01/micro/negative/c1")
    smic = read("smic", tmp_path / "smic")
    assert found(smic, "(s1/micro/positive/c1): c1 occurs before")
    own, released = ([line for line in each.problems if "row " in line] for each in (reading, smic))
    assert not own and not released


def test_any_name_of_a_folder_is_a_subject(tmp_path):
    write(tmp_path, "who?/fear/1", "C:/joy/1")
    assert set(read("folder", tmp_path).table["subject"]) == {"folder/who?", "folder/C:"}


def test_a_table_among_the_folders_that_is_not_read_has_a_hint(tmp_path):
    write(tmp_path, "joy/a", "fear/b")
    table = [["path", "subject", "emotion"], ["joy/a", "anna", "joy"], ["fear/b", "bob", "fear"]]
    write_sheet(tmp_path / "labels.csv", table)
    (line,) = found(read("folder", tmp_path), "Not read: labels.csv")
    assert "say --dataset=csv" in line and "column clip" in line
    write_sheet(tmp_path / "labels.csv", [["clip", "subject"], ["a", "anna"], ["b", "bob"]])
    assert not found(read("folder", tmp_path), "Not read")
    # Clips side by side, whose labels a table has, are no folders of classes.
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/a.avi").touch()
    write_sheet(tmp_path / "flat/labels.csv", [["video", "class", "person"], ["a", "joy", "anna"]])
    with pytest.raises(DataError, match=r"No clips in .*labels\.csv lists 1 clips: .*=csv"):
        read("folder", tmp_path / "flat")
    write_sheet(tmp_path / "flat/labels.csv", [["path", "person"], ["a.avi", "anna"]])
    with pytest.raises(DataError, match=r"No clips in .*labels\.csv.*--dataset=csv"):
        read("folder", tmp_path / "flat")


def test_folders_that_systems_make_are_no_classes(tmp_path):
    """They hold thumbnails and shadows of the files beside them."""
    write(tmp_path, "joy/a", "fear/b", "__MACOSX/joy/a", "@eaDir/a", "$RECYCLE.BIN/x", "#recycle/y")
    write(tmp_path, "joy/@eaDir", "lost+found/z")
    reading = read("folder", tmp_path)
    assert sorted(reading.table["emotion"]) == ["fear", "joy"]
    assert not [line for line in reading.problems if "eaDir" in line or "MACOSX" in line]


def test_a_clip_without_a_visible_name_is_left_out_with_a_line(tmp_path):
    for name in ("happiness/a", "happiness/\u200b", "surprise/b"):
        write_frames(tmp_path / name, [1, 2, 3])
    reading = read("folder", tmp_path)
    assert sorted(row["clip"] for row in reading.table.to_dict("records")) == ["a", "b"]
    assert any("\\u200b" in text and "no letter that is seen" in text for text in reading.problems)

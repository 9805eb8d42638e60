"""Releases written from the embedded data: as odd as the real ones, and read back without loss."""

import errno
import itertools
import os
import re
import types

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest

from mexjax.data.synthetic import render_clip, truth
from mexjax.errors import ConfigError, DataError, WorkdirError
from mexjax.prepare import images
from mexjax.prepare.layouts import LAYOUTS, base, write_layout
from mexjax.prepare.layouts.base import EXPECTED_COLUMNS
from mexjax.prepare.layouts.cast import NUM_SHORT_FRAMES, make_cast
from mexjax.prepare.sources import get_source

SMALL = {"resolution_px": 64}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A function that gives the layout of a name, written once; one folder has a blank and an ü."""
    made = {}

    def get(name):
        if name not in made:
            root = tmp_path_factory.mktemp("releases") / f"{name} ü"
            made[name] = write_layout(name, root, **SMALL)
        return made[name]

    return get


def cells(layout, sheet=None):
    book = openpyxl.load_workbook(layout.spreadsheet)
    found = book[sheet] if sheet else book.worksheets[0]
    return [list(row) for row in found.iter_rows(values_only=True)]


def column(layout, header, sheet=None):
    rows = cells(layout, sheet)
    (start,) = (i for i, row in enumerate(rows) if header in row)
    return [row[rows[start].index(header)] for row in rows[start + 1 :]]


def files(layout, row):
    return sorted(path.name for path in (layout.root / row["frame_folder"]).iterdir())


@pytest.mark.parametrize("name", LAYOUTS)
def test_read_back_equals_what_was_written(release, name):
    layout = release(name)
    reading = get_source(name).read(layout.root)
    assert len(reading.table) == len(layout.expected) == 8
    for header in EXPECTED_COLUMNS:
        assert reading.table[header].tolist() == layout.expected[header].tolist(), header
    named = get_source(name).read(layout.root, spreadsheet=layout.spreadsheet)
    pd.testing.assert_frame_equal(named.table, reading.table)


@pytest.mark.parametrize("name", LAYOUTS)
def test_frames_are_the_files_from_onset_to_offset(release, name):
    layout, source = release(name), get_source(name)
    for row in source.read(layout.root).table.to_dict("records"):
        frames = source.frames(layout.root, row)
        numbers = [frame.number for frame in frames]
        wanted = set(range(row["onset"], row["offset"] + 1))
        assert numbers == sorted(set(numbers)) and set(numbers) <= wanted
        assert len(wanted) - len(numbers) == row["num_missing_frames"]
        assert {row["onset"], row["apex"], row["offset"]} <= set(numbers)
        assert all(frame.path.parent == layout.root / row["frame_folder"] for frame in frames)


@pytest.mark.parametrize("name", LAYOUTS)
def test_frames_show_the_clip_in_its_order(release, name):
    layout, source = release(name), get_source(name)
    plan = make_cast(name, num_clips=8, num_subjects=3, seed=0, **SMALL)
    table = source.read(layout.root).table
    for index in (0, 7):
        row = table.to_dict("records")[index]
        frames = source.frames(layout.root, row)
        found = images.read_frames(frames, is_color=plan.config.is_color)
        # The plan counts from the true onset: find its number by the first frame, then follow.
        drawn = render_clip(plan, index, range(-20, plan.clips[index].timing.num_frames + 20))
        errors = np.abs(drawn.astype(int) - found[0].astype(int)).mean((1, 2, 3))
        first = int(errors.argmin())
        assert errors[first] < 2.5
        for frame, image in zip(frames, found, strict=True):
            wanted = drawn[first + frame.number - row["onset"]].astype(int)
            assert np.abs(image.astype(int) - wanted).mean() < 2.5


@pytest.mark.parametrize("name", LAYOUTS)
def test_oddities_of_all_layouts(release, name):
    layout = release(name)
    table, first, last = layout.expected, layout.expected.iloc[0], layout.expected.iloc[-1]
    assert table["num_missing_frames"].tolist() == [1, *[0] * 7]
    assert last["n_frames"] == NUM_SHORT_FRAMES < 8
    problems = "\n".join(get_source(name).read(layout.root).problems)
    for row, words in ((first, "frames are missing"), (last, "fewer than 8 frames")):
        where = f"{row['subject'].split('/')[1]}/{row['clip']}"
        assert re.search(rf"{re.escape(where)}.*{words}|{words}.*{re.escape(where)}", problems)
    assert not table.duplicated(["subject", "clip"]).any()
    assert (table["onset"] < table["apex"]).all() and (table["apex"] < table["offset"]).all()


def test_casme_pads_numbers_in_its_second_half_only(release):
    layout = release("casme")
    header = cells(layout)[0]
    assert [i for i, name in enumerate(header) if name is None] == [2, 7]
    early, late = layout.expected.iloc[1], layout.expected.iloc[-1]
    assert f"{early['clip']}-{early['onset']}.jpg" in files(layout, early)
    assert early["onset"] < 10 <= early["offset"]
    assert f"{late['clip']}-{late['onset']:03d}.jpg" in files(layout, late)
    assert any("?" in au for au in layout.expected["au"])
    assert any(au.startswith("L") for au in layout.expected["au"])
    assert "tense" in set(layout.expected["emotion"])


def test_casme2_has_a_slash_for_an_apex(release):
    layout = release("casme2")
    assert [i for i, name in enumerate(cells(layout)[0]) if name is None] == [2, 6]
    row = layout.expected.iloc[1]
    assert column(layout, "ApexFrame")[1] == "/"
    assert row["apex"] == (row["onset"] + row["offset"]) // 2
    read = get_source("casme2").read(layout.root).table
    assert "midpoint" in read["notes"][1] and "midpoint" not in read["notes"][0]
    assert {"Thumbs.db", "img1 - Shortcut.lnk"} <= set(files(layout, layout.expected.iloc[0]))
    assert any(isinstance(cell, int) for cell in column(layout, "Action Units"))


def test_samm_has_text_above_its_header(release):
    layout = release("samm")
    rows = cells(layout)
    assert rows[13][:2] == ["Subject", "Filename"]
    assert not any("Subject" in row for row in rows[:13])
    assert pd.read_excel(layout.spreadsheet, header=13).shape == (8, 12)
    apexes, offsets = column(layout, "Apex Frame"), column(layout, "Offset Frame")
    assert apexes[1] is None and apexes[3] > offsets[3]
    assert set(column(layout, "Subject")) == {"006", "007", "009"}
    assert files(layout, layout.expected.iloc[0])[0] == "006_09990.jpg"
    assert "Other" in column(layout, "Estimated Emotion")
    undecided = layout.expected.iloc[2]
    assert " or " in undecided["au"] and undecided["aus"] == []
    reading = get_source("samm").read(layout.root)
    where = f"{undecided['subject'].split('/')[1]}/{undecided['clip']}"
    assert any(where in line and " or " in line for line in reading.problems)


def test_casme_sq_is_long_videos_with_macro_expressions(release):
    layout = release("casme_sq")
    rows = cells(layout)
    assert all(isinstance(row[0], int) for row in rows)  # no header
    kinds = [row[7] for row in rows]
    assert kinds.count("micro-expression") == 8 and kinds.count("macro-expression") == 5
    assert cells(layout, "naming rule2")[0] == ["0101", "disgust1"]
    folders = layout.expected["frame_folder"]
    assert folders.nunique() == 5  # several expressions in one video
    names = [files(layout, row)[0] for _, row in layout.expected.iterrows()]
    assert {re.sub(r"\d+", "#", name) for name in names} == {"img#.jpg", "img_#.jpg"}
    longest = layout.expected.iloc[0]
    assert len(files(layout, longest)) > 2 * longest["n_frames"]


def test_casme3a_has_several_expressions_in_a_video(release):
    layout = release("casme3a")
    table = layout.expected
    assert table["clip"].tolist()[:3] == ["a", "a2", "b"]
    assert table["frame_folder"][0] == table["frame_folder"][1]
    written = column(layout, "Filename")
    assert written[:2] == ["a", "a"] and sum(letter.isupper() for letter in written) == 1
    assert table["clip"].str.islower().all()
    assert openpyxl.load_workbook(layout.spreadsheet).sheetnames == ["label", "Sheet2", "Sheet3"]
    assert {"happy", "sad"} <= set(column(layout, "emotion"))
    assert any("T28" in au for au in table["au"])
    assert (layout.root / table["frame_folder"][0]).with_name("depth").is_dir()


def test_a_known_slip_of_casme3a_is_corrected(release):
    layout = release("casme3a")
    assert 3647 in column(layout, "Onset")
    reading = get_source("casme3a").read(layout.root)
    (row,) = reading.table[reading.table["onset"] == 2647].to_dict("records")
    assert (row["subject"], row["clip"]) == ("casme3a/spNO.216", "d")
    assert "corrected" in row["notes"]
    assert any("3647" in line and "2647" in line for line in reading.problems)


def test_casme3c_has_commas_of_all_kinds(release):
    layout = release("casme3c")
    units = column(layout, "au", "mockCrimeME")
    assert any(isinstance(cell, int) for cell in units)
    texts = [cell for cell in units if isinstance(cell, str)]
    assert any("，" in text for text in texts) and any(text.endswith(",") for text in texts)
    assert any(text.endswith("?") for text in texts)
    assert layout.expected["subject"][0] == "casme3c/01"
    middle = (layout.expected["onset"] + layout.expected["offset"]) // 2
    assert (layout.expected["apex"] == middle).all()


def test_mmew_keeps_others_in_another_folder(release):
    layout = release("mmew")
    others = layout.expected[layout.expected["emotion"] == "others"]
    assert len(others) and others["frame_folder"].str.contains("/repression/").all()
    assert column(layout, "Estimated Emotion").count("others") == len(others)
    assert (layout.expected["onset"] == 1).all()
    assert files(layout, layout.expected.iloc[1])[0] == "1.jpg"


def test_fourd_has_static_units_and_compound_emotions(release):
    layout = release("fourd")
    table = layout.expected
    static = table[table["au"].str.contains(r"\(k\)")]
    assert len(static) == 2
    rows = cells(layout)
    for index, row in static.iterrows():
        (held,) = re.findall(r"(\d+)\(k\)", row["au"])
        assert held not in row["aus"]
        counted = dict(zip(rows[0], rows[index + 1], strict=True))
        assert counted[f"AU{held}"] == 1  # the release's columns count it
        assert all(counted[f"AU{au}"] == 1 for au in row["aus"])
    assert any("+" in emotion for emotion in table["emotion"])
    assert len(list(layout.root.glob("*_release v1.xlsx"))) == 2
    assert images.read_frame(
        next((layout.root / table["frame_folder"][0]).iterdir()), 0, is_color=False
    ).shape == (64, 64, 1)


def test_smic_has_no_apex_and_no_units(release):
    layout = release("smic")
    assert cells(layout)[0][0] is None
    assert layout.expected["aus"].tolist() == [[]] * 8
    names = files(layout, layout.expected.iloc[0])
    assert all(re.fullmatch(r"image\d{6}\.bmp|Thumbs\.db", name) for name in names)


def test_landmarks_are_the_truth(release):
    layout = release("fourd")
    table = pd.read_csv(layout.landmarks)
    assert len(table) == layout.expected["n_frames"].sum()
    assert table.columns.tolist()[:4] == ["clip", "frame", "x0", "y0"]
    row = layout.expected.iloc[4]
    part = table[table["clip"] == f"{row['subject']}/{row['clip']}"]
    assert part["frame"].tolist() == list(range(row["onset"], row["offset"] + 1))
    points = part.drop(columns=["clip", "frame"]).to_numpy().reshape(-1, 68, 2)
    plan = make_cast("fourd", num_clips=8, num_subjects=3, seed=0, **SMALL)
    onset = plan.clips[4].timing.onset
    wanted = truth(plan, 4, range(onset, onset + row["n_frames"])).landmarks
    np.testing.assert_allclose(points, wanted, atol=1e-3)


def test_same_seed_same_bytes(tmp_path):
    roots = [tmp_path / name for name in ("one", "two", "other")]
    layouts = [
        write_layout(
            "casme3c", root, num_clips=6, seed=root.name == "other", has_landmarks=False, **SMALL
        )
        for root in roots
    ]
    one, two, other = layouts
    assert one.landmarks is None and not (one.root / "landmarks.csv").exists()
    pd.testing.assert_frame_equal(one.expected, two.expected)
    assert one.expected["onset"].tolist() != other.expected["onset"].tolist()
    paths = [sorted(p.relative_to(root) for p in root.rglob("*.jpg")) for root in roots[:2]]
    assert paths[0] == paths[1]
    assert all((roots[0] / p).read_bytes() == (roots[1] / p).read_bytes() for p in paths[0])


@pytest.mark.parametrize("name", LAYOUTS)
def test_many_clips_keep_names_apart(name, tmp_path, monkeypatch):
    def make_folder(self, take, folder, *_args, **_options):
        (self.root / folder).mkdir(parents=True, exist_ok=True)

    def no_landmarks(_plan, _index, frames):
        return types.SimpleNamespace(landmarks=np.zeros((len(frames), 68, 2)))

    monkeypatch.setattr(base.Release, "draw", make_folder)
    monkeypatch.setattr(base, "truth", no_landmarks)
    table = write_layout(name, tmp_path / "a", num_clips=90, num_subjects=15).expected
    assert len(table) == 90 and table["subject"].nunique() == 15
    assert not table.duplicated(["subject", "clip"]).any()
    assert set(table["emotion"]) >= {"surprise"}
    for (_, one), (_, two) in itertools.pairwise(table.iterrows()):
        if one["frame_folder"] == two["frame_folder"]:
            assert one["offset"] < two["onset"]  # different faces cannot share a frame


def test_the_seeds_of_sets_differ():
    faces = {
        name: make_cast(name, num_clips=6, num_subjects=2, seed=0, **SMALL).identities[0].landmarks
        for name in LAYOUTS
    }
    for one, two in itertools.combinations(faces, 2):
        assert not np.allclose(faces[one], faces[two])


def test_what_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="casme2"):
        write_layout("casmeII", tmp_path / "a")
    with pytest.raises(ConfigError, match="at least 6, found 5"):
        write_layout("casme", tmp_path / "a", num_clips=5)
    with pytest.raises(ConfigError, match="num_subjects"):
        write_layout("casme", tmp_path / "a", num_subjects=9)
    monkeypatch.setattr(base.Release, "draw", lambda *_args, **_options: None)
    with pytest.raises(ConfigError, match="22 subjects"):
        write_layout("casme_sq", tmp_path / "b", num_clips=40, num_subjects=30)
    monkeypatch.undo()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.docx").touch()
    with pytest.raises(WorkdirError, match="not empty"):
        write_layout("casme", tmp_path / "full")
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match=r"file.*(File exists|Not a directory)"):
        write_layout("casme", tmp_path / "file")


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(base, "save_workbook", full)
    monkeypatch.setattr(base.Release, "draw", lambda *_args, **_options: None)
    with pytest.raises(WorkdirError, match=rf"{tmp_path}/a: No space left on device\. Free space"):
        write_layout("casme", tmp_path / "a", has_landmarks=False)


def test_a_clip_without_frames_keeps_its_row(tmp_path):
    layout = write_layout("smic", tmp_path / "a", num_clips=6, **SMALL)
    source, row = get_source("smic"), layout.expected.iloc[2]
    folder = layout.root / row["frame_folder"]
    for path in folder.iterdir():
        path.unlink()
    reading = source.read(layout.root)
    found = reading.table.iloc[2]
    assert found["num_missing_frames"] == row["n_frames"]
    assert any(row["clip"] in line for line in reading.problems)
    with pytest.raises(DataError, match=row["clip"]):
        source.frames(layout.root, found)
    assert cv2.haveImageReader(str(next(layout.root.rglob("*.bmp"))))

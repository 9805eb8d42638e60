"""Face boxes off those of their subject are found again, replaced or kept, and always told."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from prepared_helpers import manifest_of, record_of, release, run

from mexjax.data.records import load_clip
from mexjax.files import SEAL, sealed
from mexjax.prepare import face_check, faces
from mexjax.prepare.face_check import Sight, Suspect, decide, gap, scattered, suspects, usual_square
from mexjax.prepare.face_geometry import Face, checked, face_in_square, square_of
from mexjax.prepare.layouts import Layout

SETUP = ("casme2/01", 480, 640)
USUAL = np.array([300.0, 200.0, 150.0])


def seen(x: float, y: float = 200.0, side: float = 150.0, certainty: int = 1) -> Face:
    face = face_in_square(np.array([x, y, side]), "cascade")
    return Face(face.landmarks, face.source, certainty)


def sights(*found: Face | None, setup: tuple[str, int, int] = SETUP) -> list[Sight]:
    return [
        Sight(f"casme2/01/{i}", setup, face, "" if face else f"casme2/01/{i}, frame 7: no face.")
        for i, face in enumerate(found)
    ]


# --- boxes compared ---------------------------------------------------------------------------


def test_a_square_is_that_of_its_face():
    square = np.array([120.0, 80.0, 97.0])
    np.testing.assert_allclose(square_of(face_in_square(square, "cascade")), square)
    turned = Face(faces.TEMPLATE @ [[0.8, 0.6], [-0.6, 0.8]] * 50 + 300, "cascade")
    corners = [[0, 0], [10, 0], [10, 10], [0, 10]]
    matrix = cv2.invertAffineTransform(faces.alignment(turned, size_px=10))
    middle = faces.to_crop(np.array(corners) - 0.5, matrix).mean(axis=0)
    np.testing.assert_allclose(square_of(turned), [*middle, 1.95 * 50])


def test_gaps_are_parts_of_the_size():
    assert gap(USUAL + np.array([30, -15, 0]), USUAL) == pytest.approx(0.2)
    assert gap(USUAL * [1, 1, 1.5], USUAL) == pytest.approx(0.5)
    assert gap(USUAL * [1, 1, 1 / 1.5], USUAL) == pytest.approx(0.5)


def test_the_usual_place_is_robust():
    near = USUAL + np.array([[0, 0, 0], [4, -3, 2], [-5, 2, 4], [2, 5, -6]])
    usual, limit = usual_square(np.concatenate([near, [[500, 100, 60]], [[90, 300, 200]]]))
    assert usual is not None and gap(usual, USUAL) < 0.05 and 0.25 <= limit <= 0.35
    assert usual_square(near[:2])[0] is None
    halves = np.concatenate([near, near + np.array([200, 0, 0])])  # the subject sat in two places
    assert usual_square(halves)[0] is None


@pytest.mark.parametrize(
    "off", [seen(420), seen(300, 290), seen(300, 200, 220), seen(300, 200, 90)]
)
def test_one_box_that_is_off_is_a_suspect(off):
    group = sights(seen(300), seen(305), off, seen(296, 204), seen(301, 199, 158))
    assert [each.sight.id for each in suspects(group)] == ["casme2/01/2"]
    assert scattered(group) == {}


def test_what_is_no_fault_is_no_suspect():
    sure = [seen(x, certainty=3) for x in (300, 500)]
    assert suspects(sights(sure[0])) == []
    assert suspects(sights(*sure)) == []
    assert scattered(sights(*sure)) == {"casme2/01": pytest.approx(200 / 150)}
    places = sights(*[seen(x + y, certainty=3) for x in (200, 400, 600) for y in (0, 5, 9)])
    assert suspects(places) == []
    assert scattered(places).keys() == {"casme2/01"}
    # Another size of frames is another camera.
    others = sights(seen(500, certainty=3), setup=("casme2/01", 200, 200))
    assert suspects(sights(seen(300), seen(302), seen(298)) + others) == []


def test_a_lone_box_without_eyes_is_looked_at_again():
    (suspect,) = suspects(sights(seen(300, certainty=1)))
    assert suspect.usual is None
    rest = {n: [seen(450 + n, certainty=3)] for n in (8, 9, 10)}
    sight = decide(suspect, {7: [seen(300, certainty=1)], **rest})
    assert square_of(sight.face)[0] == pytest.approx(458)
    assert "off those of the clip's other frames by 106%, found again in frame 8" in sight.note
    same = {n: [seen(310, certainty=3)] for n in (8, 9, 10)}
    assert decide(suspect, same) is suspect.sight
    assert decide(suspect, {8: [seen(450, certainty=3)]}) is suspect.sight


# --- decisions --------------------------------------------------------------------------------


def suspect_of(face: Face | None, num_same: int = 0) -> Suspect:
    return Suspect(sights(face)[0], USUAL, num_same)


def test_a_box_is_found_again_in_the_first_frame_that_has_it():
    off, near = seen(420), seen(306, certainty=3)
    sight = decide(suspect_of(off), {7: [off], 8: [off, near], 9: [seen(310, certainty=3)]})
    assert sight.face is near and sight.before is off
    assert sight.note == ("face box off those of the subject by 80%, found again in frame 8")
    faint = seen(306, certainty=0)
    sight = decide(suspect_of(off), {7: [off, faint]})
    assert sight.face is faint and sight.note.endswith("found again in frame 7, though faintly")


def test_a_subject_that_moved_keeps_its_box():
    moved = seen(420, certainty=3)
    sight = decide(suspect_of(moved), {7: [moved, seen(305, certainty=1)]})
    assert sight.face is moved and sight.before is None
    assert sight.note.endswith("kept because both eyes were seen in it")
    often = seen(420, certainty=1)
    sight = decide(suspect_of(often, num_same=2), {7: [often]})
    assert sight.face is often and "kept because 2 other clips" in sight.note
    # Another person in the picture: the one at the usual place is meant.
    sight = decide(suspect_of(moved), {7: [moved, seen(305, certainty=3)]})
    assert square_of(sight.face)[0] == pytest.approx(305)


def test_a_box_without_any_face_is_replaced_by_the_usual_one():
    off = seen(420)
    sight = decide(suspect_of(off), {7: [off], 8: [seen(500)]})
    np.testing.assert_allclose(square_of(sight.face), USUAL)
    assert sight.before is off and sight.note.endswith("replaced by their median")
    assert face_check.face_notes(f"apex guessed; {sight.note}") == [sight.note]


def test_a_missing_face_is_found_but_not_invented():
    sight = decide(suspect_of(None), {7: [], 8: [seen(306, certainty=3)]})
    assert sight.face is not None and not sight.problem
    assert sight.note == "face box found near those of the subject in frame 8: frame 7: no face"
    for nothing in ({7: []}, {7: [seen(500, certainty=3)]}, {7: [seen(300, certainty=0)]}):
        sight = decide(suspect_of(None), nothing)
        assert sight.face is None and "no face" in sight.problem


# --- the command ------------------------------------------------------------------------------


class Blotches:
    """A detector that sees blotches: bright ones are sure, dim ones are not."""

    def __init__(self) -> None:
        self.kind = "cascade"
        self.details = {"detector": "blotches, 1", "sha256": "0"}

    def every_face(self, image: np.ndarray) -> list[Face]:
        out = []
        for certainty, low in ((3, 230), (1, 150)):
            mask = ((image[..., 0] > low) & (image[..., 0] < low + 25)).astype(np.uint8)
            for x, y, width, height, area in cv2.connectedComponentsWithStats(mask)[2][1:]:
                if area > 20:
                    square = np.array([x + width / 2, y + height / 2, 2.5 * width])
                    face = face_in_square(square, "cascade")
                    out.append(Face(face.landmarks, "cascade", certainty))
        return out

    def __call__(self, image: np.ndarray, key: tuple[str, int]) -> Face:
        found = self.every_face(image)
        if not found:
            raise faces.DataError(f"{key[0]}, frame {key[1]}: no face was found. Look.")
        return checked(max(found, key=lambda face: square_of(face)[2]), image.shape, key)


def blotch(x: int, y: int, side: int = 24, value: int = 240) -> tuple[int, int, int, int]:
    return x, y, side, value


def paint(paths: list[Path], *blotches: tuple[int, int, int, int]) -> None:
    for path in paths:
        image = np.full((200, 300, 3), 40, np.uint8)
        for x, y, side, value in blotches:
            image[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2] = value
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 100])


@pytest.fixture
def painted(tmp_path, monkeypatch) -> Layout:
    """Seven clips of one subject; four are odd."""
    monkeypatch.setattr("mexjax.prepare.faces.CascadeFinder", Blotches)
    layout = release("casme", tmp_path / "release", num_clips=8, num_subjects=1)
    clips: dict[Path, list[Path]] = {}
    for path in sorted(layout.root.rglob("*.jpg")):
        clips.setdefault(path.parent, []).append(path)
    usual = blotch(100, 90)
    for i, paths in enumerate(clips.values()):
        paths.sort(key=lambda path: (len(path.name), path.name))
        paint(paths, (100 + i, 90 - i, 24, 240))
        if i == 2:  # something larger than the face, and dim
            paint(paths, usual, blotch(200, 90, 40, 160))
        if i == 3:  # the subject moved
            paint(paths, blotch(220, 110))
        if i == 4:  # the face is never seen, something else is
            paint(paths, blotch(210, 60, 24, 160))
        if i == 5:  # a first frame without a face
            paint(paths[:1])
    return layout


def prepare_painted(layout: Layout, out: Path, *more: str) -> int:
    return run(
        "--dataset=casme", f"--root={layout.root}", f"--spreadsheet={layout.spreadsheet}",
        f"--out={out}", "--size_px=64", "--clips-per-shard=2", "--faces=cascade", *more,
    )  # fmt: skip


def test_odd_boxes_are_mended_and_told(painted, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare_painted(painted, out) == 0
    text = capsys.readouterr().out
    table = manifest_of(out)
    notes = [face_check.face_notes(text) for text in table["notes"]]
    words = {i: "".join(found) for i, found in enumerate(notes) if found}
    assert {i: word.partition(", ")[2] or word for i, word in words.items()} == {
        2: words[2].partition(", ")[2],
        3: "kept because both eyes were seen in it",
        4: "replaced by their median",
        5: words[5],
    }
    assert "found again in frame" in words[2] and "found near those of the subject" in words[5]
    summary = (out / "summary.md").read_text(encoding="utf-8")
    for i, word in words.items():
        line = f"{table['subject'][i]}/{table['clip'][i]}: {word}"
        assert line in " ".join(text.split()) and line in summary
    # The blotch lies in the middle of the crop wherever it was found.
    for i, row in enumerate(table.to_dict("records")):
        if i != 4:
            middle = load_clip(out, row).frames[-1, 28:36, 28:36]
            assert middle.min() > 200, i
    sheet = cv2.imread(str(out / "contact_sheet.png"))
    red = (np.abs(sheet.astype(int) - [40, 40, 255]).sum(axis=-1) < 30).mean(axis=1)
    rows = red.reshape(-1, 224).max(axis=1) > 0.9
    assert rows.tolist() == [True] * 4 + [False] * 4
    assert record_of(out)["parameters"]["detector"] == "blotches, 1"


def test_a_preparation_that_goes_on_gives_the_same_bytes(painted, tmp_path):
    assert prepare_painted(painted, tmp_path / "whole") == 0
    part = tmp_path / "part"
    assert prepare_painted(painted, part, "--workers=0") == 0
    shards = sorted((part / "frames").glob("*.arrayrecord"))
    for path in shards[1:3]:
        path.unlink()
    (part / "manifest.parquet").unlink()
    assert prepare_painted(painted, part) == 0
    whole, again = manifest_of(tmp_path / "whole"), manifest_of(part)
    assert again["sha256"].tolist() == whole["sha256"].tolist()
    assert again["notes"].tolist() == whole["notes"].tolist()


def test_boxes_of_another_detector_are_not_mixed(painted, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare_painted(painted, out) == 0
    path = out / "preparation.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["parameters"]["detector"]  # as an older version left it
    del record[SEAL]
    path.write_text(json.dumps(sealed(record)), encoding="utf-8")
    assert prepare_painted(painted, out) == 2
    assert "detector is None there and 'blotches, 1' now" in capsys.readouterr().err

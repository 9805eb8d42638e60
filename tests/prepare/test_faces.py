"""Finding, describing and cutting out faces, on rendered faces whose landmarks are known."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib import cbook
from PIL import Image

from mexjax.data import synthetic
from mexjax.errors import ConfigError, DataError
from mexjax.prepare import cascade_faces, face_geometry
from mexjax.prepare.faces import (
    MEDIAPIPE_TO_68,
    MIRROR_68,
    SOURCES,
    TEMPLATE,
    Face,
    align,
    alignment,
    find_model,
    make_finder,
    to_68,
    to_crop,
)
from mexjax.prepare.landmark_table import POINT_COLUMNS
from mexjax.prepare.mediapipe_faces import choose

KEY = ("casme2/01/EP02_01f", 46)
SIZE = 160
PORTRAIT_EYES = [[200.0, 195.0], [324.0, 188.0]]
COLUMNS = ["clip", "frame", *POINT_COLUMNS]


@pytest.fixture(scope="module")
def rendered() -> list[tuple[np.ndarray, np.ndarray]]:
    """Six subjects: (u8[160, 160, 3], f64[68, 2])."""
    plan = synthetic.make_plan(synthetic.SyntheticConfig(num_subjects=6, num_clips=6))
    known = [synthetic.truth(plan, i, [0], resolution_px=SIZE).landmarks[0] for i in range(6)]
    images = [
        synthetic.render_clip(plan, i, [0], resolution_px=SIZE, is_color=True)[0] for i in range(6)
    ]
    return [(image, points.astype(float)) for image, points in zip(images, known, strict=True)]


@pytest.fixture
def no_model(monkeypatch, tmp_path) -> Path:
    """No model in the environment, and an empty home."""
    monkeypatch.delenv("MEXJAX_LANDMARKER", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


# --- the 68 points ------------------------------------------------------------------------------


def test_mesh_points_lie_on_the_parts_they_stand_for():
    """MediaPipe's own lists of contours say which mesh points are an eye, a brow, a lip."""
    from mediapipe.tasks.python.vision import FaceLandmarksConnections as Parts

    def part(name: str) -> set[int]:
        pairs = getattr(Parts, f"FACE_LANDMARKS_{name}")
        return {i for pair in pairs for i in (pair.start, pair.end)}

    # MediaPipe says left and right as the subject would; iBUG counts from the image's left.
    places = {
        "FACE_OVAL": range(17),
        "RIGHT_EYEBROW": range(17, 22),
        "LEFT_EYEBROW": range(22, 27),
        "NOSE": range(27, 36),
        "RIGHT_EYE": range(36, 42),
        "LEFT_EYE": range(42, 48),
        "LIPS": range(48, 68),
    }
    assert len(MEDIAPIPE_TO_68) == 68
    for name, points in places.items():
        used = {i for point in points for i in MEDIAPIPE_TO_68[point]}
        assert used <= part(name), name
    corners = {8: 152, 30: 4, 33: 2, 36: 33, 39: 133, 42: 362, 45: 263, 48: 61, 54: 291, 57: 17}
    assert {i: MEDIAPIPE_TO_68[i] for i in corners} == {i: (j,) for i, j in corners.items()}


def test_mesh_to_68_points_means_pairs():
    mesh = np.stack([np.arange(478.0), -np.arange(478.0), np.zeros(478)], axis=1)
    points = to_68(np.stack([mesh, mesh + 1]))
    assert points.shape == (2, 68, 3)
    np.testing.assert_array_equal(points[0, [36, 3, 27]][:, 0], [33, (132 + 58) / 2, (168 + 6) / 2])
    np.testing.assert_array_equal(points[0, :, 1], -points[0, :, 0])
    np.testing.assert_array_equal(points[1], points[0] + 1)


def test_the_mean_face_is_symmetric_and_has_its_unit():
    assert sorted(MIRROR_68) == list(range(68))
    np.testing.assert_allclose(TEMPLATE[list(MIRROR_68)] * [-1, 1], TEMPLATE, atol=1e-12)
    np.testing.assert_allclose(TEMPLATE[45] - TEMPLATE[36], [1, 0], atol=1e-12)
    np.testing.assert_allclose(TEMPLATE[8], [0, 1.357], atol=5e-4)
    np.testing.assert_allclose(TEMPLATE[48], [-0.276, 0.788], atol=5e-4)


# --- the crop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 17, -30])
def test_crop_rule(degrees: float):
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    distance, middle = 83.0, np.array([310.0, 205.0])
    points = middle + distance * TEMPLATE @ rotation.T
    matrix = alignment(Face(points, "landmarks"), size_px=128)
    cut = to_crop(points, matrix)
    # Side 1.95 eye distances, centre 0.42 below the eyes, eyes level; edges at -0.5 and 127.5.
    np.testing.assert_allclose(np.diff(cut[[36, 45]], axis=0), [[128 / 1.95, 0]], atol=1e-9)
    below = (cut[36] + cut[45]) / 2 + [0, 0.42 * 128 / 1.95]
    np.testing.assert_allclose(below, [63.5, 63.5], atol=1e-9)
    assert cut.min() > 0 and cut.max() < 127  # brows, jaw and chin are inside
    np.testing.assert_allclose(np.linalg.norm(matrix[0, :2]), 128 / 1.95 / distance)


def test_align_puts_what_is_there_where_the_matrix_says():
    image = np.full((1, 300, 400, 1), 40, np.uint8)
    points = np.array([220.0, 130.0]) + 90 * TEMPLATE @ np.array([[0.96, 0.28], [-0.28, 0.96]])
    for x, y in np.round(points[[36, 45, 30]]).astype(int):
        image[0, y - 4 : y + 5, x - 4 : x + 5] = 240
    matrix = alignment(Face(points, "landmarks"), size_px=96)
    cut = align(image, matrix, size_px=96)
    assert cut.shape == (1, 96, 96, 1) and cut.dtype == np.uint8
    for point in to_crop(np.round(points[[36, 45, 30]]), matrix):
        low = np.round(point - 5).astype(int).clip(0)
        window = cut[0, low[1] : low[1] + 11, low[0] : low[0] + 11, 0] - 40.0
        rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
        center = [(window * grid).sum() / window.sum() for grid in (columns, rows)]
        np.testing.assert_allclose(center + low, point, atol=0.1)


def test_align_averages_what_it_shrinks_and_repeats_edges():
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    shrink = np.array([[0.25, 0, -0.375], [0, 0.25, -0.375]])
    blocks = fine.reshape(2, 32, 4, 32, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(align(fine, shrink, size_px=32), blocks, atol=1)
    same = np.array([[1.0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(align(fine, same, size_px=128), fine)
    moved = align(fine, np.array([[1.0, 0, 10], [0, 1, 0]]), size_px=128)
    np.testing.assert_array_equal(moved[:, :, 10:], fine[:, :, :118])
    np.testing.assert_array_equal(moved[:, :, :10], np.repeat(fine[:, :, :1], 10, axis=2))


def test_a_precropped_frame_is_kept_whole():
    find = make_finder("precropped")
    image = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    face = find(image, KEY)
    assert face.source == "precropped"
    matrix = alignment(face, size_px=64)
    corners = np.array([[-0.5, -0.5], [89.5, 119.5]])
    np.testing.assert_allclose(to_crop(corners, matrix), [[-0.5, -0.5], [63.5, 63.5]], atol=1e-9)
    square = image[:90]
    same = alignment(find(square, KEY), size_px=90)
    np.testing.assert_allclose(same, [[1, 0, 0], [0, 1, 0]], atol=1e-9)
    np.testing.assert_array_equal(align(square[None], same, size_px=90)[0], square)
    with pytest.raises(DataError, match="outer eye corners are"):
        find(image[:14, :14], KEY)


# --- the ways of finding ------------------------------------------------------------------------


def test_cascade_finds_rendered_faces(rendered):
    find = make_finder("cascade")
    for image, points in rendered:
        face = find(image, KEY)
        assert face.source == "cascade" and face.landmarks.shape == (68, 2)
        assert face.certainty == 3  # both eyes were seen, and several cascades agree
        across = points[45] - points[36]
        off = (face.landmarks[[36, 45]] - points[[36, 45]]).mean(axis=0)
        assert np.hypot(*off) < 0.05 * np.hypot(*across)
        assert abs(np.hypot(*(face.landmarks[45] - face.landmarks[36])) / np.hypot(*across) - 1) < (
            0.1
        )


@pytest.mark.parametrize("degrees", [-9, 8])
def test_cascade_sees_the_turn_of_a_head(degrees, rendered):
    image, points = rendered[0]
    turn = cv2.getRotationMatrix2D((80, 80), degrees, 0.8)
    turned = cv2.warpAffine(image, turn, (160, 160), borderMode=cv2.BORDER_REPLICATE)
    truth = points @ turn[:, :2].T + turn[:, 2]
    landmarks = make_finder("cascade")(turned, KEY).landmarks
    slopes = [np.arctan2(*(each[45] - each[36])[::-1]) for each in (landmarks, truth)]
    assert abs(np.rad2deg(slopes[0] - slopes[1])) < 3
    np.testing.assert_allclose(landmarks[[36, 45]], truth[[36, 45]], atol=8)


def test_cascade_finds_the_face_of_a_photograph():
    """The portrait that Matplotlib ships; its outer eye corners were marked by hand."""
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        image = np.asarray(Image.open(file).convert("RGB"))
    face = make_finder("cascade")(image, KEY)
    np.testing.assert_allclose(face.landmarks[[36, 45]], PORTRAIT_EYES, atol=12)


def test_a_detector_says_its_name_and_its_files():
    details = make_finder("cascade").details
    assert details["detector"] == cascade_faces.DETECTOR
    assert "haarcascade_frontalface_alt2.xml" in details["model"] and len(details["sha256"]) == 64


def test_an_opencv_without_cascades_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(cv2.data, "haarcascades", f"{tmp_path}/")
    with pytest.raises(DataError, match=r"came without its face cascades.*--landmarks=FILE"):
        make_finder("cascade")


def test_cascade_with_no_face_or_two(rendered):
    find = make_finder("cascade")
    with pytest.raises(DataError, match=r"EP02_01f, frame 46: no face was found.*--landmarks"):
        find(np.full((100, 120, 3), 90, np.uint8), KEY)
    images = [image for image, _ in rendered]
    with pytest.raises(DataError, match="2 faces were found and none is clearly the largest"):
        find(np.concatenate([images[0], images[0]], axis=1), KEY)
    half = cv2.resize(images[0], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    beside = np.full((SIZE, SIZE // 2, 3), 90, np.uint8)
    beside[:80] = half
    larger = find(np.concatenate([images[0], beside], axis=1), KEY)
    assert larger.landmarks[30, 0] < SIZE * 0.75


def candidate(x: float, size: float, *, votes: int, has_eyes: bool) -> cascade_faces.Candidate:
    return cascade_faces.Candidate(votes, 1.0, np.array([x, 50.0]), size, has_eyes=has_eyes)


def test_faces_are_told_from_what_looks_like_one():
    face, blob = (candidate(x, 40, votes=2, has_eyes=x < 99) for x in (50, 150))
    other = candidate(52, 60, votes=3, has_eyes=False)
    faint = candidate(250, 40, votes=1, has_eyes=True)
    assert cascade_faces.likely([other, blob, face, faint]) == [face]
    assert cascade_faces.likely([other, blob]) == [other, blob]
    assert cascade_faces.likely([faint]) == [faint]
    # Two places on one face are one face.
    assert cascade_faces.likely([face, candidate(60, 45, votes=2, has_eyes=True)]) == [face]
    assert cascade_faces.likely([]) == []


def test_the_largest_face_is_taken_only_if_it_is_clear():
    assert face_geometry.only_face([100.0, 201.0, 3.0], KEY) == 1
    with pytest.raises(DataError, match="2 faces"):
        face_geometry.only_face([100.0, 199.0], KEY)


def mesh_points(points: np.ndarray) -> list[SimpleNamespace]:
    return [SimpleNamespace(x=x, y=y, z=0.0) for x, y in points]


def test_mediapipe_points_become_pixels():
    mesh = np.random.default_rng(0).uniform(0.2, 0.8, (478, 2))
    small = 0.9 + (mesh - 0.5) * 0.1
    found = choose([mesh_points(small), mesh_points(mesh)], (100, 200, 3), KEY)
    np.testing.assert_allclose(found, mesh * [200, 100] - 0.5)
    with pytest.raises(DataError, match="no face was found"):
        choose([], (100, 200, 3), KEY)
    with pytest.raises(DataError, match="2 faces"):
        choose([mesh_points(mesh), mesh_points(mesh[::-1])], (100, 200, 3), KEY)


def test_mediapipe_without_its_model_says_where_to_get_it(no_model):
    with pytest.raises(DataError, match=r"face_landmarker\.task from Google.*--landmarker-model"):
        make_finder("mediapipe")
    with pytest.raises(DataError, match=r"--landmarker-model names .*none\.task, which is not"):
        make_finder("auto", landmarker_model=no_model / "none.task")
    broken = no_model / "broken.task"
    broken.write_bytes(b"not a model")
    with pytest.raises(DataError, match="is not a model of MediaPipe's Face Landmarker"):
        make_finder("mediapipe", landmarker_model=broken)


def test_where_the_model_is_looked_for(no_model, monkeypatch):
    assert find_model() is None
    cached = no_model / ".cache" / "mexjax" / "face_landmarker.task"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find_model() == cached
    named = no_model / "named.task"
    named.touch()
    monkeypatch.setenv("MEXJAX_LANDMARKER", str(named))
    assert find_model() == named
    assert find_model(cached) == cached
    monkeypatch.setenv("MEXJAX_LANDMARKER", str(no_model / "gone"))
    with pytest.raises(DataError, match="MEXJAX_LANDMARKER names"):
        find_model()


def test_auto_takes_the_best_there_is(no_model, rendered):
    assert make_finder("auto").kind == "cascade"
    table = write_points(no_model, rendered[0][1])
    finder = make_finder("auto", landmarks=table)
    assert finder.kind == "landmarks"
    assert finder.details["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert {make_finder(k, landmarks=table).kind for k in ("cascade", "precropped")} <= set(SOURCES)
    with pytest.raises(ConfigError, match="Did you mean 'cascade'"):
        make_finder("cascades")
    with pytest.raises(DataError, match="needs the table"):
        make_finder("landmarks")


# --- landmarks that the user brings -------------------------------------------------------------


def write_points(folder: Path, points: np.ndarray, clip="01/EP02_01f", frame=46) -> Path:
    path = folder / "points.csv"
    pd.DataFrame([[clip, frame, *points.ravel()]], columns=COLUMNS).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("clip", ["01/EP02_01f", "casme2/01/EP02_01f"])
def test_landmark_file_with_and_without_the_dataset(clip, tmp_path, rendered):
    image, points = rendered[0]
    find = make_finder("landmarks", landmarks=write_points(tmp_path, points, clip))
    face = find(image, KEY)
    assert face.source == "landmarks"
    np.testing.assert_allclose(face.landmarks, points)
    with pytest.raises(DataError, match=r"no row for frame 47 of clip casme2/01/.*only for 46"):
        find(image, (KEY[0], 47))
    with pytest.raises(DataError, match=r"no row for clip samm/006/1; it begins with .*01/EP02"):
        find(image, ("samm/006/1", 46))


def test_a_row_without_frame_serves_the_whole_clip(tmp_path, rendered):
    image, points = rendered[0]
    path = tmp_path / "points.csv"
    rows = [["01/EP02_01f", "", *points.ravel()], ["01/EP02_01f", "50", *(points + 1).ravel()]]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False)
    find = make_finder("landmarks", landmarks=path)
    np.testing.assert_allclose(find(image, KEY).landmarks, points)
    np.testing.assert_allclose(find(image, (KEY[0], 50)).landmarks, points + 1)


def test_rows_without_a_dataset_serve_one_dataset(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("clip,frame,x,y,w,h\n01/a,,100,50,200,160\nsmic/01/a,,90,50,200,160\n")
    find, image = make_finder("landmarks", landmarks=path), np.zeros((300, 400, 3), np.uint8)
    names = ["casme/01/a", "casme2/01/a"] * 8

    def serves(clip: str) -> bool:
        try:
            find(image, (clip, 1))
        except DataError as error:
            assert "Write clip as dataset/subject/clip" in str(error)
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        served = list(pool.map(serves, names))
    assert len({name for name, is_served in zip(names, served, strict=True) if is_served}) == 1
    assert sum(served) == 8
    find(image, ("smic/01/a", 1))  # has its own row


def test_a_box_is_what_is_cut_out(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("clip,frame,x,y,w,h\n01/EP02_01f,46,100,50,200,160\n")
    face = make_finder("landmarks", landmarks=path)(np.zeros((300, 400, 3), np.uint8), KEY)
    matrix = alignment(face, size_px=100)
    corners = np.array([[100.0, 30.0], [300.0, 230.0]]) - 0.5
    np.testing.assert_allclose(to_crop(corners, matrix), [[-0.5, -0.5], [99.5, 99.5]], atol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip,frame,x,y,w\n1/a,1,2,3,4\n", "lacks the columns h"),
        ("clip,frame,x0,y0\n1/a,1,2,3\n", r"lacks the columns x1, y1, x2, y2, x3, y3, \.\.\."),
        ("clip,frame,x,y,w,h\n1/a,1,2,3,4,none\n", r"line 2: h is 'none', expected a number"),
        ("clip,frame,x,y,w,h\n1/a,1,2,3,4,inf\n", r"line 2: h is 'inf'"),
        ("clip,frame,x,y,w,h\n1/a,1.5,2,3,4,5\n", r"line 2: frame is .*1\.5.*whole number"),
        ("clip,frame,x,y,w,h\n1/a,1,2,3,4,5\n1/a,1,2,3,4,5\n", "line 3: a second row for 1/a"),
        ("clip,frame,x,y,w,h\n,1,2,3,4,5\n", "line 2: no clip"),
        ("", "is not a table"),
        ("clip,frame\n1,2\n1,2,3,4\n", "is not a table"),
    ],
)
def test_bad_landmark_files_are_described(text, message, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        make_finder("landmarks", landmarks=path)


def test_a_landmark_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="Cannot read"):
        make_finder("landmarks", landmarks=tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda points: points + 60, r"outside the image of 160x160 px"),
        (lambda points: points * [-1, 1] + [159, 0], r"point 36 .* lies right of point 45"),
        (lambda points: points * 0.05 + 60, r"outer eye corners are \d\.\d px apart"),
    ],
)
def test_landmarks_that_cannot_be_a_face(change, message, tmp_path, rendered):
    image, points = rendered[0]
    find = make_finder("landmarks", landmarks=write_points(tmp_path, change(points)))
    with pytest.raises(DataError, match=message):
        find(image, KEY)

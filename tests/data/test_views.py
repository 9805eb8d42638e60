"""Views of prepared clips: what they show, their shapes, and their cache on disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from mexjax.data import keyframes, records, synthetic, view_cache, view_frames
from mexjax.data.clip_frames import ClipFrames
from mexjax.data.landmark_tokens import AU_LANDMARKS, landmark_tokens, point_tokens
from mexjax.data.view_frames import Magnifier
from mexjax.data.views import VIEWS, compute_view, flow_image, key_frames, uniform
from mexjax.errors import ConfigError, DataError
from mexjax.ops.flow import dense_flow
from mexjax.prepare.face_geometry import template_in_crop

SIZE = 64


@pytest.fixture(scope="module")
def clips() -> list[ClipFrames]:
    """Three rendered clips in RGB; the first lacks two frames and has two before its onset."""
    plan = synthetic.make_plan(synthetic.SyntheticConfig(num_subjects=3, num_clips=3, seed=4))
    made = []
    for index, clip in enumerate(plan.clips):
        numbers = np.arange(0, clip.timing.num_frames, 4)
        apex = int(numbers[np.abs(numbers - clip.timing.rise).argmin()])
        frames = synthetic.render_clip(plan, index, numbers, resolution_px=SIZE, is_color=True)
        points = synthetic.truth(plan, index, [0, apex], resolution_px=SIZE).landmarks
        keep = np.ones(len(numbers), bool)
        if index == 0:
            keep[[3, 5]] = False
        made.append(
            ClipFrames(
                id=f"synthetic/{clip.subject + 1:02d}/{clip.name}",
                frames=frames[keep],
                numbers=numbers[keep] + 100,
                onset=100 + (8 if index == 0 else 0),
                apex=100 + apex,
                offset=100 + int(numbers[-1]),
                fps=200.0,
                landmarks=points,
                landmark_frames=np.array([100, 100 + apex]),
            )
        )
    return made


def luma(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)


def counting(length: int = 20, **changes) -> ClipFrames:
    """A clip whose frame number i is a flat image of level 2 i."""
    frames = np.broadcast_to(np.arange(length)[:, None, None, None] * 2, (length, 48, 48, 1))
    fields = {
        "id": "set/01/a",
        "frames": frames.astype(np.uint8),
        "numbers": np.arange(length),
        "onset": 0,
        "apex": length // 2,
        "offset": length - 1,
        "fps": 100.0,
        "landmarks": np.zeros((1, 68, 2), np.float32),
        "landmark_frames": np.array([0]),
    }
    return ClipFrames(**(fields | changes))


# --- one clip -----------------------------------------------------------------------------------

SHAPES = {
    "uniform": (np.uint8, (8, 32, 32, 3)),
    "key_frames": (np.uint8, (3, 32, 32, 3)),
    "flow_image": (np.float32, (32, 32, 3)),
    "landmark_tokens": (np.int32, (8, 6)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_shape_and_dtype_depend_on_the_parameters_only(name: str, clips):
    params = {} if name == "landmark_tokens" else {"size_px": 32}
    gray = [ClipFrames(**(vars(clips[0]) | {"frames": clips[0].frames[..., :1]}))]
    for clip in [*clips, *gray]:
        made = VIEWS[name](clip, **params)
        assert (made.dtype, made.shape) == SHAPES[name]


def test_uniform_counts_the_stored_frames_from_onset_to_offset():
    clip = counting(numbers=np.r_[0:9, 11:22], onset=2, apex=12, offset=19)
    made = uniform(clip, num_frames=4, rule="floor_stride", size_px=48, is_color=False)
    # Stored from onset to offset: 2 ... 8, 11 ... 19, 16 frames; every fourth; levels count places.
    assert (made[:, 0, 0, 0] // 2).tolist() == [2, 6, 10, 14]
    short = uniform(counting(3), size_px=48, is_color=False)
    assert (short[:, 0, 0, 0] // 2).tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    with pytest.raises(DataError, match="has 3 frames and 8 are wanted"):
        uniform(counting(3), short="refuse")


def test_uniform_is_what_was_stored_resized(clips):
    made = uniform(clips[1], num_frames=2, size_px=SIZE)
    np.testing.assert_array_equal(made, clips[1].frames[[0, -1]])
    smaller = uniform(clips[1], num_frames=2, size_px=32)
    blocks = made.reshape(2, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(smaller, blocks, atol=0.51)
    gray = uniform(clips[1], num_frames=2, size_px=SIZE, is_color=False)
    np.testing.assert_array_equal(gray[1, ..., 0], luma(made[1]))
    larger = uniform(clips[1], num_frames=2, size_px=100)
    assert np.abs(larger.mean(axis=(1, 2)) - made.mean(axis=(1, 2))).max() < 0.5


def test_key_frames_take_the_nearest_stored_frame():
    clip = counting(numbers=np.arange(20) * 2 + 50, onset=53, apex=67, offset=86)
    made = VIEWS["key_frames"](clip, size_px=48, is_color=False)
    # 53 lies between 52 (outside) and 54; 67 between 66 and 68: the earlier; 86 is stored.
    assert (made[:, 0, 0, 0] // 2 * 2 + 50).tolist() == [54, 66, 86]


def test_an_annotation_outside_what_is_stored_is_an_error():
    with pytest.raises(
        DataError, match=r"set/01/a: no stored frame .* 30 to offset 40; .* 0 to 19"
    ):
        uniform(counting(onset=30, apex=35, offset=40))


@pytest.mark.parametrize("part", ["rise", "fall"])
@pytest.mark.parametrize("size_px", [SIZE, 32])
def test_flow_image_has_the_direction_and_the_size_of_the_motion(part: str, size_px: int, clips):
    clip, shift = clips[1], 0.25
    first = clip.frames[0]
    move = np.array([[1, 0, shift], [0, 1, 0]])
    shifted = cv2.warpAffine(first, move, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
    two = ClipFrames(
        **vars(clip)
        | {"frames": np.stack([first, shifted, first])}
        | {"numbers": np.array([clip.onset, clip.apex, clip.offset])}
    )
    options = {"is_scale_fixed": True, "size_px": size_px, "magnifier": Magnifier()}
    image = flow_image(two, part=part, method="farneback", **options)
    # In a smaller view the flow is smaller, and so is what fills the range.
    right = 0.5 + 0.5 * shift / (4 / 3 * SIZE / 224)
    np.testing.assert_allclose(np.median(image[..., :2], axis=(0, 1)), [right, 0.5], atol=0.08)
    with pytest.raises(ConfigError, match="Unknown part of a clip 'rising'"):
        flow_image(clip, part="rising")


def test_flow_image_with_a_fixed_scale_follows_factor_and_size(clips):
    clip = clips[1]
    onset, apex = (luma(clip.frames[i]) for i in view_frames.key_places(clip)[:2])
    field = dense_flow(onset, apex)
    made = flow_image(clip, is_scale_fixed=True, size_px=SIZE, magnifier=Magnifier())
    scale = 4 / 3 * SIZE / 224
    np.testing.assert_allclose(made[..., :2], 0.5 + 0.5 * np.clip(field / scale, -1, 1), atol=1e-5)
    scaled = Magnifier("flow_scale", factor=2.0)
    again = flow_image(clip, is_scale_fixed=True, size_px=SIZE, magnifier=scaled)
    np.testing.assert_allclose(again, made, atol=1e-5)  # flow and scale are both doubled
    own = flow_image(clip, size_px=SIZE, magnifier=Magnifier())
    assert np.abs(own - made).max() > 0.05


@pytest.mark.parametrize("method", ["linear", "phase"])
def test_magnification_moves_the_apex_and_nothing_else(method: str, clips):
    clip = clips[1]
    plain = VIEWS["key_frames"](clip, size_px=SIZE).astype(int)
    moved = VIEWS["key_frames"](clip, size_px=SIZE, magnify=method, factor=3.0).astype(int)
    np.testing.assert_array_equal(moved[[0, 2]], plain[[0, 2]])
    further = np.abs(moved[1] - plain[0]).mean() / np.abs(plain[1] - plain[0]).mean()
    assert 1.3 < further < 3.2
    same = VIEWS["key_frames"](clip, size_px=SIZE, magnify=method, factor=1.0)
    np.testing.assert_array_equal(same, plain)
    frames = uniform(clip, num_frames=3, size_px=SIZE, magnifier=Magnifier(method))
    np.testing.assert_array_equal(frames[0], plain[0])


def test_bad_magnification_is_described(clips):
    with pytest.raises(ConfigError, match=r"Unknown magnification 'phases'\. Did you mean 'phase'"):
        VIEWS["uniform"](clips[0], magnify="phases")
    with pytest.raises(ConfigError, match="must be positive, found 0"):
        VIEWS["uniform"](clips[0], magnify="linear", factor=0.0)


# --- landmark tokens ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "token"), [(0, 0, 0), (223.9, 0, 6), (0, 223.9, 42), (100, 40, 10), (-3, 230, 42)]
)
def test_tokens_of_points(x: float, y: float, token: int):
    """Row from y, column from x, cut down and clamped: worked out for 224 px and 7 x 7."""
    assert point_tokens(np.array([x, y]), (224, 224)) == token


def test_tokens_of_the_mean_face():
    points = template_in_crop(224, 224)[None].astype(np.float32)
    clip = counting(landmarks=points, frames=np.zeros((20, 224, 224, 1), np.uint8))
    tokens = dict(zip((1, 2, 4, 7, 12, 14, 15, 17), landmark_tokens(clip), strict=True))
    brows = [8, 9, 9, 11, 11, 12]
    expected = {
        1: brows, 2: brows, 4: brows, 7: [9, 16, 11, 18], 12: [30, 32], 14: [39, 37, 30, 32],
        15: [30, 32], 17: [44, 45, 46, 38],
    }  # fmt: skip
    assert {au: [t for t in row if t >= 0] for au, row in tokens.items()} == expected
    assert all((row[len(AU_LANDMARKS[au]) :] == -1).all() for au, row in tokens.items())


def test_tokens_are_of_the_landmarks_nearest_to_the_apex():
    points = np.zeros((2, 68, 2), np.float32)
    points[1] = 47
    clip = counting(landmarks=points, landmark_frames=np.array([0, 9]))
    assert (landmark_tokens(clip, aus=(12,), grid=4)[0, :2] == 15).all()
    before = counting(landmarks=points, landmark_frames=np.array([0, 9]), apex=4)
    assert (landmark_tokens(before, aus=(12,), grid=4)[0, :2] == 0).all()
    with pytest.raises(ConfigError, match="Unknown action unit '6'"):
        landmark_tokens(clip, aus=(6,))
    with pytest.raises(DataError, match="has no landmarks"):
        landmark_tokens(counting(landmarks=np.zeros((0, 68, 2), np.float32)))


# --- parameters ---------------------------------------------------------------------------------


def test_parameters_are_completed_and_checked():
    complete = VIEWS["landmark_tokens"].complete({"aus": [1, 2]})
    assert complete["aus"] == (1, 2)
    assert VIEWS["flow_image"].complete({"factor": 2})["factor"] == 2.0
    assert VIEWS["flow_image"].complete({"method": "tvl1"})["magnify"] == "phase"
    with pytest.raises(ConfigError, match="parameter of the view uniform 'size'"):
        VIEWS["uniform"].complete({"size": 64})
    for wrong in ({"size_px": "64"}, {"size_px": True}, {"is_color": 1}, {"num_frames": 8.0}):
        with pytest.raises(ConfigError, match="must be like"):
            VIEWS["uniform"].complete(wrong)
    with pytest.raises(ConfigError, match="size_px must be 1 to 2048, found 0"):
        uniform(counting(), size_px=0)


# Names and defaults decide the folder of a view: another spelling would compute all views anew.
MAGNIFIER = {"magnify": "none", "factor": 3.0, "weights": "", "gain": "port"}
PARAMETERS = {
    "uniform": {
        **{"num_frames": 8, "rule": "linspace", "offset": 0.5, "short": "replicate"},
        **{"size_px": 112, "is_color": True},
        **MAGNIFIER,
    },
    "key_frames": {
        **{"choice": "annotated", "window": "inward", "lambda_rise": 0.1, "lambda_fall": 0.1},
        **{"difference": "signed", "size_px": 224, "is_color": True},
        **MAGNIFIER,
    },
    "flow_image": {
        **{"part": "rise", "method": "dis", "style": "magnitude", "is_scale_fixed": False},
        **{"size_px": 224},
        **MAGNIFIER,
        "magnify": "phase",
    },
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_views_are_known_by_plain_parameters(name: str):
    assert VIEWS[name].complete({}) == PARAMETERS[name]


def test_plain_parameters_are_a_magnifier_and_a_rule(clips):
    rule = keyframes.Rule("eq2", 0.3, 0.2, "uint8_wrap")
    moved = Magnifier("linear", 2.0)
    plain = VIEWS["key_frames"](
        clips[1],
        **{"choice": "reselected", "size_px": SIZE, "magnify": "linear", "factor": 2.0},
        **vars(rule),
    )
    objects = key_frames(clips[1], choice="reselected", size_px=SIZE, rule=rule, magnifier=moved)
    np.testing.assert_array_equal(plain, objects)
    with pytest.raises(ConfigError, match="Unknown window of key frames 'eq3'"):
        VIEWS["key_frames"].bind({"window": "eq3"})


# --- the cache ----------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path, clips) -> tuple[Path, pd.DataFrame]:
    """The three clips as one shard with its manifest."""
    data = [records.encode(clip) for clip in clips]
    (tmp_path / "frames").mkdir()
    shard = tmp_path / "frames" / "synthetic-00000.arrayrecord"
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for one in data:
        writer.write(one)
    writer.close()
    about = {"clips": [{"id": clip.id} for clip in clips]}
    shard.with_suffix(".json").write_text(json.dumps(about))
    rows = [
        {
            "subject": clip.id.rpartition("/")[0],
            "clip": clip.id.rpartition("/")[2],
            "onset": clip.onset,
            "apex": clip.apex,
            "offset": clip.offset,
            "fps": clip.fps,
            "shard": "frames/synthetic-00000.arrayrecord",
            "sha256": hashlib.sha256(one).hexdigest(),
        }
        for clip, one in zip(clips, data, strict=True)
    ]
    return tmp_path, pd.DataFrame(rows)


def test_a_view_is_computed_once_and_mapped(prepared, clips, monkeypatch):
    root, manifest = prepared
    seen = []
    params = {"size_px": 32, "num_frames": 4}
    made = compute_view(root, manifest, "uniform", params, progress=lambda *n: seen.append(n))
    assert made.shape == (3, 4, 32, 32, 3) and made.dtype == np.uint8
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for clip, view in zip(clips, made, strict=True):
        np.testing.assert_array_equal(view, uniform(clip, **params))
    assert isinstance(made, np.memmap) and not made.flags.writeable

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(records, "load_clip", refuse)
    np.testing.assert_array_equal(compute_view(root, manifest, "uniform", params), made)
    # A default written out is the same view.
    same = compute_view(root, manifest, "uniform", params | {"rule": "linspace"})
    np.testing.assert_array_equal(same, made)
    (folder,) = (root / "views").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["data.npy", "params.json"]
    about = json.loads((folder / "params.json").read_text())
    assert about["params"]["rule"] == "linspace" and about["num_clips"] == 3


def test_threads_change_nothing(prepared):
    root, manifest = prepared
    one = compute_view(root, manifest, "flow_image", {"size_px": 48}, num_workers=1)
    one = np.array(one)
    (file,) = root.glob("views/flow_image-*/data.npy")
    file.unlink()
    three = compute_view(root, manifest, "flow_image", {"size_px": 48}, num_workers=3)
    np.testing.assert_array_equal(one, three)


def test_other_parameters_rows_or_bytes_are_another_view(prepared):
    root, manifest = prepared
    params = {"size_px": 16, "num_frames": 2}
    compute_view(root, manifest, "uniform", params)
    compute_view(root, manifest, "uniform", params | {"size_px": 17})
    compute_view(root, manifest[:2], "uniform", params)
    backwards = compute_view(root, manifest[::-1], "uniform", params)
    later = manifest.assign(onset=manifest["onset"] + 8)
    changed = compute_view(root, later, "uniform", params)
    assert len(list((root / "views").iterdir())) == 5
    first = compute_view(root, manifest, "uniform", params)
    np.testing.assert_array_equal(backwards[::-1], first)
    assert (changed[1, 0] != first[1, 0]).any()


def test_a_damaged_file_is_made_again(prepared):
    root, manifest = prepared
    params = {"size_px": 16, "num_frames": 2}
    made = np.array(compute_view(root, manifest, "uniform", params))
    (file,) = root.glob("views/*/data.npy")
    whole = file.read_bytes()
    for damaged in (whole[:300], b"", b"\x80\x04]" + whole[3:]):
        file.unlink()
        file.write_bytes(damaged)
        np.testing.assert_array_equal(compute_view(root, manifest, "uniform", params), made)


def test_every_damage_of_a_view_is_noticed(prepared, caplog):
    """Also one flipped bit of a pixel, and files of an older version, which have no digest."""
    root, manifest = prepared
    params = {"size_px": 16, "num_frames": 2}
    made = np.array(compute_view(root, manifest, "uniform", params))
    (file,) = root.glob("views/*/data.npy")
    about = file.with_name("params.json")
    whole, text = file.read_bytes(), about.read_text()
    assert json.loads(text)["digests"] == {"data.npy": hashlib.sha256(whole).hexdigest()}
    places = (9, 40, 200, len(whole) - 1)
    flips = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places]
    older = {k: v for k, v in json.loads(text).items() if k not in ("digests", "sha256")}
    texts = [json.dumps(older), text.replace('"num_frames": 2', '"num_frames": 3'), "", "[]", None]
    for array, description in [*((flip, text) for flip in flips), *((whole, one) for one in texts)]:
        file.unlink()  # the array before is mapped
        about.unlink()
        file.write_bytes(array)
        if description is not None:
            about.write_text(description)
        caplog.clear()
        np.testing.assert_array_equal(compute_view(root, manifest, "uniform", params), made)
        assert caplog.text.count("The view is made again") == 1
        assert file.read_bytes() == whole and about.read_text() == text


def test_a_view_of_other_data_is_not_taken(prepared):
    """It may lie under the name of this one, whole."""
    root, manifest = prepared
    params = {"size_px": 16, "num_frames": 2}
    made = np.array(compute_view(root, manifest, "uniform", params))
    (folder,) = (root / "views").iterdir()
    later = manifest.assign(onset=manifest["onset"] + 8)
    compute_view(root, later, "uniform", params)
    (other,) = set((root / "views").iterdir()) - {folder}
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    np.testing.assert_array_equal(compute_view(root, manifest, "uniform", params), made)


def test_views_of_a_folder_that_is_read_only_are_elsewhere(prepared, tmp_path, monkeypatch, caplog):
    root, manifest = prepared
    params = {"size_px": 16, "num_frames": 2}
    made = np.array(compute_view(root, manifest, "uniform", params))
    shutil.rmtree(root / "views")
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    mkdir = type(root).mkdir

    def refuses(path, *arguments, **options):
        if path.is_relative_to(root) and not path.is_relative_to(home):
            raise OSError(errno.EROFS, "Read-only file system")
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(type(root), "mkdir", refuses)
    seen = []
    for _ in range(2):
        view = compute_view(
            root, manifest, "uniform", params, progress=lambda done, _: seen.append(done)
        )
        np.testing.assert_array_equal(view, made)
        assert caplog.text.count(f"its views are in {home / 'mexjax' / 'views'}") == 1
    assert seen == [1, 2, 3] and not (root / "views").exists()
    # Other clips have a folder of their own, and the same clips elsewhere have this one.
    compute_view(root, manifest[:2], "uniform", params)
    assert len(list((home / "mexjax" / "views").iterdir())) == 2
    # A disk that is full is no reason to go elsewhere.
    monkeypatch.setattr(view_cache, "_NOT_WRITABLE", ())
    with pytest.raises(DataError, match=r"Cannot write the view uniform.*set data\.cache"):
        compute_view(root, manifest, "uniform", params)


def test_a_folder_for_views_can_be_set(prepared, tmp_path):
    root, manifest = prepared
    cache = tmp_path / "cache"
    made = compute_view(root, manifest, "uniform", {"size_px": 16}, cache=cache)
    (file,) = cache.glob("*/uniform-*/data.npy")
    np.testing.assert_array_equal(np.load(file), made)
    assert not (root / "views").exists()
    cache.joinpath("file").touch()
    with pytest.raises(DataError, match=r"Cannot write the view uniform.*set data\.cache"):
        compute_view(root, manifest, "uniform", {"size_px": 16}, cache=cache / "file")


def test_a_full_disk_leaves_no_part_of_a_view(prepared):
    root, manifest = prepared
    params = {"size_px": 64, "num_frames": 8}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"Cannot write the view.*Free space"):
            compute_view(root, manifest, "uniform", params)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in root.glob("views/*/*") if path.is_file()]
    assert compute_view(root, manifest, "uniform", params).shape == (3, 8, 64, 64, 3)


def test_a_failing_clip_is_named_and_leaves_no_file(prepared):
    root, manifest = prepared
    wrong = manifest.assign(onset=[100, 5000, 100], offset=[9000, 5001, 9000])
    second = f"{manifest['subject'][1]}/{manifest['clip'][1]}"
    with pytest.raises(DataError, match=f"Clip {second}: no stored"):
        compute_view(root, wrong, "uniform", {"size_px": 16})
    assert not list(root.glob("views/*/*.npy")) and not list(root.glob("views/*/.*"))
    with pytest.raises(DataError, match=r"View flow_image of clip synthetic/.*at least 32 px"):
        view_cache.cached(
            root, manifest, "flow_image", {}, lambda row: view_too_small(), num_workers=1
        )
    with pytest.raises(ConfigError, match="Did you mean 'uniform'"):
        compute_view(root, manifest, "uniforms", {})
    with pytest.raises(DataError, match="no rows"):
        compute_view(root, manifest[:0], "uniform")
    with pytest.raises(DataError, match="has no sha256 in the manifest"):
        compute_view(root, manifest.assign(sha256=""), "uniform")


def view_too_small() -> np.ndarray:
    clip = counting(frames=np.zeros((20, 16, 16, 1), np.uint8))
    return flow_image(clip, magnifier=Magnifier())


def test_clips_of_other_sizes_are_told_apart(prepared):
    root, manifest = prepared
    sizes = iter([3, 4, 4])
    with pytest.raises(DataError, match=r"is float64\[4\], that of .* float64\[3\]"):
        view_cache.cached(
            root, manifest, "odd", {}, lambda row: np.zeros(next(sizes)), num_workers=1
        )


def test_a_folder_that_cannot_be_written(prepared):
    root, manifest = prepared
    (root / "views").write_text("a file is in the way")
    with pytest.raises(DataError, match="Cannot write the view uniform"):
        compute_view(root, manifest, "uniform", {"size_px": 16})


def test_channels():
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    gray = view_frames.with_channels(color, False)
    np.testing.assert_allclose(gray[..., 0], color @ [0.299, 0.587, 0.114], atol=0.51)
    three = view_frames.with_channels(gray, True)
    np.testing.assert_array_equal(three, np.repeat(gray, 3, axis=-1))
    assert view_frames.with_channels(color, True) is color


def test_what_a_killed_process_left_is_removed(prepared):
    root, manifest = prepared
    params = {"size_px": 16, "num_frames": 2}
    compute_view(root, manifest, "uniform", params)
    (file,) = root.glob("views/*/data.npy")
    file.unlink()
    old, fresh = (file.with_name(f".data.npy.{pid}.tmp") for pid in (1, 2))
    for path in (old, fresh):
        path.touch()
    os.utime(old, (0, 0))
    compute_view(root, manifest, "uniform", params)
    # The fresh one may be of a process that is at work.
    assert not old.exists() and fresh.exists() and file.exists()

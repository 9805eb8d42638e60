"""What is said to be true of the embedded clips is what their pixels show."""

import cv2
import numpy as np
import pytest

from mexjax.data import synthetic
from mexjax.data.synthetic import AUS, SyntheticConfig, sheet
from mexjax.data.synthetic.__main__ import main
from mexjax.data.synthetic.canvas import WINDOW_CENTER, WINDOW_SIDE
from mexjax.data.synthetic.jpeg import compress, quantisation_tables
from mexjax.data.synthetic.plan import with_only

# Direction (x to the midline, y down) of a landmark, or of a place, at the image's left, and the
# box (x from the midline; y from, to; all in u) inside which the action unit changes the image.
DIRECTIONS = {
    1: (21, (0.004, -0.055), (0.9, -0.95, 0.05)),
    2: (18, (0.0, -0.055), (0.9, -0.95, 0.05)),
    4: (21, (0.031, 0.048), (0.9, -0.95, 0.1)),
    5: (38, (0.0, -0.036), (0.6, -0.25, 0.15)),
    6: ((-0.44, 0.36), (0.006, -0.042), (0.9, -0.15, 0.75)),
    7: (40, (0.0, -0.026), (0.65, -0.25, 0.25)),
    9: (31, (0.0, -0.031), (0.5, -0.45, 0.80)),
    10: (50, (0.0, -0.046), (0.55, 0.40, 0.95)),
    12: (48, (-0.046, -0.034), (0.75, 0.35, 1.05)),
    14: (48, (-0.039, 0.003), (0.7, 0.55, 1.05)),
    15: (48, (-0.008, 0.044), (0.65, 0.60, 1.15)),
    17: (57, (0.0, -0.032), (0.5, 0.6, 1.5)),
}
MIRROR = {21: 22, 18: 25, 38: 43, 40: 47, 31: 35, 50: 52, 48: 54, 57: 57}
UPRIGHT = SyntheticConfig(
    num_subjects=3, num_clips=6, habit=0.0, pose_u=0.0, pose_deg=0.0, pose_scale=0.0
)


def _grid(size):
    line = (np.arange(size) + 0.5) * WINDOW_SIDE / size - WINDOW_SIDE / 2
    return np.meshgrid(line + WINDOW_CENTER[0], line + WINDOW_CENTER[1])


@pytest.mark.parametrize("au", AUS)
def test_each_unit_alone_moves_its_place_as_the_table_says(au):
    size = 128
    place, direction, (half, top, bottom) = DIRECTIONS[au]
    x, y = _grid(size)
    region = (np.abs(x) < half) & (y > top) & (y < bottom)
    for index in (0, 5):
        plan = with_only(synthetic.make_plan(UPRIGHT), index, {au: 1.0})
        apex = plan.clips[0].timing.rise
        options = {"resolution_px": size, "without_distractors": True}
        moves = []
        if isinstance(place, int):
            points = synthetic.truth(plan, 0, [0, apex], **options).landmarks
            moves = [(points[1] - points[0])[k] for k in (place, MIRROR[place])]
        else:
            field = synthetic.flow(plan, 0, apex, **options)
            for side in (1, -1):
                distance = (x - side * place[0]) ** 2 + (y - place[1]) ** 2
                moves.append(field[np.unravel_index(distance.argmin(), distance.shape)])
        for side, move in zip((1, -1), moves, strict=True):
            wanted = np.array(direction) * (side, 1)
            cosine = move @ wanted / np.linalg.norm(move) / np.linalg.norm(wanted)
            assert cosine > np.cos(np.deg2rad(20)), (au, index, side, move)
            assert np.linalg.norm(move) > 0.5  # pixels at 128
        frames = synthetic.render_clip(plan, 0, [0, apex, apex * 4], **options)[..., 0].astype(int)
        energy = (frames[1] - frames[0]) ** 2
        assert energy[region].sum() > 0.8 * energy.sum()
        assert np.abs(frames[2] - frames[0]).max() <= 1


def test_the_largest_change_is_at_the_true_apex():
    config = SyntheticConfig(num_subjects=4, num_clips=24)
    plan = synthetic.make_plan(config)
    for index, clip in enumerate(plan.clips):
        # One unit at a time: the units of a set lag behind one another by design.
        one = with_only(plan, index, {clip.aus[0]: 1.6})
        frames = synthetic.render_clip(
            one, 0, range(clip.timing.num_frames), without_distractors=True
        )
        change = ((frames.astype(float) - frames[:1]) ** 2).sum(axis=(1, 2, 3))
        assert change[0] == 0
        assert abs(int(change.argmax()) - clip.timing.rise) <= 1
        assert np.abs(frames[-1].astype(int) - frames[0]).max() <= 1


def test_intensities_follow_the_clip():
    plan = synthetic.make_plan(SyntheticConfig(num_subjects=4, num_clips=40, rest_expression=0.0))
    for index, clip in enumerate(plan.clips):
        known = synthetic.truth(plan, index, [0, clip.timing.rise, clip.timing.num_frames - 1])
        assert known.intensity.shape == (3, 12)
        assert known.landmarks.shape == (3, 68, 2)
        assert (known.onset, known.apex) == (0, clip.timing.rise)
        shown = {au for au, w in zip(AUS, known.intensity[1], strict=True) if w > 0.05}
        assert shown == set(clip.aus) | ({clip.spurious} - {None})
        assert known.intensity[[0, 2]].max() < 0.25


def test_flow_takes_the_onset_to_the_apex():
    config = SyntheticConfig(num_subjects=3, num_clips=6, shading=0.0)
    plan = synthetic.make_plan(config)
    for index, clip in enumerate(plan.clips):
        size, apex = 112, clip.timing.rise
        options = {"resolution_px": size, "without_distractors": True}
        first, last = synthetic.render_clip(plan, index, [0, apex], **options)[..., 0]
        field = synthetic.flow(plan, index, apex, **options)
        rows, columns = np.mgrid[:size, :size].astype(np.float32)
        back = cv2.remap(
            last.astype(np.float32),
            columns + field[..., 0],
            rows + field[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        # Eyeballs do not move with the skin.
        points = synthetic.truth(plan, index, [0], **options).landmarks[0]
        skin = np.ones((size, size), bool)
        for eye in (points[36:42], points[42:48]):
            low, high = eye.min(axis=0) - 5, eye.max(axis=0) + 5
            skin[int(low[1]) : int(high[1]) + 1, int(low[0]) : int(high[0]) + 1] = False
        moving = skin & (np.hypot(*np.moveaxis(field, 2, 0)) > 0.5)
        before = np.abs(last.astype(float) - first)[moving].mean()
        after = np.abs(back - first)[moving].mean()
        assert after < 0.35 * before, (index, before, after)


def test_landmarks_move_with_the_flow_and_turn_with_the_head():
    plan = synthetic.make_plan(SyntheticConfig(num_subjects=3, num_clips=6, head_drift_u=0.02))
    skin = [*range(27, 36), *range(17, 27), *range(48, 68)]
    for index in range(6):
        apex = plan.clips[index].timing.rise
        points = synthetic.truth(plan, index, [0, apex], resolution_px=224).landmarks
        field = synthetic.flow(plan, index, apex, resolution_px=224)
        at = points[0, skin].astype(np.float32)[None]
        sampled = cv2.remap(field, at, None, cv2.INTER_LINEAR)[0]
        np.testing.assert_allclose(sampled, points[1, skin] - points[0, skin], atol=0.12)
        half = synthetic.truth(plan, index, [0], resolution_px=112).landmarks
        np.testing.assert_allclose((half + 0.5) * 2 - 0.5, points[:1], atol=0.01)


def test_quiet_clip_stays_still():
    config = SyntheticConfig(num_subjects=1, num_clips=2)
    plan = with_only(synthetic.make_plan(config), 0, {})
    frames = synthetic.render_clip(plan, 0, [0, 10, 20], without_distractors=True)
    assert (frames == frames[:1]).all()
    assert np.abs(synthetic.flow(plan, 0, 20, without_distractors=True)).max() < 1e-6
    assert (synthetic.render_clip(plan, 0, [0]) != synthetic.render_clip(plan, 0, [10])).any()


def test_blink_shuts_the_eyes():
    config = SyntheticConfig(num_subjects=2, num_clips=8, blink_probability=1.0)
    plan = synthetic.make_plan(config)
    openings = []
    for index, clip in enumerate(plan.clips):
        center = round(clip.motion.blink[0])
        points = synthetic.truth(plan, index, [center, center + 1000]).landmarks
        gap = points[:, [40, 41]].mean(axis=1) - points[:, [37, 38]].mean(axis=1)
        openings.append(gap[0, 1] / gap[1, 1])
        assert openings[-1] == pytest.approx(1 - clip.motion.blink[2], abs=0.25)
    assert min(openings) < 0.5


def test_compression_quantises_as_jpeg_does():
    assert quantisation_tables(50)[0, 0, :3].tolist() == [16, 11, 10]
    assert quantisation_tables(100).max() == 1
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.uniform(0, 255, (50, 44)).astype(np.float32), (0, 0), 3)
    image = np.round(smooth)[None, ..., None]
    for quality, limit in ((95, 1.0), (85, 2.0), (50, 4.0)):
        encoded = cv2.imencode(
            ".jpg", image[0, ..., 0].astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )[1]
        codec = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE).astype(float)
        ours = np.clip(np.round(compress(image, quality)), 0, 255)[0, ..., 0]
        assert np.abs(ours - codec).mean() < 0.3
        assert np.abs(ours - image[0, ..., 0]).mean() < limit
    color = np.repeat(image, 3, axis=3)
    np.testing.assert_allclose(compress(color, 85), np.repeat(compress(image, 85), 3, 3), atol=0.6)


@pytest.mark.parametrize("kind", ["faces", "clips", "aus"])
def test_contact_sheets(kind, tmp_path, capsys):
    path = tmp_path / "sheet.png"
    assert main([f"--out={path}", f"--kind={kind}"]) == 0
    image = cv2.imread(str(path))
    assert image.shape[2] == 3 and min(image.shape[:2]) >= 450
    assert image.std() > 20
    assert "Wrote" in capsys.readouterr().out


def test_sheet_to_a_missing_folder_says_so(tmp_path, capsys):
    assert main([f"--out={tmp_path / 'none' / 'sheet.png'}", "--kind=faces"]) == 1
    assert "Cannot write" in capsys.readouterr().err
    with pytest.raises(OSError, match="Cannot write"):
        sheet.save(np.zeros((4, 4, 3), np.uint8), str(tmp_path / "sheet.unknown"))

"""Contact sheets: pictures of the dataset to look at."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mexjax.data.captions import caption
from mexjax.data.synthetic.config import SyntheticConfig
from mexjax.data.synthetic.dataset import default_view
from mexjax.data.synthetic.emotions import AUS, AuSet
from mexjax.data.synthetic.frames import render_clip
from mexjax.data.synthetic.plan import Clip, Plan, make_plan, with_only

_DIFFERENCE_GAIN = 4


def faces(
    config: SyntheticConfig, *, columns: int = 6, rows: int = 3, size_px: int = 150
) -> np.ndarray:
    """u8[rows * size, columns * size, 3]: the onset of one clip of each subject, in colour."""
    config = _with_subjects(config, columns * rows)
    plan = make_plan(config)
    first = {clip.subject: clip.index for clip in reversed(plan.clips)}
    tiles = [
        render_clip(
            plan, first[s], [0], resolution_px=size_px, is_color=True, without_distractors=True
        )[0]
        for s in range(columns * rows)
    ]
    return _grid(tiles, columns)


def action_units(
    config: SyntheticConfig, *, intensity: float = 2.5, size_px: int = 150
) -> np.ndarray:
    """u8[H, W, 3]: each action unit alone, every one on a face of its own.

    A column has the neutral face, the unit at `intensity`, and four times the difference that
    intensity 1 makes.
    """
    plan = make_plan(_with_subjects(config, len(AUS)))
    first = {clip.subject: clip.index for clip in reversed(plan.clips)}
    columns = []
    for subject, au in enumerate(AUS):
        images = []
        for strength in (0.0, intensity, 1.0):
            one = with_only(plan, first[subject % 6], {au: strength})
            apex = one.clips[0].timing.rise
            frame = render_clip(
                one, 0, [apex], resolution_px=size_px, is_color=True, without_distractors=True
            )
            images.append(frame[0])
        neutral, strong, weak = images
        caption(strong, f"AU{au} x{intensity:g}")
        columns.append(np.concatenate([neutral, strong, _difference(weak, neutral)]))
    return _grid(columns, 6)


def clips(config: SyntheticConfig, *, per_class: int = 2, size_px: int = 112) -> np.ndarray:
    """u8[H, W, 3]: clips as a model sees them; below each, its difference to the first frame."""
    plan = make_plan(config)
    rows = []
    for clip in _examples(plan, per_class):
        frames = np.broadcast_to(
            default_view(plan, clip.index), (config.num_frames, *2 * (config.resolution_px,), 3)
        )
        frames = [_enlarge(frame, size_px) for frame in frames]
        strip = np.concatenate(frames, axis=1)
        caption(strip, f"{clip.emotion} AU{'+'.join(map(str, clip.aus)) or ' none'}")
        rows += [strip, np.concatenate([_difference(f, frames[0]) for f in frames], axis=1)]
    return np.concatenate(rows)


KINDS: dict[str, Callable[[SyntheticConfig], np.ndarray]] = {
    "faces": faces,
    "clips": clips,
    "aus": action_units,
}


def save(image: np.ndarray, path: str) -> None:
    """Write u8[H, W, 3] RGB as the type that the path's ending names.

    Raises:
      OSError: the file cannot be written.
    """
    try:
        is_written = cv2.imwrite(path, np.ascontiguousarray(image[..., ::-1]))
    except cv2.error as error:
        raise OSError(f"Cannot write {path}: give a path that ends in .png or .jpg.") from error
    if not is_written:
        raise OSError(f"Cannot write {path}: check that its folder exists and can be written.")


def _examples(plan: Plan, per_class: int) -> list[Clip]:
    """Clips of each class with different action units and, while there are any, new subjects."""
    examples: list[Clip] = []
    for label in sorted({clip.label for clip in plan.clips}):
        kinds: set[AuSet] = set()
        for _ in range(per_class):
            subjects = [clip.subject for clip in examples]
            left = [c for c in plan.clips if c.label == label and c.aus not in kinds]
            if left:
                examples.append(min(left, key=lambda c: (subjects.count(c.subject), c.index)))
                kinds.add(examples[-1].aus)
    return examples


def _with_subjects(config: SyntheticConfig, count: int) -> SyntheticConfig:
    """The same look with at least `count` subjects, one clip each at least."""
    fields = {
        field: getattr(config, field)
        for field in ("seed", "habit", "pose_u", "pose_deg", "pose_scale", "shading")
    }
    return SyntheticConfig(num_subjects=count, num_clips=count, rest_expression=0.0, **fields)


def _difference(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    change = image.astype(int).mean(axis=2) - reference.astype(int).mean(axis=2)
    gray = np.clip(128 + _DIFFERENCE_GAIN * change, 0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def _enlarge(frame: np.ndarray, size_px: int) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(frame), (size_px,) * 2, interpolation=cv2.INTER_NEAREST)


def _grid(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)

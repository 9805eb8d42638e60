"""The table and the arrays of a whole dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from mexjax.data import keyframes
from mexjax.data.apex_spotting import spot_apex
from mexjax.data.sampling import sample_indices
from mexjax.data.synthetic.config import SyntheticConfig
from mexjax.data.synthetic.frames import render_clip
from mexjax.data.synthetic.plan import Plan, make_plan
from mexjax.data.synthetic.timing import sample_frames
from mexjax.errors import ConfigError, unknown_name

Progress = Callable[[int, int], None]
VIEWS = ("uniform", "key_frames")
CHOICES = ("annotated", "reselected", "fft_apex", "true")


def make_table(plan: Plan) -> pd.DataFrame:
    """One row a clip, in the plan's order.

    Columns: dataset, subject (`<dataset>/01`), clip (`01_003`), onset, apex, offset (annotated
    frames; 0 is the true onset, so an annotated onset may be negative), fps, n_frames (annotated,
    both ends counted), emotion, au (as coded: `4+7`, `12+14(k)`), aus (list of str, held units
    left out), landmark_source, notes, true_onset, true_apex, true_offset.
    """
    rows = []
    for clip in plan.clips:
        when = clip.timing
        coded = [str(au) for au in clip.aus]
        raw = coded + ([f"{clip.held}(k)"] if clip.held is not None else [])
        if not plan.config.has_au_labels:
            coded, raw = [], []
        rows.append(
            {
                "dataset": plan.config.name,
                "subject": f"{plan.config.name}/{clip.subject + 1:02d}",
                "clip": clip.name,
                "onset": when.onset,
                "apex": when.apex,
                "offset": when.offset,
                "fps": plan.config.fps,
                "n_frames": when.offset - when.onset + 1,
                "emotion": clip.emotion,
                "au": "+".join(raw),
                "aus": coded,
                "landmark_source": "synthetic",
                "notes": "" if clip.has_apex else "no annotated apex: midpoint",
                "true_onset": 0,
                "true_apex": when.rise,
                "true_offset": when.num_frames - 1,
            }
        )
    return pd.DataFrame(rows)


def default_view(plan: Plan, index: int, sampling: str = "") -> np.ndarray:
    """u8[num_frames, H, W, C]: clip `index`, evenly from its annotated onset to its offset.

    `sampling` is a rule of `mexjax.data.sampling`; by default the nearest to even spacing.
    """
    when, count = plan.clips[index].timing, plan.config.num_frames
    if sampling:
        length = when.offset - when.onset + 1
        return render_clip(plan, index, when.onset + sample_indices(length, count, rule=sampling))
    return render_clip(plan, index, sample_frames(when.onset, when.offset, count))


def key_frames_view(
    plan: Plan, index: int, choice: str = "annotated", rule: keyframes.Rule | None = None
) -> np.ndarray:
    """u8[3, H, W, C]: onset, apex and offset of clip `index`, see `chosen_frames`."""
    return render_clip(plan, index, chosen_frames(plan, index, choice, rule))


def chosen_frames(
    plan: Plan, index: int, choice: str, rule: keyframes.Rule | None = None
) -> tuple[int, int, int]:
    """Onset, apex and offset of clip `index`; 0 is the true onset.

    Args:
      plan: from `make_plan`.
      index: number of the clip.
      choice: annotated | reselected (near the annotation, see `keyframes`; only frames within
        reach are drawn) | fft_apex (see `apex_spotting`) | true.
      rule: rule of `reselected`; the default rule when None.

    Raises:
      ConfigError: an unknown choice.
    """
    when = plan.clips[index].timing
    if choice == "true":
        return 0, when.rise, when.num_frames - 1
    if choice == "annotated":
        return when.onset, when.apex, when.offset
    if choice == "fft_apex":
        numbers = range(when.onset, when.offset + 1)
        luma = render_clip(plan, index, numbers, is_color=False)[..., 0]
        return when.onset, when.onset + spot_apex(luma), when.offset
    if choice != "reselected":
        raise ConfigError(unknown_name("choice of key frames", choice, CHOICES))
    rule = rule or keyframes.Rule()
    first = when.onset
    images: dict[int, np.ndarray] = {}

    def frames(places: Sequence[int]) -> np.ndarray:
        missing = sorted(set(places) - set(images))
        news = render_clip(plan, index, [first + place for place in missing])
        images.update(zip(missing, news, strict=True))
        return np.stack([images[place] for place in places])

    def differences(a: Sequence[int], b: Sequence[int]) -> np.ndarray:
        frames([*a, *b])
        return keyframes.squared_differences(frames(a), frames(b), rule.difference)

    apex, offset = when.apex - first, when.offset - first
    # The clip goes on after the offset as far as a rule can look.
    length = offset + keyframes.reach(rule.lambda_fall, apex, offset) + 1
    keys = keyframes.choose(differences, 0, apex, offset, length, rule)
    return keys[0] + first, keys[1] + first, keys[2] + first


def generate(
    config: SyntheticConfig,
    *,
    view: str = "uniform",
    choice: str = "annotated",
    rule: keyframes.Rule | None = None,
    sampling: str = "",
    num_workers: int = 1,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Make a dataset: 180 clips of 8 frames at 64x64 in about two seconds on one core.

    Args:
      config: settings.
      view: frames of each clip: uniform | key_frames.
      choice: choice of key_frames, see `chosen_frames`.
      rule: rule of the choice reselected, see `chosen_frames`.
      sampling: rule of uniform, see `default_view`.
      num_workers: threads. The bytes do not depend on it.
      progress: called with (clips done, clips in all).

    Returns:
      (table of N rows as from `make_table`, clips u8[N, T, H, W, C], T as the view says).

    Raises:
      ValueError: `num_workers` is less than 1.
      ConfigError: an unknown view or choice.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, found {num_workers}.")
    if view not in VIEWS:
        raise ConfigError(unknown_name("view", view, VIEWS))
    plan = make_plan(config)
    total = len(plan.clips)
    size, channels = config.resolution_px, 3 if config.is_color else 1
    num_frames = 3 if view == "key_frames" else config.num_frames
    clips = np.empty((total, num_frames, size, size, channels), np.uint8)

    def draw(i: int) -> None:
        if view == "key_frames":
            clips[i] = key_frames_view(plan, i, choice, rule)
        else:
            clips[i] = default_view(plan, i, sampling)

    # Threads do it: the work is in numpy and OpenCV, which release the interpreter's lock, and a
    # process that holds JAX must not fork.
    with ThreadPoolExecutor(num_workers) as pool:
        for done, _ in enumerate(pool.map(draw, range(total)), start=1):
            if progress is not None:
                progress(done, total)
    return make_table(plan), clips

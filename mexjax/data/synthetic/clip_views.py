"""Views of the embedded clips, made as `mexjax.data.views` makes those of prepared ones."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mexjax.data.clip_frames import ClipFrames
from mexjax.data.synthetic.config import SyntheticConfig
from mexjax.data.synthetic.dataset import Progress
from mexjax.data.synthetic.frames import render_clip
from mexjax.data.synthetic.plan import Plan, make_plan
from mexjax.data.synthetic.truth import truth
from mexjax.data.views import VIEWS


def clip_frames(plan: Plan, index: int, *, size_px: int, is_still: bool = False) -> ClipFrames:
    """Clip `index` with its key frames alone, and with its true landmarks.

    Args:
      plan: from `make_plan`.
      index: number of the clip.
      size_px: side of the frames.
      is_still: True if the annotated onset is to be the whole clip.
    """
    clip = plan.clips[index]
    when = clip.timing
    numbers = [when.onset] if is_still else [when.onset, when.apex, when.offset]
    landmark_frames = numbers[:2]
    return ClipFrames(
        id=f"{plan.config.name}/{clip.subject + 1:02d}/{clip.name}",
        frames=render_clip(plan, index, numbers, resolution_px=size_px),
        numbers=np.array(numbers),
        onset=numbers[0],
        apex=landmark_frames[-1],
        offset=numbers[-1],
        fps=plan.config.fps,
        landmarks=truth(plan, index, landmark_frames, resolution_px=size_px).landmarks,
        landmark_frames=np.array(landmark_frames),
    )


def compute_views(
    config: SyntheticConfig,
    wanted: Mapping[str, Mapping[str, Any]],
    *,
    size_px: int,
    is_still: bool = False,
    num_workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Views of every clip, in the order of the table.

    Args:
      config: settings of the dataset.
      wanted: parameters of each view by its name; the views need key frames alone.
      size_px: resolution at which frames are rendered, motion is magnified and flow computed.
      is_still: see `clip_frames`.
      num_workers: threads. The result does not depend on it.
      progress: called with (clips done, clips in all).

    Returns:
      {name: [N, ...]}.

    Raises:
      ConfigError: an unknown view or parameter.
    """
    plan = make_plan(config)
    total = len(plan.clips)
    functions = {name: VIEWS[name].bind(params) for name, params in wanted.items()}

    def make(index: int) -> dict[str, np.ndarray]:
        clip = clip_frames(plan, index, size_px=size_px, is_still=is_still)
        return {name: np.asarray(view(clip)) for name, view in functions.items()}

    arrays: list[dict[str, np.ndarray]] = []
    # Threads do it: the work is in numpy, OpenCV and XLA, which release the interpreter's lock.
    with ThreadPoolExecutor(num_workers) as pool:
        for done, views in enumerate(pool.map(make, range(total)), start=1):
            arrays.append(views)
            if progress is not None:
                progress(done, total)
    return {name: np.stack([views[name] for views in arrays]) for name in wanted}

"""The one entrance: it takes the name of a layout and writes a folder as that release has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mexjax.errors import ConfigError, WorkdirError, unknown_name
from mexjax.prepare.layouts import casme, casme3, others, samm
from mexjax.prepare.layouts.base import Layout, Release
from mexjax.prepare.layouts.cast import make_cast, make_takes

MIN_CLIPS = 6  # fewer cannot hold every oddity of a layout


class _Kind(NamedTuple):
    write: Callable[[Release], Layout]
    has_apexes: bool = True
    can_lack_apex: bool = False


LAYOUTS: dict[str, _Kind] = {
    "casme": _Kind(casme.write_casme),
    "casme2": _Kind(casme.write_casme2, can_lack_apex=True),
    "samm": _Kind(samm.write_samm, can_lack_apex=True),
    "casme_sq": _Kind(casme.write_casme_sq),
    "casme3a": _Kind(casme3.write_casme3a),
    "casme3c": _Kind(casme3.write_casme3c, has_apexes=False),
    "mmew": _Kind(others.write_mmew),
    "fourd": _Kind(others.write_fourd),
    "smic": _Kind(others.write_smic, has_apexes=False),
}
"""Canonical names of the sets in whose layout `write_layout` can write."""


def write_layout(
    layout: str,
    out: Path,
    *,
    num_clips: int = 8,
    num_subjects: int = 3,
    resolution_px: int = 96,
    seed: int = 0,
    has_landmarks: bool = True,
) -> Layout:
    """Write synthetic clips as a release of a public set (8 clips: one to three seconds).

    The first clip lacks the file of one frame, the second its apex in CASME II and SAMM, the last
    is six frames long; each layout's function tells its other oddities.

    Args:
      layout: a key of `LAYOUTS`.
      out: folder to make; it may exist when it is empty.
      num_clips: micro-expressions, at least `MIN_CLIPS`.
      num_subjects: at most `num_clips`, and not more than the release has.
      resolution_px: side of the square frames; the face fills them.
      seed: it decides faces and timings; the oddities stay where they are.
      has_landmarks: whether to write `landmarks.csv` too, the true landmarks of every annotated
        frame.

    Raises:
      ConfigError: an unknown layout, or numbers that it cannot hold.
      WorkdirError: `out` is not empty or cannot be written.
    """
    if layout not in LAYOUTS:
        raise ConfigError(unknown_name("layout", layout, LAYOUTS))
    if num_clips < MIN_CLIPS:
        raise ConfigError(f"num_clips must be at least {MIN_CLIPS}, found {num_clips}.")
    plan = make_cast(
        layout,
        num_clips=num_clips,
        num_subjects=num_subjects,
        resolution_px=resolution_px,
        seed=seed,
    )
    kind = LAYOUTS[layout]
    takes = make_takes(plan, has_apexes=kind.has_apexes, can_lack_apex=kind.can_lack_apex)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise WorkdirError(f"{out} is not empty; choose a new folder for the {layout} layout.")
        return kind.write(Release(layout, out, plan, takes, has_landmarks=has_landmarks))
    except WorkdirError:
        raise
    except OSError as error:
        raise WorkdirError(
            f"Cannot write the {layout} layout to {out}: {error.strerror or error}. Free space or"
            " choose another folder."
        ) from error

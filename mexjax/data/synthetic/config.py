"""Every setting of the embedded dataset, with its unit and default."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mexjax.data.synthetic import emotions
from mexjax.errors import ConfigError, quoted, unknown_name

APEX_RULES = ("annotated", "midpoint")


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """All settings of an embedded dataset. Lengths are in u, the distance of the outer eye corners.

    At 64 pixels one u is 25.6 pixels, at 112 it is 44.8.

    Attributes:
      num_subjects: identities.
      num_clips: clips in all; ignored when `class_counts` is given.
      emotion_table: a key of `emotions.TABLES`: which action-unit sets each class shows.
      class_counts: clips of each class in the order of the table; () uses the table's priors.
      num_frames: frames of the default view, evenly from annotated onset to offset.
      resolution_px: side of the square image.
      is_color: three channels (RGB) instead of one (ITU-R BT.601 luma).
      fps: frames per second.
      rise_s: median duration from onset to apex, seconds.
      rise_cv: standard deviation of the logarithm of the rise.
      long_probability: share of clips whose rise is four times as long (a heavy tail).
      amplitude: factor on every action-unit intensity.
      spikiness: exponent of the intensity curve: 2 is a broad apex, 10 a spike.
      shading: factor on wrinkles and bulges; 0 leaves displacement only.
      habit: factor on each subject's own gain, asymmetry and direction of each action unit.
      noise_levels: standard deviation of sensor noise, gray levels of 255.
      pose_u, pose_deg, pose_scale: standard deviations of the rest pose: translation (u),
        rotation (degrees), log scale.
      head_drift_u, rotation_drift_deg, scale_drift: size of slow head motion in a clip (u,
        degrees, fraction); zero at the onset.
      jitter_u: alignment error of each frame, u.
      blink_probability: share of clips with a blink.
      flicker: amplitude of the light's fluctuation, fraction.
      rest_expression: three random action units are held at |N(0, this)| / 2 over the clip.
      spurious_probability: share of clips with one more action unit that no label names.
      unilateral_probability: share of clips whose one-sided action units (2, 6, 10, 12, 14, 15)
        stay at 0.15 on the other side.
      jpeg_quality: 1 to 100; 0 switches compression off.
      annotation_error: standard deviation of the annotated key frames, fraction of the rise.
      offset_error_factor: the offset's error is this times `annotation_error`.
      apex_rule: `annotated`, or `midpoint` when the set imitated has no apex.
      num_missing_apexes: clips without an annotated apex: it becomes the midpoint.
      au_counts: clips that show each of the 12 action units; () leaves the tables' frequencies.
      num_without_au: clips, of any class, that show none of the 12 action units.
      num_held_aus: clips that hold one more action unit all the time, coded `(k)`.
      has_au_labels: True if the table tells the action units.
      name: name of the dataset in the table and in subject ids.
      seed: seed of all draws; another seed is another draw of everything.
    """

    num_subjects: int = 10
    num_clips: int = 180
    emotion_table: str = "default"
    class_counts: tuple[int, ...] = ()
    num_frames: int = 8
    resolution_px: int = 64
    is_color: bool = False
    fps: float = 200.0
    rise_s: float = 0.13
    rise_cv: float = 0.25
    long_probability: float = 0.0
    amplitude: float = 1.6
    spikiness: float = 2.0
    shading: float = 1.0
    habit: float = 1.0
    noise_levels: float = 1.5
    pose_u: float = 0.06
    pose_deg: float = 3.6
    pose_scale: float = 0.048
    head_drift_u: float = 0.002
    rotation_drift_deg: float = 0.1
    scale_drift: float = 0.001
    jitter_u: float = 0.0008
    blink_probability: float = 0.1
    flicker: float = 0.012
    rest_expression: float = 0.15
    spurious_probability: float = 0.02
    unilateral_probability: float = 0.1
    jpeg_quality: int = 85
    annotation_error: float = 0.0
    offset_error_factor: float = 1.0
    apex_rule: str = "annotated"
    num_missing_apexes: int = 0
    au_counts: tuple[int, ...] = ()
    num_without_au: int = 0
    num_held_aus: int = 0
    has_au_labels: bool = True
    name: str = "synthetic"
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("class_counts", "au_counts"):
            object.__setattr__(self, key, tuple(int(n) for n in getattr(self, key) or ()))
        if self.class_counts:
            object.__setattr__(self, "num_clips", sum(self.class_counts))
        check(self)


_RANGES = {
    "num_subjects": (1, 999),
    "num_clips": (1, 100_000),
    "num_frames": (1, 10_000),
    "resolution_px": (16, 1024),
    "fps": (1, 10_000),
    "rise_s": (1e-3, 60),
    "rise_cv": (0, 2),
    "long_probability": (0, 1),
    "amplitude": (0, 5),
    "spikiness": (0.5, 50),
    "shading": (0, 5),
    "habit": (0, 2),
    "noise_levels": (0, 100),
    "pose_u": (0, 0.2),
    "pose_deg": (0, 20),
    "pose_scale": (0, 0.2),
    "head_drift_u": (0, 0.2),
    "rotation_drift_deg": (0, 10),
    "scale_drift": (0, 0.1),
    "jitter_u": (0, 0.1),
    "blink_probability": (0, 1),
    "flicker": (0, 0.5),
    "rest_expression": (0, 1),
    "spurious_probability": (0, 1),
    "unilateral_probability": (0, 1),
    "jpeg_quality": (0, 100),
    "annotation_error": (0, 1),
    "offset_error_factor": (0, 5),
    "num_missing_apexes": (0, 100_000),
    "num_without_au": (0, 100_000),
    "num_held_aus": (0, 100_000),
    "seed": (0, 2**63),
}


def check(config: SyntheticConfig) -> None:
    """Raise one ConfigError that lists everything wrong with the values.

    Raises:
      ConfigError: values out of range, unknown names, or counts that contradict each other.
    """
    wrong = []
    for key, (low, high) in _RANGES.items():
        value = getattr(config, key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            wrong.append(f"{key} must be a number from {low} to {high}, found {quoted(value)}.")
        elif _INTEGERS[key] and not isinstance(value, int):
            wrong.append(f"{key} must be a whole number, found {quoted(value)}.")
    if config.apex_rule not in APEX_RULES:
        wrong.append(unknown_name("apex_rule", config.apex_rule, APEX_RULES))
    if not _is_name(config.name):
        wrong.append(f"name must be a word without slashes, found {quoted(config.name)}.")
    if config.emotion_table not in emotions.TABLES:
        wrong.append(unknown_name("emotion_table", config.emotion_table, emotions.TABLES))
    elif config.class_counts:
        names = emotions.TABLES[config.emotion_table].names
        if len(config.class_counts) != len(names) or min(config.class_counts) < 0:
            wrong.append(
                f"class_counts must give one count for each of {', '.join(names)}, found"
                f" {config.class_counts}."
            )
    if config.au_counts and (
        len(config.au_counts) != 12 or not 0 <= min(config.au_counts) <= max(config.au_counts)
    ):
        wrong.append(f"au_counts must be 12 counts or (), found {config.au_counts}.")
    if not wrong and config.num_clips < config.num_subjects:
        wrong.append(
            f"num_clips ({config.num_clips}) must not be less than num_subjects"
            f" ({config.num_subjects}): every subject has a clip."
        )
    if wrong:
        raise ConfigError("The synthetic dataset cannot be made: " + " ".join(wrong))


def _is_name(name: object) -> bool:
    """True for a text that serves as a part of the ids of subjects."""
    if not isinstance(name, str) or not 0 < len(name) <= 60:
        return False
    return name.isprintable() and name.strip() == name and not set(name) & set("/\\")


_INTEGERS = {key: isinstance(getattr(SyntheticConfig, key), int) for key in _RANGES}

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # Annotators miss a short, sharp apex, so that choosing key frames anew can win something.
    "keyframes": {
        "spikiness": 10.0,
        "amplitude": 1.2,
        "noise_levels": 2.5,
        "annotation_error": 0.15,
    },
}


def preset(name: str, **changes: Any) -> SyntheticConfig:
    """The configuration called `name` (a key of `PRESETS`) with some fields changed.

    Raises:
      ConfigError: an unknown preset, field or a bad value.
    """
    if name not in PRESETS:
        raise ConfigError(unknown_name("synthetic preset", name, PRESETS))
    return make_config({**PRESETS[name], **changes})


def make_config(fields: Mapping[str, Any]) -> SyntheticConfig:
    """A SyntheticConfig from a mapping; an unknown key raises ConfigError naming the nearest."""
    names = [field.name for field in dataclasses.fields(SyntheticConfig)]
    for key in fields:
        if key not in names:
            raise ConfigError(unknown_name("synthetic setting", key, names))
    return SyntheticConfig(**fields)

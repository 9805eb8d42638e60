"""Settings that imitate the public sets: size, classes, units, speed, colour and annotation.

Action-unit counts are those of the CD6ME benchmark (Varanka et al., IEEE TAFFC 15, 2024); class
counts follow the sets' papers, those of CASME and 4DME only roughly. No image, landmark or
recording of any of them is used.
"""

from __future__ import annotations

from typing import Any

from mexjax.data.synthetic.config import SyntheticConfig, make_config
from mexjax.errors import ConfigError, unknown_name

# Classes are in the order of the emotion table; action units 1 2 4 5 6 7 9 10 12 14 15 17.
_FLAVOURS: dict[str, dict[str, Any]] = {
    "casme": {
        "num_subjects": 19,
        "emotion_table": "casme",
        "class_counts": (9, 20, 44, 38, 69, 1, 2, 6),
        "au_counts": (23, 17, 70, 0, 1, 4, 40, 3, 9, 23, 14, 13),
        "fps": 60.0,
        "is_color": True,
        "annotation_error": 0.05,
    },
    "casme2": {
        "num_subjects": 26,
        "emotion_table": "casme2_7",
        "class_counts": (32, 25, 63, 27, 99, 2, 8),
        "au_counts": (26, 22, 130, 2, 13, 39, 13, 16, 34, 27, 16, 25),
        "fps": 200.0,
        "rise_s": 0.122,
        "is_color": True,
        "annotation_error": 0.05,
        "num_missing_apexes": 21,
    },
    "samm": {
        "num_subjects": 29,
        "emotion_table": "samm8",
        "class_counts": (26, 15, 57, 12, 26, 9, 8, 6),
        "au_counts": (6, 18, 23, 10, 3, 46, 5, 6, 28, 13, 4, 6),
        "num_without_au": 18,  # a guess: without it 168 units in 159 clips leave no room for blends
        "fps": 200.0,
        "annotation_error": 0.15,
    },
    "fourd": {
        "num_subjects": 41,
        "emotion_table": "fourd",
        "class_counts": (34, 127, 30, 6, 31, 13, 8, 8, 7, 3),
        "au_counts": (46, 54, 102, 8, 25, 89, 1, 2, 53, 4, 6, 11),
        "fps": 60.0,
        "annotation_error": 0.15,
        "num_held_aus": 40,
    },
    "mmew": {
        "num_subjects": 36,
        "emotion_table": "mmew",
        "class_counts": (36, 89, 72, 16, 8, 13, 66),
        "au_counts": (50, 41, 109, 70, 10, 47, 8, 38, 37, 17, 6, 11),
        "fps": 90.0,
        "is_color": True,
        "annotation_error": 0.08,
    },
    "casme3a": {
        "num_subjects": 94,
        "emotion_table": "casme3_7",
        "class_counts": (55, 187, 250, 86, 64, 57, 161),
        "au_counts": (153, 128, 274, 44, 8, 27, 50, 10, 15, 193, 6, 20),
        "num_without_au": 112,
        "fps": 30.0,
        "rise_s": 0.26,
        "rise_cv": 0.40,
        "long_probability": 0.03,
        "is_color": True,
        "annotation_error": 0.08,
    },
    "smic": {
        "num_subjects": 16,
        "emotion_table": "three",
        "class_counts": (70, 51, 43),
        "fps": 100.0,
        "is_color": True,
        "annotation_error": 0.05,
        "apex_rule": "midpoint",
        "has_au_labels": False,
    },
}
FLAVOURS = tuple(_FLAVOURS)
# Every flavour fixes these fields itself.
FIXED = ("num_subjects", "num_clips", "class_counts", "au_counts", "emotion_table", "name")


def flavour(name: str, *, scale: float = 1.0, seed: int = 0, **changes: Any) -> SyntheticConfig:
    """Settings like those of a public set.

    Args:
      name: one of `FLAVOURS`.
      scale: share of its subjects and clips, above 0 and at most 1: a small set for tests.
      seed: flavours of equal seed have different subjects.
      **changes: other fields of SyntheticConfig.

    Raises:
      ConfigError: an unknown flavour or field, or a bad value.
    """
    if name not in _FLAVOURS:
        raise ConfigError(unknown_name("flavour", name, FLAVOURS))
    if not 0 < scale <= 1:
        raise ConfigError(f"scale must be above 0 and at most 1, found {scale}.")
    fields = dict(_FLAVOURS[name])
    if scale < 1:
        _scale(fields, scale)
    fields["name"] = f"synthetic_{name}"
    fields["offset_error_factor"] = 1.5  # offsets are the least certain of the three
    # The seeds lie far apart: with equal ones two sets would share their subjects.
    fields["seed"] = 1_000_003 * (1 + FLAVOURS.index(name)) + seed
    return make_config({**fields, **changes})


def _scale(fields: dict[str, Any], scale: float) -> None:
    counts = [max(1, round(n * scale)) for n in fields["class_counts"]]
    fields["class_counts"] = tuple(counts)
    fields["num_subjects"] = max(2, round(fields["num_subjects"] * scale))
    for key in ("num_without_au", "num_missing_apexes", "num_held_aus"):
        if key in fields:
            fields[key] = round(fields[key] * scale)
    if "au_counts" in fields:
        fields["au_counts"] = tuple(round(n * scale) for n in fields["au_counts"])
        # Rounding must leave one unit for each clip that shows any.
        num_with_au = sum(counts) - fields.get("num_without_au", 0)
        short = max(0, num_with_au - sum(fields["au_counts"]))
        au4 = fields["au_counts"][2] + short
        fields["au_counts"] = (*fields["au_counts"][:2], au4, *fields["au_counts"][3:])

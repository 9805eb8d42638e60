"""Maps from the emotion words of each dataset to the 3, 4, 5 or 7 classes of the papers.

The order of the classes fixes the columns of the logits. The five-class orders of CASME II and
SAMM are those of the released FDP code; TSFmicro and GAMDSS use other orders of the same classes
(`variant="tsfmicro"`, needed to read their weights and to compare logits). `variant="megc"` is
the composite protocol of the MEGC challenges.

An emotion that a map leaves out on purpose is *dropped*: the clip is in no fold. An emotion that
a map has never heard of is an error, because dropping it silently would change the task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mexjax.errors import DataError, unknown_name
from mexjax.protocol.names import fold

DROPPED = -1  # label of a clip whose emotion is in no class

SYNONYMS = {
    "happy": "happiness",
    "sad": "sadness",
    "other": "others",
    "angry": "anger",
    "surprised": "surprise",
    "disgusted": "disgust",
    "tension": "tense",
}

# Papers and folders spell names of datasets like the keys; the tables here use the values.
DATASET_SYNONYMS = {
    "casmeii": "casme2",
    "casme_ii": "casme2",
    "4dme": "fourd",
    "casme3": "casme3a",
    "cas(me)3": "casme3a",
    "cas(me)^3": "casme3a",
    "cas(me)2": "casme_sq",
    "cas(me)^2": "casme_sq",
    "casmesq": "casme_sq",
    "smic-hs": "smic",
    "smic_hs": "smic",
}

# Names of a user's own clips in tables: `csv` and `folder` of `mexjax prepare`.
OWN_DATASETS = ("csv", "folder")

_NEGATIVE = ("negative", "disgust", "anger", "contempt", "fear", "sadness", "repression")
_THREE = {"negative": _NEGATIVE, "positive": ("positive", "happiness"), "surprise": ("surprise",)}
_FOUR = {**_THREE, "others": ("others",)}


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """A map from emotion words to class numbers.

    Attributes:
      names: the K class names; class k is `names[k]`.
      mapping: emotion, in lower case and in every known spelling -> class number.
      dropped: emotions left out on purpose.
    """

    names: tuple[str, ...]
    mapping: Mapping[str, int]
    dropped: tuple[str, ...]

    def label(self, emotion: str) -> int:
        """Return the class number of `emotion` (any case and known spelling), or `DROPPED`.

        A compound such as "positive+repression" (4DME) belongs to no single class: it is dropped.

        Raises:
          DataError: the emotion is missing, or unknown to this map.
        """
        if not isinstance(emotion, str) or not emotion.strip() or emotion.strip().lower() == "nan":
            raise DataError(
                f"Expected an emotion word, found {emotion!r}."
                " Fill the 'emotion' column of the table, or drop the row."
            )
        parts = {canonical_emotion(part) for part in emotion.split("+")}
        emotions = set(self.mapping) - set(SYNONYMS) | set(self.dropped)
        for part in sorted(parts):
            if part not in emotions:
                raise DataError(
                    unknown_name("emotion", part, emotions)
                    + f" This map has the classes {', '.join(self.names)}."
                )
        if len(parts) > 1:
            return DROPPED
        return self.mapping.get(parts.pop(), DROPPED)


def _make(classes: Mapping[str, tuple[str, ...]], dropped: tuple[str, ...] = ()) -> ClassMap:
    names = tuple(classes)
    mapping = {word: k for k, words in enumerate(classes.values()) for word in words}
    mapping |= {other: mapping[word] for other, word in SYNONYMS.items() if word in mapping}
    return ClassMap(names, mapping, dropped)


def _words(*names: str) -> dict[str, tuple[str, ...]]:
    """Make classes that are the emotion words themselves."""
    return {name: (name,) for name in names}


_CASME2_FIVE = _words("surprise", "happiness", "disgust", "repression", "others")
_SAMM_FIVE = _words("surprise", "happiness", "anger", "contempt", "others")
_SEVEN = _words("happiness", "surprise", "disgust", "fear", "anger", "sadness", "others")

# A key is the name of a dataset and the number of classes.
CLASS_MAPS: dict[tuple[str, int], ClassMap] = {
    ("synthetic", 3): _make(_THREE, ("others",)),
    ("synthetic", 4): _make(_FOUR),
    ("synthetic", 5): _make(_CASME2_FIVE, ("fear", "sadness")),
    ("synthetic", 7): _make(_SEVEN, ("repression", "contempt")),
    ("smic", 3): _make(_THREE),
    # CASME's "tense" has no valence: it is in no class of three, and in "others" of four.
    ("casme", 3): _make(_THREE, ("tense", "others")),
    ("casme", 4): _make({**_THREE, "others": ("others", "tense")}),
    ("casme2", 3): _make(_THREE, ("others",)),
    ("casme2", 4): _make(_FOUR),
    ("casme2", 5): _make(_CASME2_FIVE, ("fear", "sadness")),
    ("casme2", 7): _make(_CASME2_FIVE | _words("fear", "sadness")),
    ("samm", 3): _make(_THREE, ("others",)),
    ("samm", 4): _make(_FOUR),
    ("samm", 5): _make(_SAMM_FIVE, ("disgust", "fear", "sadness")),
    # SAMM was coded for these seven emotions (Davison et al., 2018); "other" is none of them.
    ("samm", 7): _make(
        _words("happiness", "surprise", "anger", "disgust", "sadness", "fear", "contempt"),
        ("others",),
    ),
    ("casme_sq", 3): _make(_THREE, ("others",)),
    ("casme_sq", 4): _make(_FOUR),
    ("casme3a", 3): _make(_THREE, ("others",)),
    ("casme3a", 4): _make(_FOUR),
    ("casme3a", 7): _make(_SEVEN),
    ("casme3c", 3): _make(_THREE, ("others",)),
    ("casme3c", 4): _make(_FOUR),
    ("mmew", 3): _make(_THREE, ("others",)),
    ("mmew", 4): _make(_FOUR),
    ("mmew", 7): _make(_SEVEN),
    # 4DME codes valence words and "repression", which stays a class of its own among five.
    ("fourd", 3): _make(_THREE, ("others",)),
    ("fourd", 4): _make(_FOUR),
    ("fourd", 5): _make(_words("positive", "negative", "surprise", "repression", "others")),
    **{
        (name, count): each
        for name in OWN_DATASETS
        for count, each in (
            (3, _make(_THREE, ("others", "tense"))),
            (4, _make({**_THREE, "others": ("others", "tense")})),
            (5, _make(_CASME2_FIVE, ("anger", "contempt", "fear", "sadness", "tense"))),
            (7, _make(_SEVEN, ("repression", "contempt", "tense"))),
        )
    },
}

# CASME II has 2 clips of fear and 7 of sadness; MEGC 2019 leaves them out although the same words
# count as negative in SAMM (public MEB repository, class Megc).
_CASME2_MEGC = _make(
    {
        "negative": ("disgust", "repression", "anger", "contempt"),
        "positive": ("happiness",),
        "surprise": ("surprise",),
    },
    ("others", "fear", "sadness"),
)

_TSFMICRO_THREE = {"positive": _THREE["positive"], "surprise": ("surprise",), "negative": _NEGATIVE}
_TSFMICRO_FOUR = {
    "positive": _THREE["positive"],
    "surprise": ("surprise",),
    "others": ("others",),
    "negative": _NEGATIVE,
}

VARIANTS: dict[str, dict[tuple[str, int], ClassMap]] = {
    "standard": CLASS_MAPS,
    "megc": {
        ("smic", 3): CLASS_MAPS["smic", 3],
        ("casme2", 3): _CASME2_MEGC,
        ("samm", 3): CLASS_MAPS["samm", 3],
    },
    "tsfmicro": {
        ("casme2", 5): _make(
            _words("happiness", "repression", "disgust", "surprise", "others"), ("fear", "sadness")
        ),
        ("casme2", 3): _make(_TSFMICRO_THREE, ("others",)),
        ("samm", 5): _make(
            _words("anger", "contempt", "happiness", "surprise", "others"),
            ("disgust", "fear", "sadness"),
        ),
        ("samm", 3): _make(_TSFMICRO_THREE, ("others",)),
        ("casme3a", 7): _make(
            _words("anger", "disgust", "fear", "happiness", "sadness", "surprise", "others")
        ),
        ("casme3a", 4): _make(_TSFMICRO_FOUR),
    },
}

# The list of MEGC 2019 lacks these clips of CASME II; a key is dataset, subject, clip.
_NOT_IN_MEGC = {
    ("casme2", "4", "ep12_01f"),
    ("casme2", "5", "ep12_03f"),
    ("casme2", "24", "ep02_07"),
}


def canonical_emotion(emotion: str) -> str:
    """Return the spelling of the maps: tidied, lower case, synonyms resolved."""
    word = fold(emotion)
    return SYNONYMS.get(word, word)


def canonical_dataset(dataset: str) -> str:
    """Return the dataset name of the maps: "CASME II" -> "casme2", "4DME" -> "fourd"."""
    name = dataset.strip().casefold().replace("²", "2").replace("³", "3")
    name = name.replace(" ii", "ii").replace(" ", "_")
    return DATASET_SYNONYMS.get(name, name)


def class_map(dataset: str, classes: int, *, variant: str = "standard") -> ClassMap:
    """Return the map of `dataset` to `classes` classes.

    Args:
      dataset: name as in the table; case and common spellings do not matter.
      classes: 3, 4, 5 or 7, where the dataset has such a map.
      variant: "standard", "megc" (composite protocol) or "tsfmicro" (class order of the released
        TSFmicro and GAMDSS code); a map the variant does not redefine is the standard one.

    Raises:
      DataError: unknown variant or dataset, or no such number of classes; the message lists what
        there is.
    """
    if variant not in VARIANTS:
        raise DataError(unknown_name("class map variant", variant, VARIANTS))
    name = canonical_dataset(dataset)
    maps = CLASS_MAPS | VARIANTS[variant]
    if (name, classes) in maps:
        return maps[name, classes]
    counts = sorted(k for other, k in maps if other == name)
    if not counts:
        raise DataError(unknown_name("dataset", dataset, {other for other, _ in maps}))
    raise DataError(
        f"There is no {classes}-class map of {name}; it has maps with"
        f" {', '.join(map(str, counts))} classes. Set protocol.classes to one of them."
    )


def label_clips(
    table: pd.DataFrame, classes: int, *, variant: str = "standard"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class number of every row of the table.

    Args:
      table: sample table with the columns dataset, subject, clip and emotion.
      classes: number of classes K.
      variant: see `class_map`.

    Returns:
      labels i32[N], `DROPPED` (-1) where the emotion has no class; and the K class names.

    Raises:
      DataError: unknown or missing emotion (with the clip), or datasets whose classes differ.
    """
    maps = {name: class_map(name, classes, variant=variant) for name in table["dataset"].unique()}
    if not maps:
        raise DataError("The table has no rows, so there is nothing to label.")
    first, *others = maps
    for other in others:
        if maps[other].names != maps[first].names:
            raise DataError(
                f"{first} and {other} have other classes when there are {classes}:"
                f" {', '.join(maps[first].names)} and {', '.join(maps[other].names)}."
                " Use protocol.classes=3, which means the same in every dataset."
            )
    labels = np.empty(len(table), np.int32)
    columns = zip(table["dataset"], table["subject"], table["clip"], table["emotion"], strict=True)
    for row, (dataset, subject, clip, emotion) in enumerate(columns):
        try:
            labels[row] = maps[dataset].label(emotion)
        except DataError as error:
            raise DataError(f"Clip {subject}/{clip} of {dataset}: {error}") from None
        number = str(subject).rsplit("/", 1)[-1].removeprefix("sub").lstrip("0")
        key = (canonical_dataset(dataset), number, str(clip).casefold())
        if variant == "megc" and key in _NOT_IN_MEGC:
            labels[row] = DROPPED
    return labels, maps[first].names

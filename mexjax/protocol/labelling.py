"""The label of each clip, by `protocol.classes` and `protocol.class_map`.

The classes are a published map (its number of classes, or its name such as `casme2_5`), the emotion
words of the table themselves (`own`), some of these words in an order (`happiness,surprise,others`)
or the classes of a file that merges words. The number of classes follows from them.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mexjax import errors
from mexjax.errors import ConfigError, DataError, unknown_name
from mexjax.protocol.class_file import read_class_map, short, spelled
from mexjax.protocol.classes import (
    CLASS_MAPS,
    DROPPED,
    OWN_DATASETS,
    VARIANTS,
    ClassMap,
    canonical_dataset,
    canonical_emotion,
    label_clips,
)
from mexjax.protocol.names import fold, tidy

OWN = "own"
NO_EMOTION = "without an emotion"
Classes = int | str | Sequence[str]
_MAX_NAMES = 12  # words of a message
_ADVICE = "Set protocol.classes=own, and every emotion word of the table is a class."
# Protocols that hold out subjects, so that a class of one subject is in no training fold of his.
_BY_SUBJECT = ("loso", "composite", "kfold_by_subject")


def label_emotions(
    table: pd.DataFrame, classes: Classes, *, class_map: str = "", variant: str = "standard"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class number of every clip, and the names of the classes.

    Args:
      table: columns dataset, subject, clip and emotion.
      classes: `protocol.classes`.
      class_map: `protocol.class_map`, the path of a file or "".
      variant: of the published map, where `classes` is a number.

    Returns:
      labels i32[N], `DROPPED` (-1) where a clip is in no class; and K names, in order.

    Raises:
      ConfigError: classes that cannot be understood, or a map that contradicts them.
      DataError: words that a map does not know, a class that no clip has, or one class alone.
    """
    check_classes(classes, class_map)
    if not len(table):
        raise DataError("The table has no rows, so there is nothing to label.")
    names = names_of(classes)
    if class_map:
        return _by_file(table, names or classes, Path(class_map))
    if isinstance(classes, int):
        return _by_number(table, classes, variant)
    words = _words(table)
    if names is None and classes != OWN:
        return _by_published(table, published_maps()[str(classes)], str(classes))
    return _label(table, words, {word: word for word in _singles(words)}, names)


def check_classes(classes: object, class_map: str = "") -> None:
    """Refuse a value of `protocol.classes` that no table can be labelled by.

    Raises:
      ConfigError: no number of 2 or more, not `own`, no published map, and not two names or more.
    """
    if isinstance(classes, int) and not isinstance(classes, bool):
        return
    names = names_of(classes)
    if names is not None:
        spellings = [canonical_emotion(name) for name in names]
        twice = [name for name, count in Counter(spellings).items() if count > 1]
        if twice:
            raise ConfigError(
                f"protocol.classes={short(','.join(names))} has the class {twice[0]} twice."
                " Give each class once."
            )
        if len(names) > 1:
            return
    elif classes == OWN or (isinstance(classes, str) and classes in published_maps()):
        if class_map and classes != OWN:
            raise ConfigError(
                f"protocol.classes={classes} is a published map, and protocol.class_map="
                f"{short(class_map)} is another one. Leave out one of the two."
            )
        return
    close = difflib.get_close_matches(str(classes), [OWN, *published_maps()], n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ConfigError(
        f"protocol.classes={short(str(classes))} gives no classes.{hint} Give a number, own (every"
        " emotion word is a class), two or more words with commas such as happiness,surprise, or a"
        " published map such as casme2_5."
    )


def names_of(classes: object) -> tuple[str, ...] | None:
    """The class names that `protocol.classes` lists, tidied; None if it is of another kind."""
    if isinstance(classes, str):
        if "," not in classes:
            return None
        classes = classes.strip("()[] ").split(",")
    if not isinstance(classes, list | tuple):
        return None
    return tuple(filter(None, (tidy(str(name).strip("'\" ")) for name in classes)))


def published_maps() -> dict[str, ClassMap]:
    """Maps by name: `casme2_5` is CASME II's to five classes; variants come first in the name."""
    maps = {f"{name}_{count}": each for (name, count), each in CLASS_MAPS.items()}
    for variant, others in VARIANTS.items():
        if others is not CLASS_MAPS:
            maps |= {f"{variant}_{name}_{k}": each for (name, k), each in others.items()}
    return {name: each for name, each in maps.items() if name.split("_")[0] not in OWN_DATASETS}


def remarks_on(
    table: pd.DataFrame,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    classes: Classes,
    protocol: str,
) -> tuple[str, ...]:
    """Sentences about classes that are hard to learn: without a clip, or of one subject.

    The maps of the published datasets are as they are, and get none.

    Args:
      table: columns dataset and subject, N rows.
      labels: i[N] class numbers, -1 for clips in no class.
      names: K names of the classes.
      classes: `protocol.classes`.
      protocol: `protocol.name`.
    """
    if isinstance(classes, int) and not set(table["dataset"]) & set(OWN_DATASETS):
        return ()
    subjects = table["subject"].to_numpy(str)
    empty = [name for k, name in enumerate(names) if not (labels == k).any()]
    remarks = []
    if empty:
        remarks.append(
            f"No clip is of the class {_listed(empty)}, which nothing can be learned of."
        )
    if protocol in _BY_SUBJECT:
        for k, name in enumerate(names):
            people = sorted(set(subjects[labels == k].tolist()))
            if len(people) == 1:
                count = int((labels == k).sum())
                what = "its one clip is" if count == 1 else f"all {count} clips are"
                remarks.append(
                    f"Class {name}: {what} of one subject, {people[0]}; the fold that holds this"
                    " subject out is trained without the class."
                )
    return tuple(remarks)


def listed(names: Sequence[str], counts: Sequence[int]) -> str:
    """Names in their order with numbers of clips: "disgust (4 clips), fear (2)"."""
    first = [f"{names[0]} ({counts[0]} clip{'' if counts[0] == 1 else 's'})"] if names else []
    rest = [f"{name} ({n})" for name, n in zip(names[1:], counts[1:], strict=True)]
    return ", ".join([*first, *rest])


def is_own(table: pd.DataFrame) -> bool:
    """True if every clip is of a user's own table or folders."""
    return len(table) > 0 and set(table["dataset"]) <= set(OWN_DATASETS)


def _by_number(
    table: pd.DataFrame, classes: int, variant: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels by the published maps of the datasets."""
    has_own = bool(set(table["dataset"]) & set(OWN_DATASETS))
    has_map = {name for name, _ in CLASS_MAPS}
    is_published = {canonical_dataset(name) for name in set(table["dataset"])} <= has_map
    try:
        labels, names = label_clips(table, classes, variant=variant)
    except DataError as error:
        if is_published and not has_own:
            raise
        raise DataError(f"{error} {_ADVICE}") from None
    empty = [name for k, name in enumerate(names) if not (labels == k).any()]
    if has_own and empty:
        raise DataError(
            f"protocol.classes={classes} means {', '.join(names)}, and no clip is of"
            f" {', '.join(empty)}; the emotions are {_listed(_words(table))}. {_ADVICE}"
        )
    return labels, names


def _by_published(
    table: pd.DataFrame, published: ClassMap, title: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels by a published map that was named, whatever the dataset."""
    words = _words(table)
    singles = _singles(words)
    for word in singles:
        if word not in published.mapping and word not in published.dropped:
            raise DataError(
                f"The map {title} does not know the emotion {short(word)}"
                f" ({words[word]} clips); it has {', '.join(published.mapping)}. {_ADVICE}"
            )
    class_of = {
        word: published.names[published.label(word)]
        for word in singles
        if published.label(word) != DROPPED
    }
    return _label(table, words, class_of, published.names, may_be_empty=True)


def _by_file(
    table: pd.DataFrame, classes: Classes, path: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels by a file that merges words."""
    lines, words = read_class_map(path), _words(table)
    for word, count in words.items():
        if word and word not in lines:
            raise DataError(
                f"{path} has no line for the emotion {short(word)} ({count} clips). Add"
                f" {word},CLASS to it, or {word}, with nothing behind the comma to leave them out."
            )
    order = tuple(dict.fromkeys(filter(None, lines.values())))
    names = names_of(classes) if not isinstance(classes, int) else None
    if isinstance(classes, int) and classes != len(order):
        raise ConfigError(
            f"protocol.classes={classes}, but {path} has {len(order)} classes: {_listed(order)}."
            " Leave out protocol.classes, or set it to own."
        )
    if names is not None:
        by_key = {fold(name): name for name in order}
        for name in names:
            if fold(name) not in by_key:
                raise DataError(unknown_name(f"class of {path}", name, order))
        order = tuple(by_key[fold(name)] for name in names)
    class_of = {word: name for word, name in lines.items() if name in order}
    return _label(table, words, class_of, order)


def _label(
    table: pd.DataFrame,
    words: Mapping[str, int],
    class_of: Mapping[str, str],
    names: Sequence[str] | None,
    *,
    may_be_empty: bool = False,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels from the class of each word; without names the order is that of the words."""
    present = [class_of[word] for word in words if word in class_of]
    if names is None:
        order = tuple(dict.fromkeys(present))
    elif may_be_empty:
        order = tuple(names)
    else:
        order = tuple(name if name in present else canonical_emotion(name) for name in names)
        for name in order:
            if name not in present:
                raise DataError(
                    unknown_name("class in protocol.classes", name, set(present))
                    + " No clip is of it."
                )
    if len(set(present) & set(order)) < 2:
        raise DataError(
            f"Telling classes apart needs clips of two classes; found {_listed(words)} among"
            f" {sum(words.values())} clips. Add clips of another emotion, or train action units"
            " with protocol.task=au."
        )
    number = {name: k for k, name in enumerate(order)}
    keys = map(spelled, table["emotion"])
    labels = [number.get(class_of.get(key, ""), DROPPED) for key in keys]
    return np.array(labels, np.int32), order


def _words(table: pd.DataFrame) -> dict[str, int]:
    """Number of clips by emotion, in the order of the table."""
    return dict(Counter(map(spelled, table["emotion"])))


def _singles(words: Iterable[str]) -> list[str]:
    """The words that are one emotion: not empty, and no compound such as "positive+repression"."""
    return [word for word in words if word and "+" not in word]


def _listed(words: Iterable[str]) -> str:
    names = [short(word) if word else NO_EMOTION for word in words]
    return errors.listed(names, _MAX_NAMES)

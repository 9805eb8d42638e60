"""The step after a preparation: the command that trains, or the reason why there is none."""

from __future__ import annotations

import shlex
from collections import Counter

import pandas as pd

from mexjax.errors import DataError
from mexjax.protocol.action_units import is_coded
from mexjax.protocol.labelling import OWN, is_own, label_emotions, listed, remarks_on

CARD = "configs/fdp.py"
UNITS_CARD = "configs/ac4au.py"  # it takes any units
CARD_CLASSES = 5  # the default of protocol.classes
_LEAST_SUBJECTS = 2  # one is held out, another one is trained on
_LEAST_CLIPS = 2  # of a unit that is offered for training


def choose_classes(table: pd.DataFrame) -> int | str | None:
    """Choose the classes to train with.

    They are a user's own words for clips of a user's own; else those of the recipe card if the
    datasets have a map to so many, else the first of 3, 4 and 7 that they have, else the words of
    the table. None if there is only one class.
    """
    for classes in (OWN,) if is_own(table) else (CARD_CLASSES, 3, 4, 7, OWN):
        try:
            labels, _ = label_emotions(table, classes)
        except DataError:
            continue
        if (labels >= 0).any():
            return classes
    return None


def class_lines(table: pd.DataFrame) -> list[str]:
    """The classes of clips of a user's own in their order, and what is odd about them."""
    if not is_own(table):
        return []
    try:
        labels, names = label_emotions(table, OWN)
    except DataError:
        return []
    count = int((labels < 0).sum())
    counts = [int((labels == k).sum()) for k in range(len(names))]
    rest = f"; left out, because they have no single emotion: {count}" if count else ""
    first = (
        f"Classes, in this order: {listed(names, counts)}{rest}. To choose or"
        " order them add --config.protocol.classes=WORD,WORD, and to merge words"
        " --config.protocol.class_map=FILE."
    )
    if len(set(table["subject"])) < _LEAST_SUBJECTS:
        return [first]  # the next line says what is odd
    return [first, *remarks_on(table, labels, names, classes=OWN, protocol="loso")]


def training_command(out: str, table: pd.DataFrame) -> tuple[str, str]:
    """Write the command that trains on the prepared dataset.

    Returns:
      the command, or ""; and then one or two sentences that say why there is none.
    """
    subjects = sorted(set(table["subject"]))
    if len(subjects) < _LEAST_SUBJECTS:
        return "", (
            f"All clips are of one subject, {subjects[0]}, and every protocol holds out whole"
            " subjects, so nothing can be trained yet. Name the subjects: by folders, as"
            " --layout=subject/emotion/clip, or in a table with the columns clip and subject; then"
            " prepare again."
        )
    words = ["python", "-m", "mexjax.main"]
    data = ["--config.data.name=prepared", f"--config.data.root={out}"]
    classes = choose_classes(table)
    if classes is not None:
        choice = [] if classes == CARD_CLASSES else [f"--config.protocol.classes={classes}"]
        return shlex.join([*words, f"--config={CARD}", *data, *choice]), ""
    units = _units(table)
    if units:
        choice = ["--config.protocol.name=loso", f"--config.protocol.units={','.join(units)}"]
        return shlex.join([*words, f"--config={UNITS_CARD}", *data, *choice]), ""
    emotions = [word for word in dict.fromkeys(table["emotion"]) if word]
    return "", (
        f"Emotions of the clips: {', '.join(emotions[:12]) or 'none'}. Telling classes apart needs"
        " two, and there are no action units either, so nothing can be trained yet. Add clips of"
        " another emotion, or a column emotion or au to the table, and prepare again."
    )


def _units(table: pd.DataFrame) -> list[str]:
    """Numbers of the units that several clips show, if clips of two subjects were coded."""
    coded = table[is_coded(table)]
    if len(set(coded["subject"])) < _LEAST_SUBJECTS:
        return []
    counts = Counter(au for aus in coded["aus"] for au in aus)
    return sorted((au for au, count in counts.items() if count >= _LEAST_CLIPS), key=int)

"""Letters of other scripts that look like Latin ones: two names that nobody can tell apart by eye.

`mexjax.protocol.names` makes one name of spellings that are the same letters. A Cyrillic letter in
place of a Latin one is another letter, and may be meant, so that such names stay two and are told.
The list has the letters that common fonts draw alike (compare Unicode Technical Standard 39).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence

from mexjax.protocol.classes import canonical_emotion
from mexjax.protocol.names import fold, tidy

# The begin of a letter's name in Unicode -> the rest of it -> the Latin letter it looks like.
# Accents are parts of their own by then.
_SHAPES = {
    "CYRILLIC CAPITAL LETTER ": {
        "A": "A", "VE": "B", "IE": "E", "KA": "K", "EM": "M", "EN": "H", "O": "O", "ER": "P",
        "ES": "C", "TE": "T", "U": "Y", "STRAIGHT U": "Y", "HA": "X", "DZE": "S", "JE": "J",
        "BYELORUSSIAN-UKRAINIAN I": "I", "QA": "Q", "WE": "W", "IZHITSA": "V",
    },
    "CYRILLIC SMALL LETTER ": {
        "A": "a", "IE": "e", "KA": "k", "O": "o", "ER": "p", "ES": "c", "U": "y", "STRAIGHT U": "y",
        "HA": "x", "DZE": "s", "JE": "j", "BYELORUSSIAN-UKRAINIAN I": "i", "PALOCHKA": "l",
        "SHHA": "h", "KOMI DE": "d", "QA": "q", "WE": "w", "IZHITSA": "v",
    },
    "CYRILLIC LETTER ": {"PALOCHKA": "I"},
    "GREEK CAPITAL LETTER ": {
        "ALPHA": "A", "BETA": "B", "EPSILON": "E", "ZETA": "Z", "ETA": "H", "IOTA": "I",
        "KAPPA": "K", "MU": "M", "NU": "N", "OMICRON": "O", "RHO": "P", "TAU": "T", "UPSILON": "Y",
        "CHI": "X",
    },
    "GREEK SMALL LETTER ": {
        "ALPHA": "a", "IOTA": "i", "KAPPA": "k", "NU": "v", "OMICRON": "o", "RHO": "p",
        "UPSILON": "u", "CHI": "x",
    },
    "ARMENIAN CAPITAL LETTER ": {"OH": "O", "SEH": "U"},
    "ARMENIAN SMALL LETTER ": {"OH": "o", "SEH": "u", "VO": "n", "HO": "h"},
    "LATIN SMALL LETTER ": {"DOTLESS I": "i", "ALPHA": "a", "SCRIPT G": "g"},
}  # fmt: skip
_LATIN = {
    ord(unicodedata.lookup(begin + name)): latin
    for begin, letters in _SHAPES.items()
    for name, latin in letters.items()
}
_MAX_LINES = 20


def looks(text: str) -> str:
    """Return the key that names share which look alike, letters of other scripts included."""
    return fold(unicodedata.normalize("NFD", tidy(text)).translate(_LATIN))


def lookalikes(names: Iterable[str], key: Callable[[str], str] = looks) -> list[tuple[str, ...]]:
    """Return the groups of names that share a key; those of one `fold` are one name."""
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        groups.setdefault(key(name), {}).setdefault(fold(name), name)
    return [tuple(group.values()) for group in groups.values() if len(group) > 1]


def with_code_points(name: str) -> str:
    """Return a name in quotes, with the letters in it that look like Latin ones named."""
    letters = [
        f"U+{ord(letter):04X} {unicodedata.name(letter)}"
        for letter in dict.fromkeys(unicodedata.normalize("NFD", name))
        if ord(letter) in _LATIN
    ]
    return f"'{name}' ({', '.join(letters) or 'Latin letters'})"


def lines_of_people(subjects: Iterable[str]) -> list[str]:
    """Return a line for each group of subjects that look alike and are taken for several people."""
    return _lines(
        lookalikes(subjects),
        "Subjects",
        "people",
        "if they are one person, splits by subject train and test on it: spell the names alike in"
        " the table, or in the names of folders, and prepare again.",
    )


def lines_of_emotions(words: Iterable[str]) -> list[str]:
    """Return a line for each group of emotions that look alike and are several classes."""
    return _lines(
        lookalikes(words, lambda word: canonical_emotion(looks(word))),
        "Emotions",
        "classes",
        "if they are one, spell them alike, or merge them in training with a file,"
        " --config.protocol.class_map=FILE.",
    )


def _lines(groups: Iterable[Sequence[str]], noun: str, kind: str, advice: str) -> list[str]:
    lines = [
        f"{noun} {' and '.join(map(with_code_points, group))} look alike, are spelled with letters"
        f" of different scripts, and are taken for {len(group)} {kind}; {advice}"
        for group in groups
    ]
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"{len(lines) - _MAX_LINES} more groups of names look alike."]
    return lines

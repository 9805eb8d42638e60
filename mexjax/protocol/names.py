"""Names of people, clips and emotions in one spelling, so that names that look alike are one name.

Two spellings that no reader can tell apart (a composed and a decomposed accent, a blank of no
width, full-width letters) would otherwise be two people, and one person could be trained on and
held out in the same fold.
"""

from __future__ import annotations

import re
import unicodedata

# These are drawn as nothing, or as an empty place, though they are letters or marks by category.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f]")
_BLANKS = re.compile("[\\s\u2800\u3164\uffa0]+")
_LONE = re.compile("[\ud800-\udfff]")
# Word processors and spreadsheet programs put these in place of the marks that were typed.
_MARKS = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
    | dict.fromkeys("\u02bc\u2018\u2019\u201b\u2032", "'")
)


def writable(text: str) -> str:
    """Return a text that can be written: bytes of a name that are no UTF-8 become such as %E9.

    Python reads such a byte of a file name as a lone surrogate, which no file and no terminal
    takes.
    """
    return _LONE.sub(_as_byte, text)


def _as_byte(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"%{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else "\ufffd"


def tidy(text: str) -> str:
    """Return a name as it looks: NFKC, without format characters, blanks single, none at the ends.

    Dashes are hyphens and curly apostrophes straight ones, as in O'Brien. Letters keep their case;
    `writable` tells of bytes that are no letters.
    """
    text = writable(text)
    text = unicodedata.normalize("NFKC", _BLANKS.sub(" ", text))
    text = "".join(mark for mark in _UNSEEN.sub("", text) if unicodedata.category(mark) != "Cf")
    text = unicodedata.normalize("NFKC", text.translate(_MARKS))
    return _BLANKS.sub(" ", text).strip()


def fold(text: str) -> str:
    """Return the key under which names are compared: `tidy`, in lower case."""
    return tidy(tidy(text).casefold())

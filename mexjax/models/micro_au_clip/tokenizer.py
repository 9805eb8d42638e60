"""CLIP's tokenizer: byte-pair encoding of lower-case text, from a list of merges.

The list is not part of this package. It lies in the open_clip_torch wheel
(`bpe_simple_vocab_16e6.txt.gz`), and as `merges.txt` beside Hugging Face's CLIP weights. Prompts
that ship with the package (`mexjax.models.micro_au_clip.prompts`) need neither.
"""

from __future__ import annotations

import gzip
import html
import importlib.metadata
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mexjax.errors import DataError

NUM_MERGES = 48894
CONTEXT = 77
_CONTRACTIONS = ("'re", "'ve", "'ll", "'s", "'t", "'m", "'d")
_DISTRIBUTION = "open_clip_torch"
_IN_WHEEL = "open_clip/bpe_simple_vocab_16e6.txt.gz"
_END_OF_WORD = "</w>"


def byte_symbols() -> dict[int, str]:
    """The character that stands for each byte, in the order of the vocabulary.

    Printable bytes stand for themselves and come first; the others follow as U+0100 and on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    return symbols | {byte: chr(256 + i) for i, byte in enumerate(others)}


def split_words(text: str) -> Iterator[str]:
    """Words of a cleaned text: contractions, runs of letters, single digits, runs of the rest."""
    at = 0
    while at < len(text):
        contraction = next((c for c in _CONTRACTIONS if text.startswith(c, at)), None)
        kind = _kind(text[at])
        end = at + 1
        if contraction:
            end = at + len(contraction)
        elif kind in "LO":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != "Z":
            yield text[at:end]
        at = end


def _kind(character: str) -> str:
    """The kind of a character: L letter, N number, Z space, O other."""
    if character.isspace():
        return "Z"
    category = unicodedata.category(character)[0]
    return category if category in "LN" else "O"


class ClipTokenizer:
    """A map from texts to token ids.

    Attributes:
      start: id that a row begins with.
      end: id that a row ends with, the largest one.
    """

    def __init__(self, merges: Iterable[tuple[str, str]]) -> None:
        """Makes the vocabulary: bytes, bytes that end a word, merges in their order, two marks."""
        merges = list(merges)
        self._bytes = byte_symbols()
        symbols = list(self._bytes.values())
        vocabulary = [*symbols, *(s + _END_OF_WORD for s in symbols), *("".join(m) for m in merges)]
        self._ids = {symbol: i for i, symbol in enumerate(vocabulary)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.start, self.end = len(vocabulary), len(vocabulary) + 1

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without marks. Upper case and runs of blanks make no difference.

        Text that is not plain ASCII is taken as it is: OpenAI's code first repairs wrong encodings.
        """
        cleaned = " ".join(html.unescape(html.unescape(text)).split()).lower()
        ids: list[int] = []
        for word in split_words(cleaned):
            symbols = [self._bytes[byte] for byte in word.encode("utf-8")]
            symbols[-1] += _END_OF_WORD
            ids += [self._ids[symbol] for symbol in self._merged(symbols)]
        return ids

    def rows(self, texts: Sequence[str], context: int = CONTEXT) -> np.ndarray:
        """Rows i32[M, context] of start, ids, end, zeros; a longer text is cut and then ended."""
        out = np.zeros((len(texts), context), np.int32)
        for row, text in enumerate(texts):
            ids = [self.start, *self.encode(text), self.end][:context]
            out[row, : len(ids)] = ids
            out[row, len(ids) - 1] = self.end
        return out

    def _merged(self, symbols: list[str]) -> list[str]:
        """Merges, again and again, the pair that comes first in the list, until none is left."""
        while len(symbols) > 1:
            pairs = set(itertools.pairwise(symbols))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            joined: list[str] = []
            at = 0
            while at < len(symbols):
                if tuple(symbols[at : at + 2]) == best:
                    joined.append(symbols[at] + symbols[at + 1])
                    at += 2
                else:
                    joined.append(symbols[at])
                    at += 1
            symbols = joined
        return symbols


def load_tokenizer(path: str | Path = "") -> ClipTokenizer:
    """CLIP's tokenizer from a list of merges.

    Args:
      path: `bpe_simple_vocab_16e6.txt.gz` or `merges.txt`, compressed or not. Empty: the file in
        the installed open_clip_torch wheel, which is only looked up and never imported.

    Raises:
      DataError: no such file, or one that is not CLIP's.
    """
    file = Path(path) if path else _installed()
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read CLIP's merges from {file}: {error}.") from error
    # The first line is a heading that says where the list is from.
    merges = [line.split() for line in text.splitlines()[1 : NUM_MERGES + 1]]
    if len(merges) < NUM_MERGES or any(len(pair) != 2 for pair in merges):
        raise DataError(
            f"{file} is not CLIP's list of merges: expected a line of heading and then"
            f" {NUM_MERGES} lines of two symbols; found {len(merges)} lines."
        )
    return ClipTokenizer((first, second) for first, second in merges)


def _installed() -> Path:
    try:
        file = Path(str(importlib.metadata.distribution(_DISTRIBUTION).locate_file(_IN_WHEEL)))
    except importlib.metadata.PackageNotFoundError:
        file = None
    if file is None or not file.is_file():
        raise DataError(
            "CLIP's list of merges is needed for texts whose token ids do not ship with mexjax."
            f" Install the wheel that holds it (pip install --no-deps {_DISTRIBUTION}), or give"
            " the path of bpe_simple_vocab_16e6.txt.gz or merges.txt."
        )
    return file

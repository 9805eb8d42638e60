"""Texts that describe action units, and their token ids for CLIP's text tower.

Micro-AU CLIP gives each unit a sentence that says that it moves and one that it does not. The paper
prints the pair of unit 4; the others follow its grammar. Their ids ship with the package; other
texts need CLIP's list of merges (`mexjax.models.micro_au_clip.tokenizer`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mexjax.errors import DataError, quoted, unknown_name
from mexjax.models.micro_au_clip.tokenizer import CONTEXT, ClipTokenizer, load_tokenizer

START, END, COMMA = 49406, 49407, 267  # ids of the marks around a text, and of a comma
SIDES = ("negative", "positive")  # in the order of the label: 0 inactive, 1 active


@dataclasses.dataclass(frozen=True)
class Combination:
    """Action units that stand for an emotion, and the sentence that says them."""

    emotion: str
    aus: tuple[int, ...]
    text: str


@functools.cache
def _shipped() -> dict[str, Any]:
    text = (
        resources.files("mexjax.models.micro_au_clip")
        .joinpath("prompts.json")
        .read_text(encoding="utf-8")
    )
    return json.loads(text)


@functools.cache
def _shipped_ids() -> dict[str, list[int]]:
    content = _shipped()
    entries = [pair[side] for pair in content["prompts"].values() for side in SIDES]
    return {entry["text"]: entry["ids"] for entry in [*entries, *content["combinations"]]}


def au_texts(
    aus: Sequence[int], own: Mapping[int, Sequence[str]] | None = None
) -> list[tuple[str, str]]:
    """The negative and the positive sentence of each action unit.

    Args:
      aus: numbers of the units.
      own: (negative, positive) for units whose sentences are replaced.

    Raises:
      DataError: a unit that has neither its own sentences nor shipped ones.
    """
    shipped = _shipped()["prompts"]
    out = []
    for au in aus:
        pair = (own or {}).get(au)
        if pair is None and str(au) not in shipped:
            units = ", ".join(shipped)
            raise DataError(
                f"No sentences for action unit {au} ship with mexjax (there are some for {units})."
                " Give your own, negative and positive."
            )
        pair = pair or [shipped[str(au)][side]["text"] for side in SIDES]
        if len(pair) != 2 or not all(isinstance(text, str) and text.strip() for text in pair):
            raise DataError(
                f"Action unit {au} needs a negative and a positive sentence, found {pair!r}."
            )
        out.append((pair[0], pair[1]))
    return out


def combinations(aus: Sequence[int]) -> list[Combination]:
    """The shipped combinations, by usual FACS coding, whose units are all among `aus`.

    For the eight units of Micro-AU CLIP on CASME II there are twelve, for its four on SAMM six.
    The paper's own list is in a supplement that was not available.
    """
    return [
        Combination(entry["emotion"], tuple(entry["aus"]), entry["text"])
        for entry in _shipped()["combinations"]
        if set(entry["aus"]) <= set(aus)
    ]


def token_ids(texts: Sequence[str], merges: str | Path = "") -> np.ndarray:
    """Token ids of texts, padded to the longest only, since the text tower is causal.

    Args:
      texts: M texts. Without `merges`, texts that ship with the package need nothing else; other
        texts need the installed open_clip_torch wheel.
      merges: CLIP's list of merges, see `mexjax.models.micro_au_clip.tokenizer.load_tokenizer`.

    Returns:
      i32[M, L]; a row has a start mark, the ids, an end mark and zeros.

    Raises:
      DataError: a list of merges is needed and there is none.
    """
    ids = _shipped_ids()
    tokenizer: ClipTokenizer | None = load_tokenizer(merges) if merges else None
    rows = []
    for text in texts:
        if tokenizer is None and text in ids:
            rows.append(ids[text])
            continue
        tokenizer = tokenizer or load_tokenizer()
        row = tokenizer.rows([text])[0]
        rows.append(row[: row.argmax() + 1].tolist())
    return _padded(rows)


def joined_ids(ids: np.ndarray, labels: np.ndarray, *, comma: int = COMMA) -> np.ndarray:
    """One text for each combination of labels: the sentences of all units, joined by commas.

    Args:
      ids: i32[N, 2, L], negative and positive sentence of each unit.
      labels: 0 or 1, [M, N].
      comma: id of the comma, in the vocabulary of `ids`.

    Returns:
      i32[M, L'].

    Raises:
      DataError: texts longer than the text tower's context.
    """
    ids = np.asarray(ids)
    start, end = int(ids[0, 0, 0]), int(ids.max())
    bodies = [[row[1 : row.argmax()].tolist() for row in pair] for pair in ids]
    rows = []
    for label in np.asarray(labels, int):
        parts = [bodies[n][y] for n, y in enumerate(label)]
        inside = list(itertools.chain.from_iterable([comma, *part] for part in parts))[1:]
        rows.append([start, *inside, end])
    longest = max(map(len, rows))
    if longest > CONTEXT:
        raise DataError(
            f"The sentences of {len(bodies)} action units joined have up to {longest} tokens; the"
            f" text tower takes {CONTEXT}. Use fewer units or shorter sentences."
        )
    return _padded(rows)


def compact(*ids: np.ndarray) -> tuple[int, list[np.ndarray]]:
    """The same texts in a vocabulary of the tokens that occur, for towers without weights.

    Args:
      *ids: arrays of token ids.

    Returns:
      The size of the vocabulary, and the arrays in it. Order is kept, so the end mark stays the
      largest id.
    """
    vocabulary = np.unique(np.concatenate([np.ravel(array) for array in ids]))
    return len(vocabulary), [np.searchsorted(vocabulary, array).astype(np.int32) for array in ids]


def read_own(path: str | Path) -> dict[int, tuple[str, str]]:
    """Sentences from a JSON file: {"4": {"negative": "...", "positive": "..."}, ...}.

    Raises:
      DataError: no such file, or one of another form.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read the sentences of action units from {path}: {error}") from None
    form = 'expected {"4": {"negative": "...", "positive": "..."}, ...}'
    if not isinstance(content, dict):
        raise DataError(f"{path}: {form}; found {type(content).__name__}.")
    sentences = {}
    for au, pair in content.items():
        if not au.isdigit() or not isinstance(pair, dict):
            raise DataError(f"{path}: {form}; found the entry {quoted(au)}: {quoted(pair)}.")
        for side in pair:
            if side not in SIDES:
                raise DataError(f"{path}, action unit {au}: {unknown_name('side', side, SIDES)}")
        if set(pair) != set(SIDES) or not all(isinstance(pair[side], str) for side in SIDES):
            raise DataError(f"{path}, action unit {au}: {form}; found {quoted(pair)}.")
        sentences[int(au)] = (pair["negative"], pair["positive"])
    return sentences


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    out = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = ids
    return out

"""Sentences of action units and CLIP's tokenizer."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import string
from pathlib import Path

import numpy as np
import pytest

from mexjax.errors import DataError
from mexjax.models.micro_au_clip import prompts
from mexjax.models.micro_au_clip.tokenizer import (
    NUM_MERGES,
    ClipTokenizer,
    byte_symbols,
    load_tokenizer,
    split_words,
)

CASME2, SAMM = (1, 2, 4, 7, 12, 14, 15, 17), (2, 4, 7, 12)
MERGES = [("l", "o"), ("lo", "w</w>"), ("e", "w</w>"), ("n", "ew</w>"), ("e", "r</w>"), ("lo", "w")]


def test_shipped_ids():
    texts = [text for pair in prompts.au_texts(CASME2) for text in pair]
    ids = prompts.token_ids(texts)
    assert ids.shape == (16, 10) and ids.dtype == np.int32
    assert ids[5].tolist() == [49406, 518, 19923, 631, 35261, 49407, 0, 0, 0, 0]
    for negative, positive in ids.reshape(8, 2, -1):
        # The pair differs by one word, "not", which has one id.
        body = [i for i in negative if i != 783]
        assert body[: positive.argmax() + 1] == positive[: positive.argmax() + 1].tolist()
        assert (negative == 783).sum() == 1
    assert (ids[:, 0] == prompts.START).all() and (ids.max(axis=1) == prompts.END).all()


def test_combinations_are_those_whose_units_are_modelled():
    every = prompts.combinations(CASME2)
    assert len(every) == 12 and len(prompts.combinations(SAMM)) == 6
    assert {c.emotion for c in every} == {"positive", "negative", "surprise"}
    assert prompts.token_ids([c.text for c in every]).shape == (12, 16)


def test_joined_sentences_are_one_text():
    pairs = prompts.au_texts(CASME2)
    ids = prompts.token_ids([text for pair in pairs for text in pair]).reshape(8, 2, -1)
    rows = prompts.joined_ids(ids, np.array([[0] * 8, [1] * 8, [0] * 7 + [1]]))
    assert rows.argmax(axis=1).tolist() == [59, 51, 58]
    assert rows[1, :16].tolist() == [
        *(49406, 518, 6955, 19923, 631, 6883, 267, 518, 14188, 19923, 631, 6883, 267, 518, 19923),
        631,
    ]
    with pytest.raises(DataError, match="takes 77"):
        prompts.joined_ids(np.concatenate([ids, ids]), np.zeros((1, 16), int))


def test_a_small_vocabulary_keeps_the_order():
    ids = prompts.token_ids([text for pair in prompts.au_texts(SAMM) for text in pair])
    size, (small, other) = prompts.compact(ids, ids[:2])
    assert size == len(np.unique(ids)) and small.max() == size - 1
    np.testing.assert_array_equal(small.argmax(axis=1), ids.argmax(axis=1))
    np.testing.assert_array_equal(other, small[:2])


def test_symbols_of_bytes():
    symbols = list(byte_symbols().items())
    assert len({s for _, s in symbols}) == len({b for b, _ in symbols}) == 256
    assert symbols[0] == (33, "!") and symbols[93] == (126, "~")
    assert symbols[188] == (0, "Ā") and byte_symbols()[32] == "Ġ"


@pytest.mark.parametrize(
    "text, words",
    [
        ("don't i'll", "don 't i 'll"),
        ("12½a", "1 2 ½ a"),
        ("a's!'s ... 'tis", "a 's !' s ... 't is"),
        ("naïve—yes", "naïve — yes"),
    ],
)
def test_words(text: str, words: str):
    assert list(split_words(text)) == words.split(" ")


def test_pairs_are_merged_in_the_order_of_the_list():
    tokenizer = ClipTokenizer(MERGES)
    assert (tokenizer.start, tokenizer.end) == (518, 519)

    def letter(symbol: str, *, is_last: bool = False) -> int:
        return ord(symbol) - 33 + (256 if is_last else 0)

    assert tokenizer.encode("low") == [513]
    assert tokenizer.encode("  NEW &amp;amp;  ") == [515, letter("&", is_last=True)]
    assert tokenizer.encode("lower") == [517, 516]
    assert tokenizer.encode("lo") == [letter("l"), letter("o", is_last=True)]
    assert tokenizer.encode("é") == [tokenizer.encode("Ã")[0]] or len(tokenizer.encode("é")) == 2
    rows = tokenizer.rows(["low", "new low low low"], context=4)
    assert rows.tolist() == [[518, 513, 519, 0], [518, 515, 513, 519]]


def merges_file(path: Path) -> Path:
    """A list of the right length that begins with a few real merges."""
    letters = string.ascii_letters
    others = [f"{a}{b}{c} {d}" for a in letters for b in letters for c in letters for d in "xy"]
    lines = ["#version", *(" ".join(pair) for pair in MERGES), *others][: NUM_MERGES + 1]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_a_file_of_merges(tmp_path: Path):
    path = merges_file(tmp_path / "merges.txt.gz")
    tokenizer = load_tokenizer(path)
    assert (tokenizer.start, tokenizer.end) == (prompts.START, prompts.END)
    assert tokenizer.encode("low") == [513]
    ids = prompts.token_ids(["low", "lower low"], merges=path)
    assert ids.tolist() == [[49406, 513, 49407, 0, 0], [49406, 517, 516, 513, 49407]]
    plain = tmp_path / "merges.txt"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert load_tokenizer(plain).encode("new") == [515]
    plain.write_text("#version\na b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"48894 lines of two symbols; found 1 lines"):
        load_tokenizer(plain)
    with pytest.raises(DataError, match="Cannot read CLIP's merges"):
        load_tokenizer(tmp_path / "none")


def test_other_texts_say_what_they_need(monkeypatch):
    def absent(name: str):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(DataError, match="pip install --no-deps open_clip_torch"):
        prompts.token_ids(["The ears are wiggling"])
    with pytest.raises(DataError, match="No sentences for action unit 6"):
        prompts.au_texts([4, 6])


def test_sentences_of_ones_own(tmp_path: Path):
    path = tmp_path / "own.json"
    pair = {"negative": "The cheeks are not raising", "positive": "The cheeks are raising"}
    path.write_text(json.dumps({"6": pair}), encoding="utf-8")
    own = prompts.read_own(path)
    assert prompts.au_texts([6, 4], own)[0] == (pair["negative"], pair["positive"])
    for content, match in (
        ([], "found list"),
        ({"six": pair}, "'six'"),
        ({"6": pair | {"neutral": ""}}, "'neutral'"),
        ({"6": {"negative": "no"}}, "action unit 6"),
    ):
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(DataError, match=match):
            prompts.read_own(path)


def test_the_real_list_of_merges():
    """Equal to the public tokenizer on every text that ships with its ids."""
    try:
        tokenizer = load_tokenizer()
    except DataError:
        pytest.skip("the open_clip_torch wheel is not installed")
    combined = prompts.combinations(CASME2)
    texts = [text for pair in prompts.au_texts(CASME2) for text in pair]
    texts += [c.text for c in combined]
    ids = prompts.token_ids(texts)
    np.testing.assert_array_equal(tokenizer.rows(texts)[:, : ids.shape[1]], ids)

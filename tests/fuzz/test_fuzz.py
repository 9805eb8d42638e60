"""A short run of the fuzz program, whose long one is a command, and its own watch."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mexjax.errors import DataError

from . import KINDS, harness
from .damage import spoil_bytes
from .harness import FAULT, REFUSED, SUCCESS, Case, Kind, Outcome, SilentError

COUNTS = {
    **{"configs": 300, "networks": 10, "tables": 150},
    **{"run_files": 150, "checkpoints": 4, "prepared_files": 150},
}


class Acts(Kind):
    """A kind whose cases do what they are told."""

    limit_s = 0.2

    def __init__(self, act: Callable[[], str]) -> None:
        self.act = act

    def case(self, chance: random.Random, folder: Path) -> Case:
        del folder
        return Case(f"{chance.random():.6f}", self.act)


def run(act: Callable[[], str], number: int = 0) -> Outcome:
    (outcome,) = harness.run_cases(Acts(act), "acts", 0, range(number, number + 1))
    return outcome


def raises(error: BaseException) -> Callable[[], str]:
    def act() -> str:
        raise error

    return act


def never_ends() -> str:
    for _ in itertools.count():
        time.sleep(0.01)
    return SUCCESS


@pytest.mark.parametrize("name", KINDS)
def test_nothing_but_success_rebuild_or_one_message(name):
    outcomes = list(harness.run_cases(KINDS[name](), name, 0, range(COUNTS[name])))
    counts, faults, took_s = harness.count(iter(outcomes))
    assert not faults, harness.table(name, 0, counts, faults, took_s)
    assert counts[SUCCESS] and (counts[REFUSED] or name == "checkpoints")


def test_outcomes_are_told_apart(monkeypatch):
    assert run(lambda: SUCCESS).name == SUCCESS
    refused = run(raises(DataError("no clips")))
    assert (refused.name, refused.detail) == (REFUSED, "DataError: no clips")
    assert run(raises(SilentError("other clips"))).name == FAULT
    assert "KeyError: 'a' (test_fuzz.py:" in run(raises(KeyError("a"))).detail
    assert "no end after" in run(never_ends).detail
    monkeypatch.setattr(harness, "LONGEST_MESSAGE", 7)
    assert run(raises(DataError("no clips"))).detail.startswith("LongMessage: 8 characters: no cl")


def test_a_case_follows_from_its_number(tmp_path):
    words = [run(lambda: SUCCESS, number).words for number in (3, 3, 4)]
    assert words[0] == words[1] != words[2]
    texts = set()
    for seed in (1, 1, 2):
        path = tmp_path / "data.bin"
        path.write_bytes(bytes(range(256)))
        texts.add((seed, spoil_bytes(path, random.Random(seed)), path.read_bytes()))
    assert len(texts) == 2

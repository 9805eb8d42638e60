"""Files of a run: one is spoilt, and then the report is built or the same command started again.

The right outcome is the predictions and numbers of the undamaged run, byte for byte, or a message.
The programs of the run are compiled once.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from ml_collections import ConfigDict

from mexjax.config import load_config
from mexjax.report.write import write_report
from mexjax.train import run as running
from mexjax.train.programs import Compiled, compile_programs, device_data
from mexjax.train.study import Study, make_study

from .damage import spoil, spoil_bytes
from .harness import REBUILT, SUCCESS, Case, Kind, SilentError

# The report makes these of the others.
WRITTEN_AGAIN = ("results.json", "predictions.csv", "report.md")
OVERRIDES: dict[str, Any] = {
    "data.image_size_px": 32,
    "data.synthetic.num_subjects": 4,
    "data.synthetic.num_clips": 16,
    "protocol.classes": 3,
    "model.stem_patch_px": 2,
    "model.stem_channels": (8,),
    "model.stem_strides": (1,),
    "model.num_local": (0, 0),
    "model.num_global": (0, 0),
    "model.local_channels": (16, 16),
    "model.global_channels": (16, 32),
    "model.head_dim": 8,
    "model.map_size_px": 16,
    "model.mer_width": 16,
    "model.encoder_channels": (8,),
    "model.decoder_channels": (8,),
    "train.num_epochs": 3,
    "train.batch_size": 16,
    "eval.every_epochs": 1,
    "checkpoint.every_epochs": 1,
    "checkpoint.min_seconds": 0.0,
    "folds.per_chunk": 2,
    "report.has_figures": False,
    "has_progress": False,
}


class Trained:
    """A small run, its study and its compiled programs."""

    def __init__(self) -> None:
        self.config: ConfigDict = load_config("fdp", OVERRIDES)
        self.study: Study = make_study(self.config)
        self.data = device_data(self.study)
        self.compiled: Compiled = compile_programs(self.study, self.data, per_device=2)

    @contextlib.contextmanager
    def at_hand(self) -> Iterator[None]:
        """In the block a run of this configuration draws and compiles nothing."""
        with (
            mock.patch.object(running, "make_study", lambda _: self.study),
            mock.patch.object(running, "device_data", lambda _: self.data),
            mock.patch.object(running, "compile_programs", lambda *_, **__: self.compiled),
            mock.patch.object(running, "clip_flops", lambda *_: 1),
            mock.patch("mexjax.train.cost.utilisation", lambda *_: {}),
        ):
            yield

    def run(self, folder: Path) -> None:
        """The command."""
        with self.at_hand():
            running.run(self.config, folder)


class RunFiles(Kind):
    """A finished run, and one of whose groups only the first is finished."""

    limit_s = 30.0

    def set_up(self, folder: Path) -> None:
        self.trained = Trained()
        self.finished, self.half = folder / "finished", folder / "half"
        self.trained.run(self.finished)
        shutil.copytree(self.finished, self.half)
        (self.half / "groups/group_001.npz").unlink()
        for name in (*WRITTEN_AGAIN, "run.json", "folds.json", "predictions.npz", "perf.json"):
            (self.half / name).unlink()
        for path in self.half.glob("*.npz"):
            path.unlink()
        self.answer = answer(self.finished)

    def case(self, chance: random.Random, folder: Path) -> Case:
        is_report = chance.random() < 0.85
        is_half = not is_report and chance.random() < 0.6
        place = folder / "run"
        shutil.copytree(self.half if is_half else self.finished, place)
        words = [spoil_one(chance, place) for _ in range(chance.choice([1, 1, 1, 2]))]
        what = "report" if is_report else "resume" if is_half else "start again"
        act = self._report if is_report else self._run
        return Case(f"{what}: {'; '.join(words)}", lambda: act(place))

    def _report(self, place: Path) -> str:
        before = {name: _bytes(place / name) for name in WRITTEN_AGAIN}
        write_report(place)
        check_answer(place, self.answer)
        is_same = all(_bytes(place / name) == value for name, value in before.items())
        return SUCCESS if is_same else REBUILT

    def _run(self, place: Path) -> str:
        before = _groups(place)
        self.trained.run(place)
        check_answer(place, self.answer)
        return SUCCESS if before == _groups(place) else REBUILT


def spoil_one(chance: random.Random, place: Path) -> str:
    """Spoil one file below a folder."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    path = chance.choice(files)
    if not path.exists():
        return "nothing"
    return f"{path.relative_to(place).parent}/{spoil(path, chance, files)}"


def answer(folder: Path) -> tuple[bytes, Any]:
    """The predictions of a run, and its numbers without times, published values and places."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return (folder / "predictions.csv").read_bytes(), results


def check_answer(folder: Path, expected: tuple[bytes, Any]) -> None:
    """Raise unless a folder has the right predictions and numbers."""
    predictions, results = answer(folder)
    if predictions != expected[0]:
        raise SilentError("other predictions.csv")
    for name, value in expected[1].items():
        if name not in NOT_NUMBERS and results.get(name) != value:
            raise SilentError(f"results.json: {name} differs: {str(results.get(name))[:100]}")


# Entries of results.json that may differ: times are measured anew, and report.* is the user's.
NOT_NUMBERS = ("timing", "environment", "paper", "paper_results")


def _groups(place: Path) -> dict[str, int]:
    """The records of a run, to tell one that was made again."""
    return {path.name: path.lstat().st_ino for path in (place / "groups").glob("*.npz")}


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


class Checkpoints(Kind):
    """A run that was stopped within a group; files of its checkpoints are spoilt."""

    limit_s = 60.0

    def set_up(self, folder: Path) -> None:
        self.trained = Trained()
        whole, self.stopped = folder / "whole", folder / "stopped"
        self.trained.run(whole)
        self.answer = answer(whole)
        calls = []

        def update(*_: Any, **__: Any) -> None:
            calls.append(1)
            if len(calls) == 5:  # the second epoch of the second group was saved
                raise KeyboardInterrupt

        with (
            mock.patch("mexjax.progress.TrainProgress.update", update),
            contextlib.suppress(KeyboardInterrupt),
        ):
            self.trained.run(self.stopped)
        assert list(self.stopped.glob("checkpoints/group_*/[0-9]*")), "no checkpoint was saved"

    def case(self, chance: random.Random, folder: Path) -> Case:
        place = folder / "run"
        shutil.copytree(self.stopped, place)
        files = sorted(path for path in (place / "checkpoints").rglob("*") if path.is_file())
        words = []
        for _ in range(chance.choice([1, 1, 2, 6])):
            path = chance.choice(files)
            if path.is_file() and not path.is_symlink():
                is_bytes = chance.random() < 0.7
                how = spoil_bytes(path, chance) if is_bytes else spoil(path, chance, files)
                words.append(f"{path.relative_to(place).parent}/{how}")
        return Case("; ".join(words), lambda: self._run(place))

    def _run(self, place: Path) -> str:
        self.trained.run(place)
        check_answer(place, self.answer)
        return SUCCESS

"""Files of a prepared folder: one is spoilt, and then the clips and their views are loaded.

The right outcome is the clips, labels and views of the undamaged folder, or a message. Some cases
prepare again first: the shards that are whole stay, and the others are made anew.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mexjax.config import load_config
from mexjax.data import records
from mexjax.data.dataset import Dataset
from mexjax.data.loading import load_table
from mexjax.prepare import pipeline
from mexjax.prepare.cropping import Settings
from mexjax.prepare.layouts import write_layout
from mexjax.prepare.options import Input, Options
from mexjax.train.study import load_dataset

from .harness import REBUILT, SUCCESS, Case, Kind, SilentError
from .run_files import spoil_one

COLUMNS = ["dataset", "subject", "clip", "onset", "apex", "offset", "fps", "emotion", "au", "aus"]
SHARED: dict[str, Any] = {
    "data.name": "prepared",
    "data.image_size_px": 32,
    "protocol.classes": 3,
    "has_progress": False,
}
# The views that a run computes from the shards, and reads back the next time.
CARDS: dict[str, dict[str, Any]] = {
    "fdp": {"data.num_frames": 4},
    "tsfmicro": {},
    "gamdss": {"data.is_color": False},
}


class PreparedFiles(Kind):
    """A prepared release of six clips in three shards, with three views."""

    limit_s = 30.0

    def set_up(self, folder: Path) -> None:
        layout = write_layout("casme2", folder / "release", num_clips=6, resolution_px=48)
        self.input = Input("casme2", layout.root, layout.spreadsheet)
        self.settings = Settings(size_px=48, faces="landmarks", landmarks=layout.landmarks)
        self.whole = folder / "prepared"
        self._prepare(self.whole)
        self.expected = {name: self._load(name, self.whole) for name in CARDS}
        self.records = self._records(self.whole)

    def case(self, chance: random.Random, folder: Path) -> Case:
        place = folder / "prepared"
        shutil.copytree(self.whole, place)
        words = [spoil_one(chance, place) for _ in range(chance.choice([1, 1, 1, 2]))]
        card = chance.choice(list(CARDS))
        way = chance.choice(["load", "load", "load", "without views", "records", "again"])
        if way == "without views":
            shutil.rmtree(place / "views", ignore_errors=True)
        return Case(f"{way}, {card}: {'; '.join(words)}", lambda: self._act(way, card, place))

    def _act(self, way: str, card: str, place: Path) -> str:
        if way == "records":
            if self._records(place) != self.records:
                raise SilentError("other records")
            return SUCCESS
        if way == "again":
            self._prepare(place)
        before = _views(place)
        check_same(self._load(card, place), self.expected[card])
        return SUCCESS if way != "again" and before == _views(place) else REBUILT

    def _prepare(self, out: Path) -> None:
        pipeline.prepare(Options((self.input,), out, self.settings, clips_per_shard=2))

    def _load(self, card: str, root: Path) -> Dataset:
        return load_dataset(config_of(card, root))

    def _records(self, root: Path) -> list[str]:
        """A digest of each clip with its frames and landmarks, as the table lists them."""
        out = []
        for row in load_table(config_of("fdp", root)).to_dict("records"):
            clip = records.load_clip(root, row)
            state = hashlib.sha256(clip.id.encode())
            for array in (clip.frames, clip.numbers, clip.landmarks, clip.landmark_frames):
                state.update(np.ascontiguousarray(array).tobytes())
            numbers = (clip.onset, clip.apex, clip.offset, clip.fps)
            out.append(f"{clip.id} {numbers} {state.hexdigest()}")
        return out


def config_of(card: str, root: Path) -> ConfigDict:
    """The configuration that loads a prepared folder for a card."""
    return load_config(card, SHARED | CARDS[card] | {"data.root": str(root)})


def check_same(dataset: Dataset, expected: Dataset) -> None:
    """Raise unless two datasets have the same clips, labels and views."""
    rows, others = (data.table[COLUMNS].astype(str) for data in (dataset, expected))
    if not rows.equals(others):
        raise SilentError("another table")
    if dataset.class_names != expected.class_names:
        raise SilentError(f"the classes {dataset.class_names}")
    arrays, truth = dataset.on_host(), expected.on_host()
    arrays, truth = arrays | arrays.pop("views"), truth | truth.pop("views")
    if arrays.keys() != truth.keys():
        raise SilentError(f"the arrays {', '.join(arrays)}")
    for name, array in arrays.items():
        if array.dtype != truth[name].dtype or not np.array_equal(array, truth[name]):
            raise SilentError(f"other {name}: {array.dtype}{list(array.shape)}")


def _views(place: Path) -> dict[str, tuple[int, int]]:
    """The arrays that are kept, to tell one that was made again."""
    paths = sorted(place.glob("views/*/data.npy"))
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in paths
        if path.is_file()
    }

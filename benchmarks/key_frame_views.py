"""Clips a second of choosing key frames anew: a view made once, beside the released pattern.

    python benchmarks/key_frame_views.py --json=FILE

The released loaders read frames from disk inside the loops over candidates, each time a sample is
asked for (about R^2 + 2R + Rf + 4 reads). Here a view reads every clip once, takes all norms from
one matrix product, and keeps three frames, which later epochs map from a file. Both see the same
clips: the embedded faces as a release, 256 px crops, at lambda 0.1; the pattern has them as the
same crops in files of their own. Each has one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mexjax import machine
from mexjax.data import keyframes, records, views
from mexjax.data.manifest import read_manifest
from mexjax.data.view_frames import key_places
from mexjax.prepare.cropping import Settings
from mexjax.prepare.layouts import write_layout
from mexjax.prepare.options import Input, Options
from mexjax.prepare.pipeline import one_opencv_thread, prepare

SIZE_PX = 256
RULE = keyframes.Rule()


def reread(folder: Path, onset: int, apex: int, offset: int, rule: keyframes.Rule) -> list[int]:
    """The released pattern for one sample, which reads the frames of each candidate again."""

    def read(place: int) -> np.ndarray:
        return cv2.imread(str(folder / f"{place}.png")).astype(np.int32)

    def score(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm((a - b).ravel()))

    near = keyframes.reach(rule.lambda_rise, onset, apex)
    peak, scores = read(apex), {}
    for first in range(onset, onset + near + 1):
        image = read(first)
        scores[first, apex] = score(peak, image)
        for last in range(apex - near, apex):  # every onset reads each of them anew
            scores[first, last] = score(read(last), image)
    best = max(scores, key=scores.__getitem__)
    peak = read(best[1])
    later = keyframes.offsets(apex, offset, best[1], offset + 1, rule)
    places = [*best, max(later, key=lambda place: score(peak, read(place)))]
    for place in places:  # the sample itself is read once more
        cv2.resize(cv2.imread(str(folder / f"{place}.png")), (224, 224))
    return places


def measure(folder: Path, num_clips: int, repeats: int) -> dict[str, Any]:
    """Clips a second of the pattern, of the view's first epoch and of every later one."""
    layout = write_layout("casme2", folder / "release", num_clips=num_clips, resolution_px=SIZE_PX)
    settings = Settings(size_px=SIZE_PX, landmarks=layout.landmarks)
    source = Input("casme2", layout.root, layout.spreadsheet)
    prepare(Options((source,), folder / "prepared", settings))
    table = read_manifest(folder / "prepared" / records.MANIFEST)
    clips = []
    for row in table.to_dict("records"):
        clip = records.load_clip(folder / "prepared", row)
        clip_folder = folder / "frames" / str(len(clips))
        clip_folder.mkdir(parents=True)
        for place, frame in enumerate(clip.frames):
            cv2.imwrite(str(clip_folder / f"{place}.png"), np.ascontiguousarray(frame[..., ::-1]))
        clips.append((clip_folder, *key_places(clip)))
    samples: dict[str, list[float]] = {"pattern": [], "view_first": [], "view_later": []}
    with one_opencv_thread():
        for turn in range(repeats):
            samples["pattern"].append(_rate(num_clips, lambda: [reread(*c, RULE) for c in clips]))
            # A view of another lambda_fall is another view: nothing is kept from the last turn.
            params = {"choice": "reselected", "lambda_fall": 0.1 + 1e-9 * turn}
            for name in ("view_first", "view_later"):
                samples[name].append(
                    _rate(num_clips, lambda p=params: _read(folder / "prepared", table, p))
                )
    return {
        "clips": num_clips,
        "frames": int(table["num_stored"].sum()),
        "clips_per_s": {name: statistics.median(rates) for name, rates in samples.items()},
        "all_rates": samples,
    }


def _read(root: Path, table: pd.DataFrame, params: dict[str, Any]) -> int:
    view = views.compute_view(root, table, "key_frames", params, num_workers=1)
    return int(np.asarray(view).sum())  # touches every byte


def _rate(count: int, run: Any) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few clips, one turn")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    clips, repeats = (6, 1) if arguments.quick else (30, 5)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), clips, repeats)
    record = {
        "command": f"python {' '.join(sys.argv)}",
        "environment": machine.environment(),
        **result,
    }
    table = Table("key frames chosen anew", "clips/s", "times the released pattern")
    rates = result["clips_per_s"]
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.1f}", f"{rate / rates['pattern']:.1f}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

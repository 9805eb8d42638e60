"""Frames a second of the preparation beside a plain OpenCV loop, and its memory.

    python benchmarks/preparation.py --json=benchmarks/results/DATE-MACHINE-COMMIT-preparation.json

The embedded faces are written as a release; then `prepare` (everything: annotation, landmarks,
shards, hashes, contact sheet, manifest) and a loop of imread, warpAffine and imwrite to PNG with
the same crops take turns. Both use all cores, the loop with a thread for each. The loop also runs
on one core, since two cores of a machine seldom do twice the work of one. Rates are given by core.
Peak memory is that of the command in a process of its own, with 1 and with 4 times the clips.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from mexjax import machine
from mexjax.machine import num_cores
from mexjax.prepare.cropping import Cropper, Job, Settings
from mexjax.prepare.layouts import Layout, write_layout
from mexjax.prepare.options import Input, Options
from mexjax.prepare.pipeline import one_opencv_thread, prepare, read_inputs

SIZE_PX = 256


def options_of(name: str, layout: Layout, out: Path) -> Options:
    """The options with which the release is prepared here."""
    settings = Settings(size_px=SIZE_PX, landmarks=layout.landmarks)
    return Options((Input(name, layout.root, layout.spreadsheet),), out, settings)


def time_preparation(options: Options) -> tuple[float, int]:
    """Seconds and frames of preparing a release into a new folder."""
    start = time.perf_counter()
    outcome = prepare(options)
    return time.perf_counter() - start, outcome.num_frames


def crops_of(options: Options) -> list[tuple[Job, np.ndarray]]:
    """Every clip with its crop f64[2, 3], so that the plain loop has nothing to look for."""
    cropper = Cropper(options.settings)
    return [
        (job, cropper.locate(job, job.frames()).matrix) for job in read_inputs(options.inputs).jobs
    ]


def time_plain_loop(
    crops: list[tuple[Job, np.ndarray]], out: Path, num_threads: int
) -> tuple[float, int]:
    """Seconds and frames of a loop that one would write without a library, one file a frame."""

    def crop_clip(number: int) -> int:
        job, matrix = crops[number]
        folder = out / str(number)
        folder.mkdir(parents=True)
        frames = job.frames()
        for frame in frames:
            image = cv2.imread(str(frame.path))
            crop = cv2.warpAffine(
                image, matrix, (SIZE_PX, SIZE_PX), borderMode=cv2.BORDER_REPLICATE
            )
            cv2.imwrite(str(folder / f"{frame.number}.png"), crop)
        return len(frames)

    start = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        count = sum(pool.map(crop_clip, range(len(crops))))
    return time.perf_counter() - start, count


# The kernel's mark counts the memory of this process alone; the figure of `getrusage` for a child
# begins at the size of the process that started it.
_CHILD = """
import re, runpy, sys
status = 0
try:
    runpy.run_module("mexjax.prepare", run_name="__main__", alter_sys=True)
except SystemExit as end:
    status = end.code
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(status)
"""


def peak_bytes(name: str, layout: Layout, out: Path) -> int:
    """Peak resident memory of the command in a process of its own (Linux)."""
    command = [sys.executable, "-c", _CHILD, f"--dataset={name}", f"--out={out}"]
    command += [f"--root={layout.root}", f"--spreadsheet={layout.spreadsheet}"]
    command += [f"--landmarks={layout.landmarks}", f"--size_px={SIZE_PX}"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=root, text=True, check=True)
    return 1024 * int(done.stdout.split()[-1])


def measure(name: str, folder: Path, *, num_clips: int, repeats: int) -> dict[str, Any]:
    """Rates and memory for the layout `name` of `num_clips` clips, and 4 times as many."""
    layout = write_layout(name, folder / "one", num_clips=num_clips, resolution_px=SIZE_PX)
    crops = crops_of(options_of(name, layout, folder / "unused"))
    samples: dict[str, list[float]] = {
        "prepare": [],
        "plain_loop": [],
        "plain_loop_on_one_core": [],
    }
    with one_opencv_thread():
        for turn in range(repeats + 1):
            out = folder / f"out{turn}"
            seconds, frames = time_preparation(options_of(name, layout, out))
            loops = {
                threads: time_plain_loop(crops, folder / f"loop{turn}_{threads}", threads)
                for threads in sorted({1, num_cores()})
            }
            if any(count != frames for _, count in loops.values()):
                raise RuntimeError(f"{frames} frames were prepared, the loops made {loops}")
            if turn:  # the first one fills the caches of the system
                samples["prepare"].append(frames / seconds / num_cores())
                samples["plain_loop"].append(frames / loops[num_cores()][0] / num_cores())
                samples["plain_loop_on_one_core"].append(frames / loops[1][0])
    layouts = {
        1: layout,
        4: write_layout(name, folder / "four", num_clips=4 * num_clips, resolution_px=SIZE_PX),
    }
    peaks = {f"{k}x": peak_bytes(name, v, folder / f"peak{k}") for k, v in layouts.items()}
    rates = {key: statistics.median(values) for key, values in samples.items()}
    return {
        "layout": name,
        "clips": num_clips,
        "frames": frames,
        "size_px": SIZE_PX,
        "cores": num_cores(),
        "frames_per_s_and_core": rates,
        "all_rates": samples,
        "ratio": rates["prepare"] / rates["plain_loop"],
        "peak_bytes": peaks,
    }


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--layout", default="casme2", help="release to imitate")
    parser.add_argument("--quick", action="store_true", help="few clips, two turns")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(
            arguments.layout,
            Path(folder),
            num_clips=8 if arguments.quick else 32,
            repeats=2 if arguments.quick else 5,
        )
    record = {
        "command": f"python {' '.join(sys.argv)}",
        "environment": machine.environment(),
        "load": os.getloadavg()[0],
        **result,
    }
    table = Table("what", "frames / s / core", title=f"{result['frames']} frames to {SIZE_PX} px")
    for name, value in result["frames_per_s_and_core"].items():
        table.add_row(name.replace("_", " "), f"{value:.0f}")
    console = Console()
    console.print(table)
    peaks = ", ".join(f"{k}: {v / 2**20:.0f} MiB" for k, v in result["peak_bytes"].items())
    console.print(f"peak resident memory by number of clips: {peaks}")
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

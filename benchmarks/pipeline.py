"""Clips a second that reach a training step: resident on the device, and streamed to it.

    python benchmarks/pipeline.py --json=benchmarks/results/DATE-MACHINE-COMMIT-pipeline.json

`resident` gathers batches out of the dataset on the device, as runs do; `streamed` reads them with
grain on the host and copies each to the device. Both end with normalised, augmented batches there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from mexjax import load_config, machine
from mexjax.cpu.heap import heap_for_training, run_in_calling_thread
from mexjax.train import augment
from mexjax.train.study import load_dataset


def rate(step: Callable[[int], Any], batch: int, seconds: float) -> float:
    """Clips a second of `step(i)`, which gives a batch on the device."""
    jax.block_until_ready(step(0))
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        jax.block_until_ready(step(count))
        count += 1
    return count * batch / (time.perf_counter() - start)


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--card", default="configs/fdp.py")
    parser.add_argument("--quick", action="store_true", help="a second each")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    run_in_calling_thread()
    with heap_for_training() as heap:
        heap.keep_freed_memory()
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Runs the measurements of the command line, and prints and records them."""
    seconds = 1.0 if arguments.quick else 10.0
    config = load_config(arguments.card)
    start = time.perf_counter()
    dataset = load_dataset(config)
    load_s = time.perf_counter() - start
    batch, num_clips = config.train.batch_size, len(dataset.clips)
    start = time.perf_counter()
    resident = jax.block_until_ready(jax.device_put(dataset.clips))
    put_s = time.perf_counter() - start
    order = np.random.default_rng(0).integers(0, num_clips, (64, batch)).astype(np.int32)
    order = jax.device_put(order)

    def prepare(frames: jax.Array, key: jax.Array) -> jax.Array:
        frames = augment.augment(frames.astype(jnp.float32) / 255.0, key, config.augment)
        return augment.normalise(frames, config.data.center)

    @jax.jit
    def from_resident(i: jax.Array) -> jax.Array:
        return prepare(resident[order[i % 64]], jax.random.key(i))

    prepare_jit = jax.jit(prepare)
    stream = iter(
        grain.MapDataset.source(dataset.clips)
        .shuffle(seed=0)
        .repeat()
        .batch(batch)
        .to_iter_dataset()
    )
    rates = {
        "resident": rate(lambda i: from_resident(jnp.int32(i)), batch, seconds),
        "streamed": rate(
            lambda i: prepare_jit(jax.device_put(next(stream)), jax.random.key(i)), batch, seconds
        ),
    }
    record = {
        "command": f"python {' '.join(sys.argv)}",
        "environment": machine.environment(),
        "load": os.getloadavg()[0],
        "clip": list(dataset.clips.shape[1:]),
        "batch": batch,
        "load_s": load_s,
        "load_clips_per_s": num_clips / load_s,
        "device_put_s": put_s,
        "clips_per_s": rates,
    }
    table = Table("from", "clips / s", title=f"batches of {batch} clips {record['clip']}")
    table.add_row("nothing: the embedded dataset is made", f"{record['load_clips_per_s']:.0f}")
    for name, value in rates.items():
        table.add_row(name, f"{value:.0f}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

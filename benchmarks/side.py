"""One side of `step_time.py`, in a process of its own: prints one JSON line.

    python benchmarks/side.py torch --card=configs/fdp.py:official --batch=8 --steps=6

A process for each side, so that neither library's threads, memory or caches are in the other's way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax import load_config, perf, plan, runtime
from mexjax.study import compile_group, make_study


def timed(step: Callable[[], Any], num_steps: int) -> dict[str, Any]:
    """Seconds of each of `num_steps` calls after two untimed ones."""
    for _ in range(2):
        step()
    seconds = []
    for _ in range(num_steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"median_s": statistics.median(seconds), "steps_s": seconds}


def run_jax(config: ConfigDict, num_folds: int, num_steps: int) -> dict[str, Any]:
    """The training program of a group of folds, as a run uses it."""
    study = make_study(config)
    data = {"clips": study.dataset.clips, "labels": study.dataset.labels}
    start = time.perf_counter()
    compiled = compile_group(study, data, num_folds)
    compile_s = time.perf_counter() - start
    before = perf.peak_bytes()
    own = plan.pad_folds(plan.take_folds(study.plan, slice(0, num_folds)), num_folds)
    own, data = jax.device_put((own, data))
    carry = compiled.init(own, data)

    def step() -> None:
        nonlocal carry
        carry = jax.block_until_ready(compiled.train(carry, own, data))

    times = timed(step, num_steps)
    per_call = study.schedule.steps_per_call
    return {
        **{k: v / per_call if k == "median_s" else v for k, v in times.items()},
        "steps_per_call": per_call,
        "compile_s": compile_s,
        "peak_bytes": perf.peak_bytes(),
        "peak_bytes_before_training": before,
        "program": perf.cost(compiled.train),
        "version": jax.__version__,
    }


def run_torch(config: ConfigDict, num_steps: int, layout: str) -> dict[str, Any]:
    """The same step in PyTorch: gather, augment, normalise, forward, backward, update."""
    import torch
    from torch_peer.training import Side

    study = make_study(config)
    torch_side = Side(study, layout)
    torch_side.start_fold(0)
    batches = torch.from_numpy(study.plan.idx[0].astype(np.int64)).to(torch_side.device)
    before, count = perf.peak_bytes(), 0
    is_gpu = torch_side.device == "cuda"

    def step() -> None:
        nonlocal count
        torch_side.update(batches[count % len(batches)], config.train.learning_rate)
        count += 1
        if is_gpu:
            torch.cuda.synchronize()

    return {
        **timed(step, num_steps),
        "layout": layout,
        "peak_bytes": torch.cuda.max_memory_allocated() if is_gpu else perf.peak_bytes(),
        "peak_bytes_before_training": before,
        "version": torch.__version__,
        "num_params": sum(p.numel() for p in torch_side.model.parameters()),
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("side", choices=("jax", "torch"))
    parser.add_argument("--card", required=True)
    parser.add_argument("--batch", type=int, default=0, help="0: the card's")
    parser.add_argument("--folds", type=int, default=1, help="folds in one program (jax)")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--layout", default="contiguous", choices=("contiguous", "channels_last"))
    parser.add_argument("--set", nargs="*", default=[], help="overrides, key=value")
    arguments = parser.parse_args()
    runtime.keep_freed_memory()
    overrides = [*arguments.set, "has_progress=False", f"folds.per_chunk={arguments.folds}"]
    if arguments.batch:
        overrides.append(f"train.batch_size={arguments.batch}")
    config = load_config(arguments.card, overrides)
    if arguments.side == "jax":
        result = run_jax(config, arguments.folds, arguments.steps)
    else:
        result = run_torch(config, arguments.steps, arguments.layout)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

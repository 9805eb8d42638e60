"""Runs one side of `step_time.py`, in a process of its own, and prints one JSON line.

    python benchmarks/step_process.py torch --card=configs/fdp.py:official --batch=8 --steps=6

Each side has a process, so that threads, memory and caches of one library do not hinder the other.
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

from mexjax import load_config
from mexjax.cpu.heap import Heap, heap_for_training, run_in_calling_thread
from mexjax.train import cost, plan
from mexjax.train.programs import compile_programs, device_data
from mexjax.train.study import make_study


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


def run_jax(config: ConfigDict, num_folds: int, num_steps: int, heap: Heap) -> dict[str, Any]:
    """Times the programs of a group of folds, as a run uses them."""
    study = make_study(config)
    data = device_data(study)
    start = time.perf_counter()
    compiled = compile_programs(study, data, per_device=num_folds)
    compile_s = time.perf_counter() - start
    if num_steps == 0:
        return {"compile_s": compile_s}
    kept_heap = heap.keep_freed_memory()
    before = cost.peak_bytes()
    folds = plan.pad_folds(plan.take_folds(study.plan, slice(0, num_folds)), num_folds)
    folds, data = jax.device_put((folds, data))
    carry = jax.block_until_ready(compiled.init(folds, data))
    has_room = kept_heap.reserve_hole(cost.temporary_bytes(compiled.train))

    def step() -> None:
        nonlocal carry
        carry = jax.block_until_ready(compiled.train(carry, folds, data))

    times = timed(step, num_steps)
    peak = cost.peak_bytes()
    batch = jax.device_put(np.int32(0))
    inference = timed(
        lambda: jax.block_until_ready(compiled.evaluate(carry.states, batch, folds, data)),
        num_steps,
    )
    per_call = study.schedule.steps_per_call
    return {
        **{k: v / per_call if k == "median_s" else v for k, v in times.items()},
        "inference_s": inference["median_s"],
        "steps_per_call": per_call,
        "compile_s": compile_s,
        "peak_bytes": peak,
        "peak_bytes_before_training": before,
        "has_room": has_room,
        "program": cost.cost(compiled.train),
        "version": jax.__version__,
    }


def run_torch(config: ConfigDict, arguments: argparse.Namespace, heap: Heap) -> dict[str, Any]:
    """Times the same in PyTorch: gather, augment, normalise, forward, backward, update."""
    import torch
    from torch_peer import ac4au, folds, micro_au_clip, peers, training

    sides = {name: training.Side for name in peers.PEERS}
    sides |= {"ac4au": ac4au.Side, "micro_au_clip": micro_au_clip.Side}
    if config.model.name not in sides:
        raise SystemExit(f"There is no PyTorch peer of {config.model.name}; of {', '.join(sides)}.")
    study = make_study(config)
    if arguments.folds > 1:
        peer = folds.FoldSide(study, arguments.layout, arguments.folds)
        peer.start()
        idx = study.plan.idx[: arguments.folds].swapaxes(0, 1)  # [S,F,B]
    else:
        side = sides[config.model.name]
        peer = side(study, arguments.layout, path=arguments.peer_path)
        peer.start_fold(0)
        idx = study.plan.idx[0]
        if arguments.compiled == "yes":
            peer.model = torch.compile(peer.model)
    batches = torch.from_numpy(idx.astype(np.int64)).to(peer.device)
    heap.keep_freed_memory()
    before, count = cost.peak_bytes(), 0
    is_gpu = peer.device == "cuda"

    def step() -> None:
        nonlocal count
        with torch.autocast(peer.device, torch.bfloat16, enabled=arguments.autocast == "yes"):
            peer.update(batches[count % len(batches)], config.train.learning_rate)
        count += 1
        if is_gpu:
            torch.cuda.synchronize()

    result = {
        **timed(step, arguments.steps),
        "layout": arguments.layout,
        "peak_bytes": torch.cuda.max_memory_allocated() if is_gpu else cost.peak_bytes(),
        "peak_bytes_before_training": before,
        "version": torch.__version__,
        "num_params": sum(p.numel() for p in peer.model.parameters()),
    }
    if arguments.folds == 1:
        result["inference_s"] = timed(lambda: peer.predict(batches[0]), arguments.steps)["median_s"]
    return result


def main() -> None:
    """Runs the side that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("side", choices=("jax", "torch"))
    parser.add_argument("--card", required=True)
    parser.add_argument("--batch", type=int, default=0, help="0: the card's")
    parser.add_argument("--folds", type=int, default=1, help="folds in one program")
    parser.add_argument("--steps", type=int, default=5, help="0: compile only (jax)")
    parser.add_argument("--layout", default="contiguous", choices=("contiguous", "channels_last"))
    parser.add_argument("--compiled", default="no", choices=("no", "yes"), help="torch.compile")
    parser.add_argument("--autocast", default="no", choices=("no", "yes"), help="torch in bfloat16")
    parser.add_argument("--peer-path", default="", help="a checkout of the released code")
    parser.add_argument("--set", nargs="*", default=[], help="overrides, key=value")
    arguments = parser.parse_args()
    run_in_calling_thread()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    overrides = [*arguments.set, "has_progress=False", f"folds.per_chunk={arguments.folds}"]
    overrides.append("eval.is_flip_averaged=False")
    if arguments.batch:
        overrides.append(f"train.batch_size={arguments.batch}")
    config = load_config(arguments.card, overrides)
    config.eval.batch_size = config.train.batch_size  # inference is timed on as many clips
    with heap_for_training() as heap:
        if arguments.side == "jax":
            result = run_jax(config, arguments.folds, arguments.steps, heap)
        else:
            result = run_torch(config, arguments, heap)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

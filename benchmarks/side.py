"""One side of `step_time.py`, in a process of its own: prints one JSON line.

    python benchmarks/side.py torch --card=configs/fdp.py:official --batch=8 --steps=6

A process for each side, so that neither library's threads, memory or caches are in the other's way.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax import load_config, perf, plan, runtime
from mexjax.models.fdp_presets import resolve
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


def prepare_torch(config: ConfigDict) -> str:
    """Threads and precision as on the other side; returns the device.

    Raises:
      SystemExit: the card asks for what the peer does not do.
    """
    import torch

    if config.dtype != "float32" or config.data.split_scale != "none" or config.data.is_color:
        raise SystemExit(
            "The PyTorch side computes in float32 on gray clips without data.split_scale; change"
            f" the card's dtype={config.dtype}, data.split_scale={config.data.split_scale},"
            f" data.is_color={config.data.is_color}."
        )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # JAX rounds float32 products to TF32 on a GPU unless told otherwise: the same here.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def run_torch(config: ConfigDict, num_steps: int, layout: str) -> dict[str, Any]:
    """The same step in PyTorch: gather, augment, normalise, forward, backward, update."""
    import torch
    from torch_peer import fdp

    device = prepare_torch(config)
    study = make_study(config)
    clips = torch.from_numpy(np.moveaxis(study.dataset.clips, -1, 2).copy()).to(device)
    labels = torch.from_numpy(study.dataset.labels.astype(np.int64)).to(device)
    c = resolve(config.model)
    size = config.augment.crop_px or config.data.image_size_px
    model = fdp.FDP(c, num_classes=len(study.dataset.class_names), image_size=size).to(device)
    fdp.use_layout(model, layout)
    model.train()
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kinds[config.train.optimizer](
        model.parameters(),
        lr=config.train.learning_rate,
        weight_decay=config.train.weight_decay,
        fused=True,
    )
    rng = np.random.default_rng(0)
    batches = torch.from_numpy(study.plan.idx[0].astype(np.int64)).to(device)
    before, count = perf.peak_bytes(), 0

    def step() -> None:
        nonlocal count
        idx = batches[count % len(batches)]
        count += 1
        frames = augment(clips[idx].float() / 255.0, config, rng)
        target = fdp.dynamic_image(frames[:, :, 0], c["map_size_px"], quantize=c["quantize_target"])
        outputs = model(normalise(frames, config.data.center))
        loss = fdp.loss(outputs, target, labels[idx], c)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    times = timed(step, num_steps)
    is_gpu = device == "cuda"
    return {
        **times,
        "layout": layout,
        "peak_bytes": torch.cuda.max_memory_allocated() if is_gpu else perf.peak_bytes(),
        "peak_bytes_before_training": before,
        "version": torch.__version__,
        "num_params": sum(p.numel() for p in model.parameters()),
    }


def augment(frames: Any, config: ConfigDict, rng: np.random.Generator) -> Any:
    """Crop or shift, and flip, each clip f32[B,T,C,H,W] by its own draw."""
    import torch
    from torch.nn import functional

    shift, crop = config.augment.shift_px, config.augment.crop_px
    if not (shift or crop or config.augment.is_flipped):
        return frames
    b, t, c, h, w = frames.shape
    if shift:
        padded = functional.pad(frames.reshape(b, t * c, h, w), (shift,) * 4, mode="replicate")
        frames = padded.reshape(b, t, c, h + 2 * shift, w + 2 * shift)
    size = crop or h
    y, x = rng.integers(0, frames.shape[-1] - size + 1, (2, b, 1))
    rows, columns = y + np.arange(size), x + np.arange(size)
    if config.augment.is_flipped:
        columns = np.where(rng.random((b, 1)) < 0.5, columns[:, ::-1], columns)
    clip, rows, columns = (
        torch.from_numpy(np.ascontiguousarray(index)).to(frames.device)
        for index in (np.arange(b)[:, None, None], rows[:, :, None], columns[:, None])
    )
    return frames[clip, :, :, rows, columns].permute(0, 3, 4, 1, 2)


def normalise(frames: Any, center: str) -> Any:
    """As `mexjax.data.augment.normalise`, on f32[B,T,C,H,W]."""
    if center == "none":
        return (frames - 0.5) / 0.5
    moved = frames - (frames[:, :1] if center == "onset" else frames.mean(1, keepdim=True))
    deviation = moved.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
    return moved / deviation.clamp_min(1.0 / 255.0)


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

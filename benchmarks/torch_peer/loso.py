"""The demo's study as a PyTorch script does it: one fold after another. Prints one JSON line.

Started by `benchmarks/loso.py`.

Same clips, folds, batches, schedule, augmentation and number of updates as the card; the held-out
clips are predicted after the last epoch, each with its mirror image.
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from side import augment, normalise, prepare_torch

from mexjax import load_config, metrics, runtime
from mexjax.models.fdp_presets import resolve
from mexjax.optim import make_rate
from mexjax.study import make_study
from torch_peer import fdp


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--card", default="configs/fdp.py")
    parser.add_argument("--layout", default="contiguous", choices=("contiguous", "channels_last"))
    parser.add_argument("--set", nargs="*", default=[], help="overrides, key=value")
    arguments = parser.parse_args()
    start = time.perf_counter()
    runtime.keep_freed_memory()
    config = load_config(arguments.card, [*arguments.set, "has_progress=False"])
    device = prepare_torch(config)
    if config.augment.crop_px or not config.eval.is_flip_averaged:
        raise SystemExit("The PyTorch side does not crop and averages over the mirror image.")
    study = make_study(config)
    clips = torch.from_numpy(np.moveaxis(study.dataset.clips, -1, 2).copy()).to(device)
    labels = torch.from_numpy(study.dataset.labels.astype(np.int64)).to(device)
    c = resolve(config.model)
    num_classes = len(study.dataset.class_names)
    size = config.augment.crop_px or config.data.image_size_px
    rates_of = jax.jit(jax.vmap(make_rate(config.train), in_axes=(0, None, None)))
    predicted = np.full(len(labels), -1)
    train_s, num_updates = 0.0, 0
    for number, fold in enumerate(study.folds):
        torch.manual_seed(number)
        rng = np.random.default_rng(number)
        model = fdp.FDP(c, num_classes=num_classes, image_size=size)
        model = model.to(device).train()
        fdp.use_layout(model, arguments.layout)
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        optimizer = kinds[config.train.optimizer](
            model.parameters(), weight_decay=config.train.weight_decay, fused=True
        )
        total = int(study.plan.total_steps[number])
        epoch = int(study.plan.epoch_steps[number])
        rates = np.broadcast_to(np.asarray(rates_of(jnp.arange(total), total, epoch)), (total,))
        began = time.perf_counter()
        valid = np.flatnonzero(study.plan.valid[number])
        for update, step in enumerate(valid):
            is_real = study.plan.weight[number, step] > 0
            idx = torch.from_numpy(study.plan.idx[number, step][is_real].astype(np.int64))
            frames = augment(clips[idx.to(device)].float() / 255.0, config, rng)
            target = fdp.dynamic_image(
                frames[:, :, 0], c["map_size_px"], quantize=c["quantize_target"]
            )
            outputs = model(normalise(frames, config.data.center))
            loss = fdp.loss(outputs, target, labels[idx], c)
            for group in optimizer.param_groups:
                group["lr"] = float(rates[update])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        num_updates += len(valid)
        train_s += time.perf_counter() - began
        model.eval()
        with torch.inference_mode():
            test = torch.from_numpy(np.asarray(fold.test, np.int64)).to(device)
            frames = clips[test].float() / 255.0
            logits = sum(
                model(normalise(f, config.data.center))["logits"] for f in (frames, frames.flip(-1))
            )
            predicted[fold.test] = logits.argmax(1).cpu().numpy()
    tested = predicted >= 0
    matrix = metrics.confusion_matrix(study.dataset.labels[tested], predicted[tested], num_classes)
    print(
        json.dumps(
            {
                "total_s": time.perf_counter() - start,
                "train_s": train_s,
                "num_updates": num_updates,
                "uf1": float(metrics.scores(matrix)["uf1"]),
                "version": torch.__version__,
                "layout": arguments.layout,
            }
        )
    )


if __name__ == "__main__":
    main()

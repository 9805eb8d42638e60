"""The demo's study as a PyTorch script does it, one fold after another; prints one JSON line.

`benchmarks/study_time.py` starts it. Clips, folds, batches, schedule, augmentation and number of
updates are those of the card; the held-out clips are predicted after the last epoch, each with its
mirror image.
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from mexjax import load_config
from mexjax.cpu.heap import heap_for_training, run_in_calling_thread
from mexjax.protocol import metrics
from mexjax.train.optim import make_rate
from mexjax.train.study import make_study
from torch_peer.training import Side


def main() -> None:
    """Runs the study of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--card", default="configs/fdp.py")
    parser.add_argument("--layout", default="contiguous", choices=("contiguous", "channels_last"))
    parser.add_argument("--set", nargs="*", default=[], help="overrides, key=value")
    arguments = parser.parse_args()
    run_in_calling_thread()
    with heap_for_training() as heap:
        heap.keep_freed_memory()
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Trains and predicts every fold, and prints the record."""
    start, cpu_start = time.perf_counter(), time.process_time()
    config = load_config(arguments.card, [*arguments.set, "has_progress=False"])
    if config.augment.crop_px or not config.eval.is_flip_averaged:
        raise SystemExit("The PyTorch side does not crop and averages over the mirror image.")
    study = make_study(config)
    side = Side(study, arguments.layout)
    rates_of = jax.jit(jax.vmap(make_rate(config.train), in_axes=(0, None, None)))
    predicted = np.full(len(study.dataset.labels), -1)
    train_s, train_cpu_s, num_updates = 0.0, 0.0, 0
    for number, fold in enumerate(study.folds):
        side.start_fold(number)
        total = int(study.plan.total_steps[number])
        epoch = int(study.plan.epoch_steps[number])
        rates = np.broadcast_to(np.asarray(rates_of(jnp.arange(total), total, epoch)), (total,))
        began, cpu_began = time.perf_counter(), time.process_time()
        valid = np.flatnonzero(study.plan.valid[number])
        for update, step in enumerate(valid):
            is_real = study.plan.weight[number, step] > 0
            idx = torch.from_numpy(study.plan.idx[number, step][is_real].astype(np.int64))
            side.update(idx.to(side.device), float(rates[update]))
        num_updates += len(valid)
        train_s += time.perf_counter() - began
        train_cpu_s += time.process_time() - cpu_began
        test = torch.from_numpy(np.asarray(fold.test, np.int64)).to(side.device)
        predicted[fold.test] = side.predict(test)
    tested = predicted >= 0
    matrix = metrics.confusion_matrix(
        study.dataset.labels[tested], predicted[tested], side.num_classes
    )
    print(
        json.dumps(
            {
                "total_s": time.perf_counter() - start,
                "total_cpu_s": time.process_time() - cpu_start,
                "train_s": train_s,
                "train_cpu_s": train_cpu_s,
                "num_updates": num_updates,
                "uf1": float(metrics.scores(matrix)["uf1"]),
                "version": torch.__version__,
                "layout": arguments.layout,
            }
        )
    )


if __name__ == "__main__":
    main()

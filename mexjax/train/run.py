"""`run`: a configuration and a folder become a finished study. Orchestration only."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax.config import check_values
from mexjax.cpu.heap import Heap, KeptHeap, heap_for_training
from mexjax.errors import OutOfMemoryError
from mexjax.models import get_model
from mexjax.ops import conv
from mexjax.progress import TrainProgress
from mexjax.report.write import write_report
from mexjax.train import cost, fold_axis, plan
from mexjax.train.checkpoint import GroupCheckpoints
from mexjax.train.group import Compiled, GroupTrainer
from mexjax.train.record import has_record, read_rows, write_record
from mexjax.train.step import Arrays
from mexjax.train.stop import StopRequest, stop_on_signals
from mexjax.train.study import Study, clip_flops, compile_group, device_data, make_study
from mexjax.train.workdir import Workdir

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What `run` returns.

    Attributes:
      results: the content of `results.json`.
      predictions: the content of `predictions.csv`, one row a held-out clip.
      workdir: where everything was written.
      was_finished: True if the run had been finished before and only its report was rebuilt.
    """

    results: dict[str, Any]
    predictions: pd.DataFrame
    workdir: Path
    was_finished: bool


def run(config: ConfigDict, workdir: str | Path, *, overwrite: bool = False) -> RunResult:
    """Train and evaluate every fold of a protocol, and report.

    Starting it again with the same configuration and folder resumes; a finished run is not
    trained again, its report is rebuilt.

    Args:
      config: from `load_config`.
      workdir: folder of the run; made if absent.
      overwrite: delete what an earlier run left there.

    Returns:
      Results and predictions, also written to the folder (docs/results_format.md).

    Raises:
      MexjaxError: see `mexjax.errors`; each message says what to do.
    """
    start = time.perf_counter()
    check_values(config)
    folder = Workdir.open(workdir, config, is_overwritten=overwrite)
    with (
        stop_on_signals() as stop,
        heap_for_training(config.cpu_heap) as heap,
        conv.use_lowering(config.conv),
    ):
        was_finished = has_record(folder)
        if not was_finished:
            study = make_study(config)
            rows, timing = read_rows(study.fold_ids, folder), {"compile_s": 0.0}
            if rows is None:
                with _memory_errors_explained(config):
                    timing = _train_groups(study, folder, heap, stop)
                rows = read_rows(study.fold_ids, folder)
            timing["total_s"] = time.perf_counter() - start
            write_record(study, folder, rows, timing)
    results = write_report(folder.path)
    predictions = pd.read_csv(folder.path / "predictions.csv")
    return RunResult(results, predictions, folder.path, was_finished)


@contextlib.contextmanager
def _memory_errors_explained(config: ConfigDict) -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemoryError(
            f"The device has too little memory for this run ({str(error).splitlines()[0][:200]})."
            f" Lower folds.per_chunk (now {config.folds.per_chunk}, 0 means chosen from memory) or"
            f" train.batch_size (now {config.train.batch_size}), or set train.is_remat=true;"
            " finished folds are kept."
        ) from error


def _train_groups(study: Study, folder: Workdir, heap: Heap, stop: StopRequest) -> dict[str, Any]:
    config, strategy = study.config, study.config.folds.strategy
    devices = fold_axis.num_devices(strategy)
    total = int(study.plan.valid.sum())
    with (
        cost.CompileCounter() as counter,
        TrainProgress(total, is_shown=config.has_progress) as progress,
    ):
        progress.say("compiling")
        compile_start = time.perf_counter()
        host = device_data(study)
        size, compiled = cost.choose_group(
            len(study.fold_ids),
            devices,
            folder.group_size(devices) or config.folds.per_chunk,
            is_single=strategy == "loop",
            build=lambda per_device: compile_group(study, host, per_device),
            train_program=lambda built: built.train,
        )
        # A resumed run must cut its folds into the same groups, however much memory is free then.
        folder.save_group_size(size.per_device, devices)
        kept_heap = heap.keep_freed_memory()
        timing = {"compile_s": time.perf_counter() - compile_start}
        num_compiled, width = counter.count, size.per_device * devices
        data = jax.device_put(host, compiled.programs.shared)
        progress.restart_clock()
        spent = np.zeros(3)  # seconds of training and of evaluation, clips trained on
        for index in range(math.ceil(len(study.fold_ids) / width)):
            place = index, width
            spent += _run_group(study, folder, compiled, data, place, progress, kept_heap, stop)
        late = counter.count - num_compiled
    folder.save_json(
        "perf.json",
        {
            "group": size._asdict(),
            "num_devices": devices,
            "strategy": strategy,
            "steps_per_call": study.schedule.steps_per_call,
            "num_compilations": num_compiled,
            "num_compilations_while_training": late,
            "train_program": cost.cost(compiled.train),
            "evaluate_program": cost.cost(compiled.evaluate),
            "peak_bytes": cost.peak_bytes(),
            **cost.utilisation(clip_flops(study, host), spent[2], spent[0], config.dtype, devices),
            **timing,
        },
    )
    return timing


def _run_group(
    study: Study,
    folder: Workdir,
    compiled: Compiled,
    data: Arrays,
    place: tuple[int, int],
    progress: TrainProgress,
    heap: KeptHeap,
    stop: StopRequest,
) -> np.ndarray:
    """Train group `index` of `width` folds unless it is recorded, and record it.

    Returns:
      f64[3], seconds of training and of evaluation, and clips trained on; zeros if recorded.
    """
    index, width = place
    rows = slice(index * width, (index + 1) * width)
    own = plan.take_folds(study.plan, rows)
    if folder.load_group(index) is not None:
        progress.skip(int(own.valid.sum()))
        return np.zeros(3)
    names = [fold.name for fold in study.folds[rows]]
    checkpoints = GroupCheckpoints(folder.checkpoint_folder(index))
    try:
        trainer = GroupTrainer(
            compiled,
            plan.pad_folds(own, width),
            data,
            study.schedule,
            names,
            checkpoints,
            progress,
            stop,
            heap,
        )
        finished = trainer.run()
    finally:
        checkpoints.close()
    spent = finished.pop("seconds")
    seconds = np.tile(spent / len(names), (len(names), 1))
    recorded = {name: array[: len(names)] for name, array in finished.items()}
    curves = recorded.pop("curves")
    for i, name in enumerate(compiled.programs.log_names):
        recorded[f"curve_{name}"] = curves[..., i]
    unused = getattr(get_model(study.config.model.name), "TRAINING_ONLY", ())
    params = compiled.carry_shape.states.params
    params = {name: part for name, part in params.items() if name not in unused}
    num_params = count_params(params) // width + count_params(
        data.get("frozen", {}).get("kept", {})
    )
    recorded["num_params"] = np.full(len(names), num_params)
    recorded |= {"fold_id": own.fold_id, "seconds": seconds}
    folder.save_arrays(folder.group_file(index), recorded)
    checkpoints.remove()
    return spent


def count_params(params: Any) -> int:
    """Number of scalars in a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))

"""`run`: a configuration and a folder become a finished study. Orchestration only."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax import folds as fold_axis
from mexjax import perf, plan, protocols, runtime
from mexjax.checkpoint import GroupCheckpoints
from mexjax.configuration import check_values
from mexjax.data import arrays
from mexjax.errors import ConfigError, unknown_name
from mexjax.group import Compiled, GroupTrainer, Schedule
from mexjax.models import get_model
from mexjax.ops import conv
from mexjax.optim import make_optimizer
from mexjax.progress import TrainProgress
from mexjax.protocols import Fold
from mexjax.record import has_record, read_rows, write_record
from mexjax.report import report
from mexjax.step import Arrays, FoldPlan, make_fold_functions
from mexjax.workdir import Workdir

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


@dataclasses.dataclass(frozen=True)
class Study:
    """The parts of one run: data, folds, plan and when things happen."""

    config: ConfigDict
    dataset: arrays.Dataset
    all_folds: list[Fold]
    fold_ids: list[int]
    plan: FoldPlan
    schedule: Schedule

    @property
    def folds(self) -> list[Fold]:
        """The folds this run trains."""
        return [self.all_folds[i] for i in self.fold_ids]


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
    with runtime.stop_on_signals() as stop, conv.use_lowering(config.conv):
        was_finished = has_record(folder)
        if not was_finished:
            study = make_study(config)
            rows, timing = read_rows(study.fold_ids, folder), {"compile_s": 0.0}
            if rows is None:
                timing = _train_groups(study, folder, stop)
                rows = read_rows(study.fold_ids, folder)
            timing["total_s"] = time.perf_counter() - start
            write_record(study, folder, rows, timing)
    results = report(folder.path)
    predictions = pd.read_csv(folder.path / "predictions.csv")
    return RunResult(results, predictions, folder.path, was_finished)


def make_study(config: ConfigDict) -> Study:
    """Load the data and lay out folds and batches; nothing is compiled."""
    dataset = arrays.load(config)
    all_folds = protocols.make_folds(
        dataset.table, dataset.labels, config.protocol, seed=config.seed
    )
    fold_ids = _select(all_folds, config.folds.only)
    chosen = [all_folds[i] for i in fold_ids]
    schedule = Schedule(
        num_epochs=plan.num_epochs(chosen, config),
        epoch_steps=plan.steps_per_epoch(chosen, config),
        steps_per_call=_steps_per_call(config, plan.steps_per_epoch(chosen, config)),
        eval_every=config.eval.every_epochs,
        checkpoint_every=config.checkpoint.every_epochs,
    )
    # Longest folds first: groups of like folds have the fewest steps to sit out.
    fold_ids = sorted(fold_ids, key=lambda i: (-len(all_folds[i].train), i))
    chosen = [all_folds[i] for i in fold_ids]
    layout = plan.make_plan(chosen, fold_ids, dataset.clips, config)
    return Study(config, dataset, all_folds, fold_ids, layout, schedule)


def compile_group(study: Study, data: Arrays, per_device: int) -> Compiled:
    """Compile the programs of one group shape."""
    config = study.config
    paper = get_model(config.model.name)
    model = dict(config.model.items()) | {"dtype": config.dtype}
    module = paper.make(model, num_classes=len(study.dataset.class_names))
    strategy = config.folds.strategy
    size = per_device * fold_axis.num_devices(strategy)
    first = plan.pad_folds(plan.take_folds(study.plan, slice(0, size)), size)
    has_invalid = not study.plan.valid.all() or len(study.fold_ids) % size > 0
    functions = make_fold_functions(
        config, module, paper, make_optimizer(config.train), has_invalid_steps=has_invalid
    )
    shape = jax.eval_shape(lambda x: x, (first, data))
    programs = fold_axis.make_programs(
        functions,
        strategy,
        example=shape,
        epoch_steps=study.schedule.epoch_steps,
        steps_per_call=study.schedule.steps_per_call,
    )
    folds, arrays_shape = shape
    batch = jax.ShapeDtypeStruct((), np.int32)
    carry = jax.eval_shape(programs.init, folds.fold_id, arrays_shape)
    evaluate = programs.evaluate.lower(carry.states, batch, folds, arrays_shape)
    return Compiled(
        programs=programs,
        init=programs.init.lower(folds.fold_id, arrays_shape).compile(),
        train=programs.train.lower(carry, folds, arrays_shape).compile(),
        evaluate=evaluate.compile(),
        carry_shape=carry,
        eval_shape=dict(evaluate.out_info),
    )


def _train_groups(study: Study, folder: Workdir, stop: runtime.StopRequest) -> dict[str, Any]:
    config, strategy = study.config, study.config.folds.strategy
    devices = fold_axis.num_devices(strategy)
    host = {"clips": study.dataset.clips, "labels": study.dataset.labels}
    total = int(study.plan.valid.sum())
    with (
        perf.CompileCounter() as counter,
        TrainProgress(total, is_shown=config.has_progress) as progress,
    ):
        progress.say("compiling")
        compile_start = time.perf_counter()
        size, compiled = perf.choose_group(
            len(study.fold_ids),
            devices,
            folder.group_size(devices) or config.folds.per_chunk,
            is_single=strategy == "loop",
            build=lambda per_device: compile_group(study, host, per_device),
            train_program=lambda built: built.train,
        )
        # A resumed run must cut its folds into the same groups, however much memory is free then.
        folder.save_group_size(size.per_device, devices)
        timing = {"compile_s": time.perf_counter() - compile_start}
        num_compiled, width = counter.count, size.per_device * devices
        data = jax.device_put(host, compiled.programs.shared)
        for index in range(math.ceil(len(study.fold_ids) / width)):
            _run_group(study, folder, compiled, data, (index, width), progress, stop)
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
            "train_program": perf.cost(compiled.train),
            "evaluate_program": perf.cost(compiled.evaluate),
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
    stop: runtime.StopRequest,
) -> None:
    """Train group `index` of `width` folds unless it is recorded, and record it."""
    index, width = place
    rows = slice(index * width, (index + 1) * width)
    own = plan.take_folds(study.plan, rows)
    if folder.load_group(index) is not None:
        progress.skip(int(own.valid.sum()))
        return
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
        )
        finished = trainer.run()
    finally:
        checkpoints.close()
    seconds = np.tile(finished.pop("seconds") / len(names), (len(names), 1))
    recorded = {name: array[: len(names)] for name, array in finished.items()}
    curves = recorded.pop("curves")
    for i, name in enumerate(compiled.programs.log_names):
        recorded[f"curve_{name}"] = curves[..., i]
    params = compiled.carry_shape.states.params
    recorded["num_params"] = np.full(len(names), count_params(params) // width)
    recorded |= {"fold_id": own.fold_id, "seconds": seconds}
    folder.save_arrays(folder.group_file(index), recorded)
    checkpoints.remove()


def count_params(params: Any) -> int:
    """Number of scalars in a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _select(folds: Sequence[Fold], only: Sequence[str]) -> list[int]:
    names = [fold.name for fold in folds]
    for name in only:
        if name not in names:
            raise ConfigError(unknown_name("fold in folds.only", str(name), names))
    return [i for i, name in enumerate(names) if not only or name in only]


def _steps_per_call(config: ConfigDict, epoch_steps: int) -> int:
    """One step a call on the CPU, where a convolution's gradient inside a loop is many times
    slower; a whole epoch elsewhere, where every call costs a launch."""
    if config.train.steps_per_call > 0:
        return config.train.steps_per_call
    return 1 if jax.default_backend() == "cpu" else epoch_steps

"""`run`: a configuration and a folder become a finished study; other modules do the work."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax import machine, processes
from mexjax.config import check_values, has_sweep
from mexjax.cpu import is_cpu
from mexjax.errors import ConfigError, MexjaxError, WorkdirError
from mexjax.files import SEAL, digest, sealed
from mexjax.models import get_model
from mexjax.report.agreement import config_digest
from mexjax.report.files import read_run
from mexjax.report.write import write_report
from mexjax.target import current
from mexjax.train import cost
from mexjax.train.group import Session, train_group
from mexjax.train.inputs import check_finished, check_inputs, inputs_of
from mexjax.train.kept import Shelf
from mexjax.train.numerics import check_numerics, dtype_of, use_precision
from mexjax.train.programs import Compiled, clip_flops, compile_programs, device_data
from mexjax.train.record import Rows, has_record, read_rows, rows_of, save_vanished, write_record
from mexjax.train.step import Arrays
from mexjax.train.study import Study, make_study
from mexjax.train.watch import Watch, watched
from mexjax.train.workdir import Workdir

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The result of `run`.

    Attributes:
      results: the content of `results.json`.
      predictions: the content of `predictions.csv`, one row a held-out clip.
      workdir: folder of the run.
      was_finished: True if the run had been finished before and only its report was rebuilt.
    """

    results: dict[str, Any]
    predictions: pd.DataFrame
    workdir: Path
    was_finished: bool


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    overwrite: bool = False,
    kept_programs: str | Path | None = None,
) -> RunResult:
    """Trains and evaluates every fold of a protocol, and reports.

    Starting it again with the same configuration and folder resumes; a finished run is not
    trained again, its report is rebuilt.

    Args:
      config: configuration from `load_config`.
      workdir: folder of the run; made if absent; `~` at its beginning is the user's home.
      overwrite: True: files of an earlier run are deleted.
      kept_programs: folder of compiled programs that later runs may use, see `mexjax.train.kept`;
        None: none are kept.

    Returns:
      Results and predictions, also written to the folder (docs/results_format.md).

    Raises:
      MexjaxError: see `mexjax.errors`; each message says what to do.
    """
    start = time.perf_counter()
    if has_sweep(config):
        raise ConfigError("The configuration has a sweep: mexjax.run_sweep trains it.")
    check_values(config)
    machine.devices()  # refuses a platform that is not there
    check_numerics(config, current())
    get_model(config.model.name).options(config.model, dtype_of(config))  # refuses unknown ones
    processes.agree("configuration", config_digest(config.to_dict()))
    with contextlib.ExitStack() as stack:
        with processes.phase("it opened the folder of the run"):
            if processes.is_first():
                folder = stack.enter_context(
                    Workdir.open(workdir, config, is_overwritten=overwrite)
                )
            else:
                folder = Workdir.of_first_process(workdir)
        was_finished = has_record(folder)
        processes.agree("folder of the run", digest(str(was_finished)))
        if was_finished:
            with processes.phase("it read the finished run"):
                if processes.is_first():
                    check_finished(folder, config)
                    folder.save_config(config)
                    was_finished = not _mend(folder, config, start)
        else:
            _train_run(config, folder, start, kept_programs)
        with processes.phase("it wrote the report"):
            if processes.is_first():
                write_report(folder.path)
        results = json.loads((folder.path / "results.json").read_text(encoding="utf-8"))
        predictions = pd.read_csv(folder.path / "predictions.csv")
    return RunResult(results, predictions, folder.path, was_finished)


def _train_run(
    config: ConfigDict, folder: Workdir, start: float, kept_programs: str | Path | None
) -> None:
    """Train what is not recorded yet, and write the record of the run."""
    with watched(config) as watch:
        with processes.phase("it read the data and compiled"):
            study = make_study(config)  # clips, folds, network, order of samples
            inputs = _checked_inputs(folder, study)
            for notice in study.dataset.notices:
                log.warning("%s", notice)
            if processes.is_first():
                folder.save_config(config)
            records = read_rows(study.fold_ids, folder)
            if records is None:
                watch.progress.begin(int(study.plan.valid.sum()))
                watch.counter.begin()
                data = device_data(study)  # arrays that all folds share
                begun = folder.group_size(study.num_devices)
                compiled, flops = _programs(study, data, begun, kept_programs, watch)
                watch.counter.end()
                groups = len(study.fold_ids), study.num_devices, compiled.size
                watch.progress.note(cost.describe_groups(*groups))
                # A resumed run must cut its folds into the same groups, however much memory is
                # free then.
                if processes.is_first():
                    folder.save_group_size(
                        compiled.size.per_device,
                        study.num_devices,
                        config=config_digest(config.to_dict()),
                        inputs=inputs,
                    )
        processes.agree("data", inputs)
        if records is None:
            processes.agree("number of folds in a group", digest(str(compiled.num_folds)))
            with processes.phase("it trained"):
                records, spent = _train(study, folder, compiled, data, watch)
                if processes.is_first():
                    _write_costs(study, folder, compiled, (*spent, flops), watch.counter)
        with processes.phase("it wrote the record of the run"):
            if processes.is_first():
                if records is None:  # others have trained some folds
                    records = read_rows(study.fold_ids, folder)
                if records is None:
                    raise WorkdirError(
                        f"{folder.groups} lacks folds that other processes have trained: expected"
                        " one folder that all of them see, under the same name. Give a --workdir"
                        " on a file system that all nodes share."
                    )
                seconds = (watch.counter.seconds, time.perf_counter() - start)
                write_record(study, folder, records, *seconds)


def _programs(
    study: Study, data: Arrays, begun: int, folder: str | Path | None, watch: Watch
) -> tuple[Compiled, int]:
    """The programs of a group of folds, kept ones or compiled and kept, and `clip_flops`."""
    sizes = {"per_device": study.config.folds.per_chunk, "begun": begun}
    shelf = Shelf(Path(folder).expanduser() if folder else None, study, data, **sizes)
    kept = shelf.read()
    if kept is not None:
        return kept.compiled, kept.clip_flops
    with shelf.watching():
        flops = clip_flops(study, data)
        watch.progress.start_compiling(flops, is_cpu=is_cpu())
        compiled = compile_programs(study, data, **sizes)
    shelf.write(compiled, flops)
    return compiled, flops


def _checked_inputs(folder: Workdir, study: Study) -> str:
    """The digest of the data; the first process compares them with those of the folder."""
    if processes.is_first():
        return check_inputs(folder, study)
    return sealed(inputs_of(study))[SEAL]


def _mend(folder: Workdir, config: ConfigDict, start: float) -> bool:
    """Write a damaged record of a finished run anew from its groups of folds, without training.

    Returns:
      True if it was damaged.

    Raises:
      MexjaxError: it is damaged, and its groups or its data are not there any more.
    """
    try:
        read_run(folder.path)
        return False
    except MexjaxError as error:
        damage = error
    records = None
    with contextlib.suppress(MexjaxError):  # the damage says more
        study = make_study(config)
        check_inputs(folder, study)
        records = read_rows(study.fold_ids, folder)
        if records is not None:
            reason = str(damage).split(". ")[0].rstrip(".")
            log.warning("%s. The record is written anew from groups/.", reason)
            write_record(study, folder, records, 0.0, time.perf_counter() - start)
    if records is None:
        raise damage
    return True


def _train(
    study: Study, folder: Workdir, compiled: Compiled, host: Arrays, watch: Watch
) -> tuple[Rows | None, np.ndarray]:
    """Train and record every group of folds.

    Returns:
      The record of each fold, or None where other processes have trained some; and f64[3], seconds
      of training and of evaluation, and clips trained on, of this process.
    """
    step_bytes = cost.temporary_bytes(compiled.train)
    session = Session(watch.progress, watch.stop, watch.heap.keep_freed_memory(), step_bytes)
    data = jax.device_put(host, compiled.programs.shared)
    watch.progress.restart_clock()
    spent, groups = np.zeros(3), {}
    num_groups = math.ceil(len(study.fold_ids) / compiled.num_folds)
    for index in range(processes.index(), num_groups, processes.count()):
        groups[index], seconds = train_group(study, folder, compiled, data, index, session)
        spent += seconds
    save_vanished(folder, groups)
    return rows_of(study.fold_ids, groups.values()), spent


def _write_costs(
    study: Study,
    folder: Workdir,
    compiled: Compiled,
    work: tuple[float, float, float, int],
    counter: cost.CompileCounter,
) -> None:
    """Write perf.json.

    Args:
      study: the run.
      folder: of the run.
      compiled: the programs of a group.
      work: the seconds and clips that `_train` gave, and the operations of the network's forward
        pass for one clip.
      counter: of compilations.
    """
    train_s, _, num_clips, flops = work
    late = counter.count - counter.num_before_training  # the peak below is measured by a program
    config, devices = study.config, study.num_devices
    with use_precision(config):
        utilisation = cost.utilisation(flops, num_clips, train_s, dtype_of(config), devices)
    folder.save_json(
        "perf.json",
        {
            "group": {"per_device": compiled.size.per_device, "reason": compiled.size.reason},
            "num_devices": devices,
            "strategy": study.strategy,
            "steps_per_call": study.schedule.steps_per_call,
            "has_kept_programs": compiled.is_kept,
            "num_compilations": counter.num_before_training,
            "num_compilations_while_training": late,
            "compile_s": counter.seconds,
            "train_program": cost.cost(compiled.train),
            "evaluate_program": cost.cost(compiled.evaluate),
            "peak_bytes": cost.peak_bytes(),
            **utilisation,
        },
    )

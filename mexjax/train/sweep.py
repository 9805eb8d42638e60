"""`run_sweep`: several seeds and settings trained side by side, each of them a run of its own.

The folder of a sweep has `sweep.json`, the folders of its runs in `runs/`, which are what `run`
leaves for the same configuration, and the report over all of them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax.cpu import is_cpu
from mexjax.data.dataset import Dataset
from mexjax.errors import DivergedError, WorkdirError, listed, quoted
from mexjax.files import atomic, canonical, digest, read_sealed, sealed
from mexjax.lock import FolderLock
from mexjax.report.agreement import config_digest
from mexjax.report.sweep import FILE, RUNS, write_sweep_report
from mexjax.report.write import write_report
from mexjax.train import cost, trials
from mexjax.train.checkpoint import GroupCheckpoints
from mexjax.train.group import GroupTrainer, Session, record_of
from mexjax.train.inputs import check_finished, check_inputs
from mexjax.train.plan import pad_folds, take_folds
from mexjax.train.programs import (
    Compiled,
    clip_flops,
    compile_programs,
    device_data,
    num_params,
)
from mexjax.train.record import has_record, read_rows, write_record
from mexjax.train.step import Arrays
from mexjax.train.study import Schedule, Study
from mexjax.train.trials import Member, Trial
from mexjax.train.watch import Watch, watched
from mexjax.train.workdir import Workdir

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The result of `run_sweep`.

    Attributes:
      results: the content of `sweep_results.json`.
      workdir: folder of the sweep.
      num_programs: training programs that were compiled by this call.
    """

    results: dict[str, Any]
    workdir: Path
    num_programs: int


@dataclasses.dataclass
class _State:
    """The content of `sweep.json`, which is written each time something of it changes.

    Attributes:
      path: the file.
      runs: name, seed and setting of each run, and the digest of its configuration.
      sizes: trials in a group on one device, by the name of the program's first run.
      diverged: the message of each trial whose numbers were not finite, by run and fold.
    """

    path: Path
    runs: list[dict[str, Any]]
    sizes: dict[str, int]
    diverged: dict[str, dict[str, str]]

    def save(self) -> None:
        content = dataclasses.asdict(self)
        content.pop("path")
        with atomic(self.path) as file:
            json.dump(sealed({"schema": 1, **content}), file, indent=1)


def run_sweep(config: ConfigDict, workdir: str | Path, *, overwrite: bool = False) -> SweepResult:
    """Trains every fold of every run of a sweep, reports each run, and all of them together.

    Trials that differ in fold, seed and numbers of the program alone are trained by one program.
    A trial whose numbers are not finite ends alone; its run has no report. Starting it again with
    the same folder goes on; more seeds or values may be asked for then, and what is finished is
    kept.

    Args:
      config: configuration from `load_config`, with `sweep.seeds` or `sweep.values`.
      workdir: folder of the sweep; made if absent; `~` at its beginning is the user's home.
      overwrite: True: files of earlier runs of the same names are deleted.

    Raises:
      MexjaxError: see `mexjax.errors`; each message says what to do.
    """
    start = time.perf_counter()
    runs = trials.checked_members(config)
    folder = _made(Path(workdir).expanduser())
    lock = FolderLock(folder)
    try:
        if overwrite:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        state = _opened(folder, runs, is_new=overwrite)
        num_programs = 0
        datasets: dict[str, Dataset] = {}
        for program in trials.programs_of(runs):
            num_programs += _train_program(program, folder, state, datasets, overwrite, start)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        _refuse_nothing(state, runs)
        return SweepResult(write_sweep_report(folder), folder, num_programs)
    finally:
        lock.release()


def _made(folder: Path) -> Path:
    """The folder of a sweep.

    Raises:
      WorkdirError: it cannot be written, or belongs to a single run.
    """
    if "\0" in str(folder):
        raise WorkdirError(f"A folder's name cannot have a NUL in it, found {quoted(folder)}.")
    if (folder / "config.json").exists():
        raise WorkdirError(
            f"{folder} is the folder of a single run, and a sweep has a folder of its own. Choose"
            " another with --workdir."
        )
    try:
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(
            f"Cannot write to the folder {folder}: {error.strerror or error}. Choose another with"
            " --workdir."
        ) from error
    return folder


def _opened(folder: Path, runs: Sequence[Member], *, is_new: bool) -> _State:
    listed_runs = [
        {
            "name": run.name,
            "seed": run.seed,
            "setting": dict(run.setting),
            "config": config_digest(run.config.to_dict()),
        }
        for run in runs
    ]
    before = read_sealed(folder / FILE)
    if before is None and (folder / FILE).exists() and not is_new:
        log.warning("%s is damaged: it is written anew.", folder / FILE)
    before = {} if is_new or before is None else before
    # With other keys a trial may well be finite.
    marks = {entry["name"]: entry.get("config") for entry in before.get("runs", [])}
    diverged = {
        entry["name"]: before["diverged"][entry["name"]]
        for entry in listed_runs
        if entry["name"] in before.get("diverged", {})
        and marks.get(entry["name"]) == entry["config"]
    }
    state = _State(folder / FILE, listed_runs, before.get("sizes", {}), diverged)
    state.save()
    return state


def _train_program(
    program: Sequence[Member],
    folder: Path,
    state: _State,
    datasets: dict[str, Dataset],
    is_overwritten: bool,
    start: float,
) -> int:
    """Trains the runs of one program and reports each; the number of programs compiled, 0 or 1."""
    folders = [
        Workdir.open(folder / RUNS / run.name, run.config, is_overwritten=is_overwritten)
        for run in program
    ]
    try:
        if all(map(has_record, folders)):
            for run, each in zip(program, folders, strict=True):
                check_finished(each, run.config)
                write_report(each.path)
            return 0
        with watched(program[0].config) as watch:
            studies = trials.studies(program, datasets)
            inputs = [check_inputs(f, study) for f, study in zip(folders, studies, strict=True)]
            for notice in studies[0].dataset.notices:
                log.warning("%s", notice)
            joined, layout = trials.layout(studies)
            missing = [
                i for i, trial in enumerate(layout) if not _is_done(trial, program, folders, state)
            ]
            if missing:
                part = dataclasses.replace(
                    joined,
                    fold_ids=missing,
                    plan=take_folds(joined.plan, np.asarray(missing)),
                )
                left = [layout[i] for i in missing]
                _train(
                    part,
                    left,
                    [
                        f"{program[t.run].name} {f.name}"
                        for t, f in zip(left, part.folds, strict=True)
                    ],
                    folder,
                    (program, folders, inputs, [study.schedule for study in studies]),
                    state,
                    watch,
                )
            spent = time.perf_counter() - start
            for run, each, study in zip(program, folders, studies, strict=True):
                records = read_rows(study.fold_ids, each)
                if records is None:
                    continue  # a trial diverged
                write_record(study, each, records, watch.counter.seconds, spent)
                write_report(each.path)
                log.info("%s is finished.", run.name)
        return int(bool(missing))
    finally:
        for each in folders:
            each.close()


def _is_done(
    trial: Trial, program: Sequence[Member], folders: Sequence[Workdir], state: _State
) -> bool:
    has_failed = str(trial.position) in state.diverged.get(program[trial.run].name, {})
    return has_failed or folders[trial.run].load_group(trial.position) is not None


def _train(
    study: Study,
    layout: Sequence[Trial],
    names: Sequence[str],
    folder: Path,
    runs: tuple[Sequence[Member], Sequence[Workdir], Sequence[str], Sequence[Schedule]],
    state: _State,
    watch: Watch,
) -> None:
    """Trains trials in groups, and records each in the folder of its run."""
    program, folders, inputs, schedules = runs
    watch.progress.begin(int(study.plan.valid.sum()))
    watch.counter.begin()
    host = device_data(study)
    flops = clip_flops(study, host)
    watch.progress.start_compiling(flops, is_cpu=is_cpu())
    first = program[0].name
    per_device = state.sizes.get(first, 0) or study.config.folds.per_chunk
    compiled = compile_programs(study, host, per_device=per_device)
    watch.counter.end()
    state.sizes[first] = compiled.size.per_device
    state.save()
    for run, each, mark in zip(program, folders, inputs, strict=True):
        # Each trial is a group of its own in the folder of its run.
        each.save_group_size(1, 1, config=config_digest(run.config.to_dict()), inputs=mark)
    step_bytes = cost.temporary_bytes(compiled.train)
    session = Session(watch.progress, watch.stop, watch.heap.keep_freed_memory(), step_bytes)
    data = jax.device_put(host, compiled.programs.shared)
    watch.progress.restart_clock()
    width = compiled.num_folds
    marks = [
        [name, config_digest(program[trial.run].config.to_dict()), inputs[trial.run]]
        for name, trial in zip(names, layout, strict=True)
    ]
    for index in range(math.ceil(len(layout) / width)):
        rows = slice(index * width, (index + 1) * width)
        watch.progress.enter_folds(rows.start, len(layout[rows]), len(layout))
        # The name is of the trials, their keys and data: no other trial reads the checkpoints.
        place = folder / CHECKPOINTS / digest(canonical(marks[rows]))[:16]
        group = _Group(layout[rows], names[rows], take_folds(study.plan, rows), place)
        _train_group(study, compiled, data, group, (program, folders, schedules), state, session)


@dataclasses.dataclass(frozen=True)
class _Group:
    layout: Sequence[Trial]
    names: Sequence[str]
    plan: Any
    place: Path  # of its checkpoints


def _train_group(
    study: Study,
    compiled: Compiled,
    data: Arrays,
    group: _Group,
    runs: tuple[Sequence[Member], Sequence[Workdir], Sequence[Schedule]],
    state: _State,
    session: Session,
) -> None:
    program, folders, schedules = runs
    failures: dict[int, str] = {}
    with GroupCheckpoints(group.place) as checkpoints:
        padded = pad_folds(group.plan, compiled.num_folds)
        trainer = GroupTrainer(
            compiled,
            padded,
            data,
            study.schedule,
            list(group.names),
            checkpoints,
            session,
            failures=failures,
        )
        record = record_of(trainer.run(), group.plan, compiled, num_params(study, compiled, data))
        for row, trial in enumerate(group.layout):
            if row in failures:
                texts = state.diverged.setdefault(program[trial.run].name, {})
                texts[str(trial.position)] = failures[row]
                log.warning("%s The other trials go on.", failures[row])
                continue
            alone = {name: array[row : row + 1] for name, array in record.items()}
            alone = trials.cut_record(alone, study.schedule, schedules[trial.run])
            folders[trial.run].save_group(trial.position, alone)
        if failures:
            state.save()
        checkpoints.remove()


def _refuse_nothing(state: _State, runs: Sequence[Member]) -> None:
    """Raise if every run has a trial that diverged: there is nothing to report.

    Raises:
      DivergedError: with the first messages.
    """
    if all(run.name in state.diverged for run in runs):
        texts = [text for each in state.diverged.values() for text in each.values()]
        raise DivergedError(
            f"Every run of the sweep has a trial that diverged: {listed(texts)}. Lower"
            " train.learning_rate or look at the data, and start in another --workdir or with"
            " --overwrite."
        )

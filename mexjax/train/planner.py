"""`make_plan`: the groups, memory and time of a run or sweep, before it is trained.

The programs are compiled, and a few updates and one evaluation batch are run and timed. Nothing is
recorded.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax.config import has_sweep
from mexjax.cpu import is_cpu
from mexjax.data.dataset import Dataset
from mexjax.train import cost, trials
from mexjax.train.plan import pad_folds, take_folds
from mexjax.train.programs import (
    Compiled,
    clip_flops,
    compile_programs,
    count_calls,
    device_data,
    step_bound,
)
from mexjax.train.study import Study
from mexjax.train.watch import Watch, watched

NUM_TIMED = 3  # calls of a program, of which the fastest counts
_SHORT_S = 5.0  # a call that takes longer is timed once


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """The plan of the trials that one program trains.

    Attributes:
      runs: names of the runs; empty for a run that is no sweep.
      num_trials: folds of all of these runs.
      num_devices: devices that the strategy uses.
      per_device: trials in a group on one device.
      reason: the reason for this number.
      num_groups: groups, one after the other.
      num_steps: updates that are run, over all groups.
      num_evaluation_batches: calls of the evaluation, over all groups.
      padding: share of the trials' updates that is run and changes nothing: places of a group
        without a trial, and steps that a shorter trial sits out.
      memory_bytes: memory of the largest program on one device.
      free_bytes: memory that is free there.
      compile_s: seconds of compilation, which the cache saves next time.
      train_s: expected seconds of training.
      evaluate_s: expected seconds of evaluation.
    """

    runs: list[str]
    num_trials: int
    num_devices: int
    per_device: int
    reason: str
    num_groups: int
    num_steps: int
    num_evaluation_batches: int
    padding: float
    memory_bytes: int
    free_bytes: int
    compile_s: float
    train_s: float
    evaluate_s: float

    @property
    def num_idle(self) -> int:
        """Devices without a trial in the last group."""
        left = self.num_trials % (self.per_device * self.num_devices)
        return self.num_devices - math.ceil(left / self.per_device) if left else 0


def make_plan(config: ConfigDict) -> list[ProgramPlan]:
    """The plan of each program of a run or of a sweep.

    Args:
      config: configuration from `load_config`.

    Raises:
      MexjaxError: what a run or a sweep would refuse.
    """
    datasets: dict[str, Dataset] = {}
    plans = []
    for program in trials.programs_of(trials.checked_members(config)):
        with watched(program[0].config) as watch:
            studies = trials.studies(program, datasets)
            study = studies[0] if len(studies) == 1 else trials.layout(studies)[0]
            names = [member.name for member in program] if has_sweep(config) else []
            plans.append(_planned(study, names, watch))
    return plans


def _planned(study: Study, runs: list[str], watch: Watch) -> ProgramPlan:
    host = device_data(study)
    begin = time.perf_counter()
    watch.progress.start_compiling(clip_flops(study, host), is_cpu=is_cpu())
    compiled = compile_programs(study, host, per_device=study.config.folds.per_chunk)
    watch.progress.restart_clock()
    compile_s = time.perf_counter() - begin
    call_s, batch_s = _timed(study, compiled, jax.device_put(host, compiled.programs.shared))
    width = compiled.num_folds
    calls = count_calls(study, width, step_bound(study, host))
    device = study.devices[0]
    return ProgramPlan(
        runs=runs,
        num_trials=len(study.fold_ids),
        num_devices=study.num_devices,
        per_device=compiled.size.per_device,
        reason=compiled.size.reason,
        num_groups=calls.groups,
        num_steps=calls.steps,
        num_evaluation_batches=calls.batches,
        padding=1 - int(study.plan.valid.sum()) / (calls.steps * width),
        memory_bytes=max(cost.needed_bytes(compiled.train), cost.needed_bytes(compiled.evaluate)),
        free_bytes=cost.free_bytes(device),
        compile_s=compile_s,
        train_s=calls.steps / study.schedule.steps_per_call * call_s,
        evaluate_s=calls.batches * batch_s,
    )


def _timed(study: Study, compiled: Compiled, data: Any) -> tuple[float, float]:
    """Seconds of a call of the training program and of one of the evaluation."""
    folds = pad_folds(take_folds(study.plan, slice(0, compiled.num_folds)), compiled.num_folds)
    plan = jax.device_put(folds, compiled.programs.folded)
    carry = jax.block_until_ready(compiled.init(plan, data))
    first = jax.device_put(np.int32(0), compiled.programs.shared)

    def train() -> Any:
        nonlocal carry
        carry = compiled.train(carry, plan, data)
        return carry.position

    train_s = _fastest(train)
    evaluate_s = _fastest(lambda: compiled.evaluate(carry.states, first, plan, data))
    return train_s, evaluate_s


def _fastest(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of a few calls; a long one is not repeated."""
    times = []
    for _ in range(NUM_TIMED + 1):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
        if times[-1] > _SHORT_S:
            break
    return min(times)


def plan_lines(plans: Sequence[ProgramPlan]) -> list[str]:
    """The plan in words, a few lines a program."""
    lines = []
    for number, each in enumerate(plans, start=1):
        if len(plans) > 1:
            lines.append(f"Program {number} of {len(plans)}: {', '.join(each.runs)}")
        kind = "trials" if each.runs else "folds"
        of_runs = f" of {len(each.runs)} runs" if each.runs else ""
        where = "" if each.num_devices == 1 else f" on each of {each.num_devices} devices"
        lines.append(
            f"{each.num_trials} {kind}{of_runs}, {each.per_device} at a time{where}, so"
            f" {each.num_groups} {'group' if each.num_groups == 1 else 'groups'} ({each.reason})."
        )
        lines.append(
            f"{each.num_steps} updates of a group, {each.num_evaluation_batches} evaluation"
            f" batches; {100 * each.padding:.1f}% of the work is padding."
        )
        if each.num_idle:
            lines.append(f"In the last group {each.num_idle} devices have no trial.")
        lines.append(
            f"Memory of a program: {each.memory_bytes / 2**30:.2f} GiB of"
            f" {each.free_bytes / 2**30:.1f} GiB free. Compiled in {each.compile_s:.0f} s."
        )
        lines.append(
            f"Expected: {_duration(each.train_s)} of training, {_duration(each.evaluate_s)} of"
            " evaluation, from a few calls that were timed here."
        )
    if len(plans) > 1:
        total = sum(each.train_s + each.evaluate_s for each in plans)
        lines.append(f"All programs: {_duration(total)}.")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"

"""The runs of a sweep, and the trials that one compiled program trains side by side.

A trial is one fold of one run. Trials that differ in fold, seed and numbers of the program alone
share a program.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mexjax import machine
from mexjax.config import check_values, flat, set_key
from mexjax.config.values import recall_card, remember_card
from mexjax.data.dataset import Dataset
from mexjax.files import canonical, digest
from mexjax.models import get_model
from mexjax.models.paper import Paper
from mexjax.report.agreement import INDIFFERENT
from mexjax.target import current
from mexjax.train import plan
from mexjax.train.numerics import check_numerics, dtype_of
from mexjax.train.study import Schedule, Study, make_schedule, make_study
from mexjax.train.trial_numbers import program_numbers

_LONGEST_NAME = 80
# Sections of the configuration that a dataset depends on.
_OF_DATASET = ("data.", "protocol.", "model.", "precision")


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
      name: name of its folder.
      setting: the swept keys and their values.
      seed: its seed.
      config: its own configuration, without a sweep.
    """

    name: str
    setting: dict[str, Any]
    seed: int
    config: ConfigDict


def members(config: ConfigDict) -> list[Member]:
    """The runs of a sweep: every combination of values with every seed, settings outermost."""
    values = flat(config.sweep["values"])
    seeds = tuple(config.sweep.seeds) or (config.seed,)
    out = []
    for combination in itertools.product(*values.values()):
        setting = dict(zip(values, combination, strict=True))
        for seed in dict.fromkeys(seeds):
            out.append(Member(_name(setting, seed), setting, seed, _alone(config, setting, seed)))
    return out


def checked_members(config: ConfigDict) -> list[Member]:
    """The runs of a sweep, or the one run without a sweep, each checked before any is trained.

    Raises:
      ConfigError: a platform that is not there, or a configuration that no run can be made with.
    """
    machine.devices()
    check_values(config)
    out = members(config)
    for member in out:
        check_values(member.config)
        get_model(member.config.model.name).options(member.config.model, dtype_of(member.config))
        check_numerics(member.config, current())
    return out


def studies(program: Sequence[Member], datasets: dict[str, Dataset]) -> list[Study]:
    """The study of each run of a program.

    Args:
      program: its runs.
      datasets: those loaded before, by `dataset_key`; new ones are added.
    """
    out = []
    for member in program:
        key = dataset_key(member.config)
        study = make_study(member.config, datasets.get(key))
        datasets[key] = study.dataset
        out.append(study)
    return out


def _name(setting: dict[str, Any], seed: int) -> str:
    parts = [f"{key.rpartition('.')[2]}={value}" for key, value in setting.items()]
    text = re.sub(r"[^\w.+=-]", "-", "_".join(parts))
    if len(text) > _LONGEST_NAME:
        text = f"{text[:40]}_{digest(canonical(setting))[:12]}"
    return f"{text}_seed{seed}" if text else f"seed{seed}"


def _alone(config: ConfigDict, setting: dict[str, Any], seed: int) -> ConfigDict:
    """The configuration of one run of the sweep."""
    out = copy.deepcopy(config)
    with out.unlocked():
        set_key(out, "seed", seed)
        for key, value in setting.items():
            set_key(out, key, value)
        out.sweep.seeds = ()
        out.sweep["values"] = ConfigDict()
    remember_card(out, recall_card(config))
    return out


def programs_of(runs: Sequence[Member]) -> list[list[Member]]:
    """The runs of each program, in the order of their first ones."""
    groups: dict[str, list[Member]] = {}
    for member in runs:
        groups.setdefault(_program_key(member.config), []).append(member)
    return list(groups.values())


def _program_key(config: ConfigDict) -> str:
    """A text that is the same for runs that one program can train."""
    values = {k: v for k, v in flat(config).items() if not k.startswith(INDIFFERENT)}
    paper = get_model(config.model.name)
    # Shuffled labels and drawn weights that are kept follow from the seed, and the trials of a
    # program share them.
    draws = paper.may_draw_frozen(paper.options(config.model, dtype_of(config)))
    if config.data.control == "none" and not draws:
        values.pop("seed")
    parts = {key: bool(values.pop(key)) for key in program_numbers(paper) if key in values}
    return canonical([values, parts])


def dataset_key(config: ConfigDict) -> str:
    """A text that is the same for runs that train on the same arrays."""
    numbers = {f"model.{name}" for name in get_model(config.model.name).loss_numbers}
    values = {k: v for k, v in flat(config).items() if k.startswith(_OF_DATASET)}
    seed = None if config.data.control == "none" else config.seed
    return canonical([{k: v for k, v in values.items() if k not in numbers}, seed])


@dataclasses.dataclass(frozen=True)
class Trial:
    """One fold of one run.

    Attributes:
      run: number of the run among those of the program.
      position: number of the fold in the run's own order.
    """

    run: int
    position: int


def layout(alone: Sequence[Study]) -> tuple[Study, list[Trial]]:
    """All trials of runs that share a program as one study, and the trial of each of its folds.

    The longest come first: groups of like trials have the fewest steps to sit out.

    Args:
      alone: each run's own study, on one dataset.
    """
    base = alone[0]
    trials = [Trial(r, i) for r, study in enumerate(alone) for i in range(len(study.fold_ids))]
    trials.sort(key=lambda t: (-len(alone[t.run].folds[t.position].train), t.run, t.position))
    folds = [alone[trial.run].folds[trial.position] for trial in trials]
    arrays = plan.plan_batches(
        folds,
        [alone[trial.run].fold_ids[trial.position] for trial in trials],
        base.dataset.clips,
        base.config,
        base.dataset.train_clips,
        seeds=[alone[trial.run].config.seed for trial in trials],
    )
    values = differing_numbers([study.config for study in alone], base.paper)
    arrays = dataclasses.replace(
        arrays,
        extras=base.paper.fold_arrays(base.dataset, folds, base.options),
        values={
            key: np.array([each[trial.run] for trial in trials], np.float32)
            for key, each in values.items()
        },
    )
    joined = dataclasses.replace(
        base,
        all_folds=folds,
        fold_ids=list(range(len(folds))),
        plan=arrays,
        # Inner subjects follow from the seed: the longest fold may be one of another run.
        schedule=make_schedule(folds, base.config, base.target),
    )
    return joined, trials


def cut_record(
    record: dict[str, np.ndarray], joined: Schedule, alone: Schedule
) -> dict[str, np.ndarray]:
    """The record of a trial with the epochs and evaluations of its own run.

    With `train.num_steps` another run may need more epochs. A fold has its last step within those
    of its own run, so a later evaluation is of the same state.

    Args:
      record: see `mexjax.train.group.record_of`.
      joined: the schedule that the trial was trained by.
      alone: the schedule of its run.
    """
    places = [
        next(i for i, epoch in enumerate(joined.eval_epochs) if epoch >= last)
        for last in alone.eval_epochs
    ]
    out = dict(record, logits=record["logits"][:, places])
    for name in record:
        if name.startswith("curve_"):
            out[name] = record[name][:, : alone.num_epochs]
    return out


def differing_numbers(configs: Sequence[ConfigDict], paper: Paper) -> dict[str, list[float]]:
    """The numbers of the program that are not the same in all configurations, by dotted key."""
    flats = [flat(config) for config in configs]
    columns = {
        key: [values[key] for values in flats] for key in program_numbers(paper) if key in flats[0]
    }
    return {key: column for key, column in columns.items() if len(set(column)) > 1}

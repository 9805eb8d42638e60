"""A study: the data, folds, network, order of samples and schedule of one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from mexjax.data.dataset import Dataset, Takes
from mexjax.data.loading import load
from mexjax.errors import ConfigError, unknown_name
from mexjax.models import get_model
from mexjax.models.paper import Paper
from mexjax.protocol import splits
from mexjax.protocol.action_units import numbers_of
from mexjax.protocol.splits import Fold
from mexjax.target import Target, current
from mexjax.train import fold_axis, plan
from mexjax.train.batches import BatchMaker
from mexjax.train.numerics import dtype_of
from mexjax.train.step import FoldPlan


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The times of evaluations and checkpoints, in epochs and steps of the plan.

    Between checkpoints lie at least `checkpoint_every` epochs (0: only a stop saves) and
    `checkpoint_seconds` seconds.
    """

    num_epochs: int
    epoch_steps: int
    steps_per_call: int
    eval_every: int
    checkpoint_every: int
    checkpoint_seconds: float

    @property
    def eval_epochs(self) -> list[int]:
        """Epochs trained at each evaluation; the last epoch is always one."""
        every = max(self.eval_every, 1)
        return sorted({*range(every, self.num_epochs + 1, every), self.num_epochs})

    @property
    def num_steps(self) -> int:
        """Steps of the whole plan."""
        return self.epoch_steps * self.num_epochs


@dataclasses.dataclass(frozen=True)
class Study:
    """The parts of one run.

    Attributes:
      config: the whole configuration.
      paper: the system that is trained.
      options: options of the paper.
      module: the network of the paper.
      dataset: all clips.
      all_folds: every fold of the protocol.
      fold_ids: numbers of the folds that this run trains, longest first.
      plan: the order of samples in those folds.
      schedule: times of evaluations and checkpoints.
      target: the devices that its programs are for.
    """

    config: ConfigDict
    paper: Paper
    options: Any
    module: nn.Module
    dataset: Dataset
    all_folds: list[Fold]
    fold_ids: list[int]
    plan: FoldPlan
    schedule: Schedule
    target: Target

    @property
    def folds(self) -> list[Fold]:
        """The folds this run trains, in the order of the plan."""
        return [self.all_folds[i] for i in self.fold_ids]

    @property
    def strategy(self) -> str:
        """The strategy of the fold axis, one of `loop`, `vmap` and `shard`."""
        return fold_axis.strategy_for(
            self.config.folds.strategy, self.target, self.config.folds.per_chunk
        )

    @property
    def devices(self) -> tuple[Any, ...]:
        """The devices that the strategy uses."""
        return fold_axis.devices_of(self.strategy, self.target)

    @property
    def num_devices(self) -> int:
        """The number of these."""
        return len(self.devices)

    @property
    def batches(self) -> BatchMaker:
        """The maker of the paper's batches."""
        return BatchMaker(self.config, self.paper, self.options)


def make_study(config: ConfigDict, dataset: Dataset | None = None) -> Study:
    """Loads the data and lays out folds and batches; nothing is compiled.

    Args:
      config: the whole configuration.
      dataset: its dataset, if that was loaded before.
    """
    paper = get_model(config.model.name)
    options = paper.options(config.model, dtype_of(config))
    dataset = dataset or load_dataset(config, paper, options)
    # With several labels a clip every clip is used, and no class can be missing from a fold.
    labels = dataset.labels if dataset.task == "emotion" else None
    all_folds = splits.make_folds(dataset.table, labels, config.protocol, seed=config.seed)
    # The longest folds come first: groups of like folds have the fewest steps to sit out.
    fold_ids = _select(all_folds, config.folds.only)
    fold_ids = sorted(fold_ids, key=lambda i: (-len(all_folds[i].train), i))
    folds = [all_folds[i] for i in fold_ids]
    target = current()
    layout = plan.plan_batches(folds, fold_ids, dataset.clips, config, dataset.train_clips)
    return Study(
        config=config,
        paper=paper,
        options=options,
        module=paper.network(options, dataset.class_names),
        dataset=dataset,
        all_folds=all_folds,
        fold_ids=fold_ids,
        plan=dataclasses.replace(layout, extras=paper.fold_arrays(dataset, folds, options)),
        schedule=make_schedule(folds, config, target),
        target=target,
    )


def for_target(study: Study, target: Target) -> Study:
    """The same study on other devices."""
    schedule = make_schedule(study.folds, study.config, target)
    return dataclasses.replace(study, schedule=schedule, target=target)


def load_dataset(config: ConfigDict, paper: Paper | None = None, options: Any = None) -> Dataset:
    """The dataset of a configuration as its paper takes it.

    Args:
      config: the whole configuration.
      paper: the paper; None: the one that the configuration names.
      options: options of the paper; None: those of the configuration.

    Raises:
      ConfigError, DataError: see `mexjax.data.loading.load`.
    """
    paper = paper or get_model(config.model.name)
    options = options or paper.options(config.model, dtype_of(config))
    units = numbers_of(config.protocol.units) if config.protocol.task == "au" else ()
    takes = Takes(
        model=paper.name,
        views=paper.views,
        tasks=paper.tasks,
        clip_views=paper.clip_views(options, units),
        has_flow=paper.follows_frames_with_flow(options),
    )
    dataset = load(config, takes)
    arrays = paper.clip_arrays(dataset.labels, options, units)
    return dataclasses.replace(dataset, views=dataset.views | arrays)


def _select(folds: Sequence[Fold], only: Sequence[str]) -> list[int]:
    names = [fold.name for fold in folds]
    for name in only:
        if name not in names:
            raise ConfigError(unknown_name("fold in folds.only", str(name), names))
    return [i for i, name in enumerate(names) if not only or name in only]


def make_schedule(folds: Sequence[Fold], config: ConfigDict, target: Target) -> Schedule:
    """The schedule of a plan of these folds: its epoch has the steps of their longest one."""
    epoch_steps = plan.steps_per_epoch(folds, config)
    return Schedule(
        num_epochs=plan.num_epochs(folds, config),
        epoch_steps=epoch_steps,
        steps_per_call=_steps_per_call(config, epoch_steps, target),
        eval_every=config.eval.every_epochs,
        checkpoint_every=config.checkpoint.every_epochs,
        checkpoint_seconds=config.checkpoint.min_seconds,
    )


def _steps_per_call(config: ConfigDict, epoch_steps: int, target: Target) -> int:
    """Steps of one call of the training program.

    A call has one step on the CPU, where a convolution's gradient inside a loop is many times
    slower, and a whole epoch elsewhere, where every call costs a launch.
    """
    if config.train.steps_per_call > 0:
        return config.train.steps_per_call
    return 1 if target.platform == "cpu" else epoch_steps

"""A study laid out and compiled: data, folds and plan, and the programs of a group of folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax.cpu import is_cpu
from mexjax.data import dataset as arrays
from mexjax.errors import ConfigError, unknown_name
from mexjax.models import get_model
from mexjax.ops import conv
from mexjax.protocol import splits
from mexjax.protocol.splits import Fold
from mexjax.train import augment, flops, fold_axis, frozen, plan
from mexjax.train.batches import gather, network_batch, prepared_batch
from mexjax.train.fold_axis import Programs
from mexjax.train.group import Compiled, Schedule
from mexjax.train.optim import make_optimizer
from mexjax.train.step import Arrays, FoldPlan, make_fold_functions


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


def make_study(config: ConfigDict) -> Study:
    """Load the data and lay out folds and batches; nothing is compiled."""
    dataset = arrays.load(config)
    # Several labels a clip: every clip is used, and no class can be missing from a fold.
    labels = dataset.labels if dataset.task == "emotion" else None
    all_folds = splits.make_folds(dataset.table, labels, config.protocol, seed=config.seed)
    fold_ids = _select(all_folds, config.folds.only)
    chosen = [all_folds[i] for i in fold_ids]
    schedule = Schedule(
        num_epochs=plan.num_epochs(chosen, config),
        epoch_steps=plan.steps_per_epoch(chosen, config),
        steps_per_call=_steps_per_call(config, plan.steps_per_epoch(chosen, config)),
        eval_every=config.eval.every_epochs,
        checkpoint_every=config.checkpoint.every_epochs,
        checkpoint_seconds=config.checkpoint.min_seconds,
    )
    # Longest folds first: groups of like folds have the fewest steps to sit out.
    fold_ids = sorted(fold_ids, key=lambda i: (-len(all_folds[i].train), i))
    chosen = [all_folds[i] for i in fold_ids]
    seen = dataset.clips if dataset.train_clips is None else dataset.train_clips
    layout = plan.make_plan(chosen, fold_ids, seen, config)
    paper = get_model(config.model.name)
    if hasattr(paper, "fold_arrays"):
        layout = layout.replace(extras=paper.fold_arrays(dataset, chosen, config.model))
    return Study(config, dataset, all_folds, fold_ids, layout, schedule)


def compile_group(study: Study, data: Arrays, per_device: int) -> Compiled:
    """Compile the programs of one group shape."""
    with conv.use_lowering(study.config.conv):
        return _compile(*_make_programs(study, data, per_device))


def _compile(programs: Programs, shapes: tuple[FoldPlan, Arrays]) -> Compiled:
    folds, arrays_shape = shapes
    batch = jax.ShapeDtypeStruct((), np.int32)
    carry = jax.eval_shape(programs.init, folds, arrays_shape)
    evaluate = programs.evaluate.lower(carry.states, batch, folds, arrays_shape)
    return Compiled(
        programs=programs,
        init=programs.init.lower(folds, arrays_shape).compile(),
        train=programs.train.lower(carry, folds, arrays_shape).compile(),
        evaluate=evaluate.compile(),
        carry_shape=carry,
        eval_shape=dict(evaluate.out_info),
    )


def trace_step(study: Study, data: Arrays) -> jax.stages.Traced:
    """Trace the training program of a group of one fold; nothing is compiled."""
    with conv.use_lowering(study.config.conv):
        programs, (folds, arrays_shape) = _make_programs(study, data, 1)
        carry = jax.eval_shape(programs.init, folds, arrays_shape)
        return programs.train.trace(carry, folds, arrays_shape)


def _make_programs(
    study: Study, data: Arrays, per_device: int
) -> tuple[Programs, tuple[FoldPlan, Arrays]]:
    """The jitted programs of one group shape, and the shapes of their plan and data."""
    config = study.config
    paper, module = get_model(config.model.name), make_module(study)
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
    return programs, shape


def make_module(study: Study) -> nn.Module:
    """The network the configuration of a study names."""
    config = study.config
    model = dict(config.model.items()) | {"dtype": config.dtype}
    paper = get_model(config.model.name)
    others = paper.of_protocol(config.protocol) if hasattr(paper, "of_protocol") else {}
    return paper.make(model, num_classes=len(study.dataset.class_names), **others)


def device_data(study: Study) -> dict[str, Any]:
    """What goes to the device: the dataset and, of networks that keep some of their parameters,
    those and what the frozen part makes of the clips (`frozen`, see `mexjax.train.frozen`)."""
    data = study.dataset.on_host()
    paper = get_model(study.config.model.name)
    shared = frozen.shared_arrays(study.config, paper, make_module(study), data)
    return data | ({"frozen": shared} if shared else {})


def clip_flops(study: Study, data: Arrays) -> int:
    """Operations of the network's forward pass for one clip, without what was computed before.

    Args:
      study: the run.
      data: from `device_data`.
    """
    config = study.config
    paper, module = get_model(config.model.name), make_module(study)
    row = np.zeros(1, np.int32)

    def forward(data: Arrays) -> dict[str, jax.Array]:
        if "per_clip" in data.get("frozen", {}):
            batch = prepared_batch(data, row)
        else:
            frames = augment.center_crop(gather(data, row), config.augment)
            batch = network_batch(config, paper, data, frames, row)
        variables = module.init(jax.random.key(0), batch, train=False)
        return module.apply(variables, batch, train=False)

    # Initialisation is a forward pass too.
    return flops.forward_flops(forward, data) // 2


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
    return 1 if is_cpu() else epoch_steps

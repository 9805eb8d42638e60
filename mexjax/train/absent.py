"""The programs of a configuration for devices that need not be there."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax import target as targets
from mexjax.ops import conv
from mexjax.target import Target
from mexjax.train import cost, numerics
from mexjax.train.programs import (
    Calls,
    count_calls,
    count_params,
    device_data,
    make_group_programs,
    step_bound,
)
from mexjax.train.study import Study, for_target, make_study


@dataclasses.dataclass(frozen=True)
class Lowered:
    """The three programs of a group of folds, lowered and not compiled.

    Attributes:
      study: the run, with its target.
      size: folds in the group on one device, and why.
      num_folds: folds in the group, over all devices.
      num_steps: steps of one call of the training program.
      num_params: trained parameters of one fold.
      calls: how often a run calls each program.
      init: the program that makes the first state.
      train: the training program.
      evaluate: the program of an evaluation batch.
    """

    study: Study
    size: cost.GroupSize
    num_folds: int
    num_steps: int
    num_params: int
    calls: Calls
    init: jax.stages.Lowered
    train: jax.stages.Lowered
    evaluate: jax.stages.Lowered


def lower_for(config: ConfigDict, target: Target, per_device: int = 0) -> Lowered:
    """Lowers the programs of a configuration for a target.

    Clips are read or drawn, and the frozen part of a network is computed, on the devices that are
    here; the rest is shapes.

    Args:
      config: the whole configuration.
      target: see `mexjax.gpu.targets.absent`.
      per_device: folds in a group on one device; 0: as many as a run takes with enough memory.
    """
    study = make_study(config)
    data = device_data(study)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), data)
    study = for_target(study, target)
    with targets.use(target), conv.use_lowering(config.conv), numerics.use_precision(config):
        bound = step_bound(study, shapes)
        size = cost.GroupSize(per_device, "as asked", fits=True)
        if not per_device:
            size = cost.first_group(
                len(study.fold_ids),
                study.devices,
                config.folds.per_chunk,
                strategy=study.strategy,
                bound=bound,
            )
        programs, (folds, arrays) = make_group_programs(study, shapes, size.per_device, bound)
        carry = jax.eval_shape(programs.init, folds, arrays)
        batch = jax.ShapeDtypeStruct((), np.int32)
        num_folds = size.per_device * study.num_devices
        return Lowered(
            study=study,
            size=size,
            num_folds=num_folds,
            num_steps=study.schedule.steps_per_call,
            num_params=count_params(carry.states.params) // num_folds,
            calls=count_calls(study, num_folds, bound),
            init=programs.init.lower(folds, arrays),
            train=programs.train.lower(carry, folds, arrays),
            evaluate=programs.evaluate.lower(carry.states, batch, folds, arrays),
        )

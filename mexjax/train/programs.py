"""The compiled programs of a group of folds, and the arrays they share."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from mexjax.train import cost, flops, fold_axis, frozen, numerics, plan
from mexjax.train.batches import is_prepared, prepared_batch
from mexjax.train.cost import GroupSize
from mexjax.train.fold_axis import Carry, Programs
from mexjax.train.optim import make_optimizer
from mexjax.train.step import Arrays, FoldFunctions, FoldPlan
from mexjax.train.study import Study


class Compiled(NamedTuple):
    """The three compiled programs of a group, and their sources.

    Attributes:
      size: folds in the group on one device, and why.
      programs: the jitted functions, and where their arguments lie.
      init: the compiled program that makes the first state.
      train: the compiled program of an update.
      evaluate: the compiled program of an evaluation batch.
      carry_shape: shapes of the state that a group carries.
      eval_shape: shapes of the outputs of an evaluation batch.
      is_kept: true if an earlier process compiled them, see `mexjax.train.kept`; `programs` then
        holds the compiled programs too.
    """

    size: GroupSize
    programs: Programs
    init: jax.stages.Compiled
    train: jax.stages.Compiled
    evaluate: jax.stages.Compiled
    carry_shape: Carry
    eval_shape: dict[str, jax.ShapeDtypeStruct]
    is_kept: bool = False

    @property
    def num_folds(self) -> int:
        """Folds in a group, over all devices."""
        return jax.tree.leaves(self.carry_shape.states)[0].shape[0]


def compile_programs(
    study: Study, data: Arrays, *, per_device: int = 0, begun: int = 0
) -> Compiled:
    """Compiles the programs of a group of folds, as large as memory allows.

    Args:
      study: the run.
      data: arrays from `device_data`.
      per_device: folds in a group on one device; 0: the number follows from memory.
      begun: the number with which the run was begun, which stays; 0: the run begins now.
    """
    bound = step_bound(study, data)
    size = cost.first_group(
        len(study.fold_ids),
        study.devices,
        per_device,
        strategy=study.strategy,
        bound=bound,
        begun=begun,
    )
    options = numerics.compile_options(study.config, study.target) or None
    while True:
        with numerics.use_precision(study.config):
            programs, (folds, arrays) = make_group_programs(study, data, size.per_device, bound)
            carry = jax.eval_shape(programs.init, folds, arrays)
            batch = jax.ShapeDtypeStruct((), np.int32)
            evaluate = programs.evaluate.lower(carry.states, batch, folds, arrays)
            init = programs.init.lower(folds, arrays).compile(options)
            train = programs.train.lower(carry, folds, arrays).compile(options)
        size = cost.measured(size, train, study.devices)
        if size.fits:
            shapes = carry, dict(evaluate.out_info)
            return Compiled(size, programs, init, train, evaluate.compile(options), *shapes)
        size = cost.smaller(size)


def trace_step(study: Study, data: Arrays, per_device: int = 1) -> jax.stages.Traced:
    """Traces the training program of a group of folds; nothing is compiled."""
    bound = step_bound(study, data)
    with numerics.use_precision(study.config):
        programs, (folds, arrays) = make_group_programs(study, data, per_device, bound)
        carry = jax.eval_shape(programs.init, folds, arrays)
        return programs.train.trace(carry, folds, arrays)


def make_group_programs(
    study: Study, data: Arrays, per_device: int, bound: cost.StepBound | None
) -> tuple[Programs, tuple[FoldPlan, Arrays]]:
    """The jitted programs of one group shape, and the shapes of their plan and data.

    Args:
      study: the run.
      data: arrays from `device_data`, or their shapes.
      per_device: folds in a group on one device.
      bound: see `step_bound`.
    """
    config = study.config
    num_folds = per_device * study.num_devices
    first = plan.pad_folds(plan.take_folds(study.plan, slice(0, num_folds)), num_folds)
    functions = FoldFunctions(
        config=config,
        paper=study.paper,
        options=study.options,
        module=study.module,
        optimizer=make_optimizer(config.train),
        has_invalid_steps=not study.plan.valid.all() or len(study.fold_ids) % num_folds > 0,
    )
    shapes = jax.eval_shape(lambda x: x, (first, data))
    programs = fold_axis.make_programs(
        functions,
        study.strategy,
        study.target,
        example=shapes,
        epoch_steps=study.schedule.epoch_steps,
        steps_per_call=study.schedule.steps_per_call,
        skips_idle=bound is not None and cost.skipping_pays(study.plan.valid, num_folds, bound),
    )
    return programs, shapes


def step_bound(study: Study, data: Arrays) -> cost.StepBound | None:
    """The estimate of one fold's step on a GPU; None for other devices."""
    if study.target.platform != "gpu":
        return None
    work, num_params = step_work(study, data)
    return cost.step_bound(
        work,
        num_params,
        study.target,
        numerics.dtype_of(study.config),
        is_exact=numerics.is_exact(study.config),
    )


class Calls(NamedTuple):
    """The work of a whole run, over all groups of folds, which run one after the other.

    Attributes:
      groups: groups of folds; each begins with one call of the program `init`.
      steps: training steps; one of a group is one of each of its folds.
      batches: evaluation batches.
    """

    groups: int
    steps: int
    batches: int


def count_calls(study: Study, num_folds: int, bound: cost.StepBound | None) -> Calls:
    """The work of a whole run.

    Args:
      study: the run, with its target.
      num_folds: folds in a group, over all devices.
      bound: see `step_bound`.
    """
    valid, per_call = study.plan.valid, study.schedule.steps_per_call
    starts = range(0, len(valid), num_folds)
    busy = np.stack([valid[start : start + num_folds].any(axis=0) for start in starts])
    steps = int(busy.sum())
    if bound is None or not cost.skipping_pays(valid, num_folds, bound):
        # Only whole calls are left out.
        steps = int(busy.reshape(-1, per_call).any(axis=1).sum()) * per_call
    evaluations = len(study.schedule.eval_epochs) * study.plan.eval_idx.shape[1]
    return Calls(len(starts), steps, len(starts) * evaluations)


def device_data(study: Study) -> dict[str, Any]:
    """Arrays copied to the device.

    They are the dataset and, for networks that keep some of their parameters, an entry `frozen`
    with these and the outputs of the frozen part for the clips (see `mexjax.train.frozen`).
    """
    data = study.dataset.on_host()
    options = numerics.compile_options(study.config, study.target)
    with numerics.use_precision(study.config):
        shared = frozen.shared_arrays(study.batches, study.module, data, options)
    return data | ({"frozen": shared} if shared else {})


def num_params(study: Study, compiled: Compiled, data: Arrays) -> int:
    """Parameters of the network that a prediction needs."""
    params = compiled.carry_shape.states.params
    unused = study.paper.training_only
    needed = {name: part for name, part in params.items() if name not in unused}
    frozen_params = data.get("frozen", {}).get("kept", {})
    return count_params(needed) // compiled.num_folds + count_params(frozen_params)


def count_params(params: Any) -> int:
    """Number of scalars in a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def clip_flops(study: Study, data: Arrays) -> int:
    """Operations of the network's forward pass for one clip, without a part computed before.

    Args:
      study: the run.
      data: arrays from `device_data`.
    """

    def forward(data: Arrays) -> Any:
        batch = _plain_batch(study, data, 1)
        variables = study.module.init(jax.random.key(0), batch, train=False)
        return study.module.apply(variables, batch, train=False)

    # Initialisation is a forward pass too.
    return flops.forward_flops(forward, data) // 2


def step_work(study: Study, data: Arrays) -> tuple[flops.Work, int]:
    """The work of one fold's forward pass of a training batch, and its number of parameters.

    Args:
      study: the run.
      data: arrays from `device_data`, or their shapes.
    """

    def init(data: Arrays) -> Any:
        batch = _plain_batch(study, data, 2)
        return study.module.init(jax.random.key(0), batch, train=False)

    def forward(variables: Any, data: Arrays) -> Any:
        batch = _plain_batch(study, data, study.config.train.batch_size)
        return study.module.apply(variables, batch, train=False)

    variables = jax.eval_shape(init, data)
    return flops.forward_work(forward, variables, data), count_params(variables["params"])


def _plain_batch(study: Study, data: Arrays, size: int) -> Any:
    """A batch of `size` clips for a forward pass, without a part that is computed before."""
    rows = np.zeros(size, np.int32)
    return (
        prepared_batch(data, rows) if is_prepared(data) else study.batches.plain_batch(data, rows)
    )

"""The fold axis: one fold's functions lifted to a group of folds, on one device or on all.

`loop` runs a group of one fold, `vmap` a group in one program on one device, `shard` one such
group on every device. The three give the same numbers, fold by fold. `auto` is one of the three.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from mexjax.errors import ConfigError, unknown_name
from mexjax.target import Target
from mexjax.train.step import Arrays, FoldFunctions, FoldPlan, FoldState, Logs

STRATEGIES = ("auto", "loop", "vmap", "shard")


@struct.dataclass
class Carry:
    """The state that a group of k folds carries from call to call; each call takes it over.

    Attributes:
      states: `FoldState` with a leading k.
      position: i32[], number of the next step in the plan.
      logs: f32[k, S, L], the logged values of the current epoch's steps.
    """

    states: FoldState
    position: jax.Array
    logs: jax.Array


class Programs(NamedTuple):
    """Jitted functions of a group of folds, and where their arguments lie."""

    init: Callable[[FoldPlan, Arrays], Carry]
    train: Callable[[Carry, FoldPlan, Arrays], Carry]
    evaluate: Callable[[FoldState, jax.Array, FoldPlan, Arrays], dict[str, jax.Array]]
    log_names: tuple[str, ...]
    folded: Any  # sharding of arrays with a leading fold axis
    shared: Any  # sharding of arrays all folds share


def strategy_for(strategy: str, target: Target, per_chunk: int = 0) -> str:
    """The strategy, with `auto` replaced by the one that suits a target.

    That is `loop` on a CPU, whose cores one fold keeps busy, `vmap` on one other device, and
    `shard` on several.

    Args:
      strategy: one of `STRATEGIES`.
      target: the devices.
      per_chunk: folds that are asked for in one program; with several a CPU takes `vmap`.

    Raises:
      ConfigError: no strategy has this name.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(unknown_name("folds.strategy", strategy, STRATEGIES))
    if strategy != "auto":
        return strategy
    if target.platform == "cpu":
        return "vmap" if per_chunk > 1 else "loop"
    return "shard" if len(target.devices) > 1 else "vmap"


def devices_of(strategy: str, target: Target) -> tuple[Any, ...]:
    """The devices that a strategy uses: all of the target for `shard`, otherwise the first."""
    is_sharded = strategy_for(strategy, target) == "shard"
    return target.devices if is_sharded else target.devices[:1]


def describe_devices(strategy: str, target: Target, per_chunk: int = 0) -> str:
    """The devices that a run uses, out of those that are there, and its strategy.

    Where devices lie idle the text says how to use all of them.

    Args:
      strategy: one of `STRATEGIES`.
      target: the devices that are there.
      per_chunk: folds that are asked for in one program.

    Raises:
      ConfigError: no strategy has this name.
    """
    resolved = strategy_for(strategy, target, per_chunk)
    used, present = devices_of(resolved, target), target.devices
    kinds = Counter(device.device_kind for device in used)
    names = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    notes = ["auto"] if strategy == "auto" else []
    if len(used) < len(present):
        names = f"{len(used)} of {len(present)} devices ({used[0].device_kind})"
        if target.platform == "cpu":
            notes.append("each device of a CPU computes on all cores")
        notes.append("--config.folds.strategy=shard uses all devices")
    return f"{names}, strategy {resolved}" + (f" ({'; '.join(notes)})" if notes else "")


def make_programs(
    functions: FoldFunctions,
    strategy: str,
    target: Target,
    *,
    example: tuple[FoldPlan, Arrays],
    epoch_steps: int,
    steps_per_call: int,
    skips_idle: bool = False,
) -> Programs:
    """Lifts one fold's functions to a group.

    Args:
      functions: see `step.FoldFunctions`.
      strategy: one of `STRATEGIES`.
      target: the devices that the programs are for.
      example: the plan of one group (leading k) and the dataset; only shapes are read.
      epoch_steps: steps of an epoch; `logs` holds that many.
      steps_per_call: updates in one call of `train`; must divide `epoch_steps`.
      skips_idle: true if a call of several steps ends on each device with the last step that a fold
        there has. The host of a GPU then asks the device before every step if it is to be run;
        otherwise it launches all steps ahead. See `cost.skipping_pays`.

    Returns:
      The programs. `train` donates its carry.
    """
    if epoch_steps % steps_per_call:
        raise ConfigError(
            f"train.steps_per_call={steps_per_call} must divide the {epoch_steps} steps"
            " of an epoch."
        )
    devices = devices_of(strategy, target)
    plan, data = example
    mesh = mesh_of(strategy, target)
    k = plan.fold_id.shape[0]
    num_local = k if mesh is None else k // mesh.size
    lift = _make_lift(num_local, mesh)
    init_folds = lift(functions.init, (True, False))
    train_folds = lift(functions.train, (True, False, True, False))
    evaluate = lift(functions.evaluate, (True, False, True, False))

    shapes = jax.eval_shape(init_folds, plan, data)
    position = jax.ShapeDtypeStruct((), jnp.int32)
    _, logs = jax.eval_shape(train_folds, shapes, position, plan, data)
    names = tuple(sorted(logs))

    def init(plan: FoldPlan, data: Arrays) -> Carry:
        return Carry(
            states=init_folds(plan, data),
            position=jnp.zeros((), jnp.int32),
            logs=jnp.full((k, epoch_steps, len(names)), jnp.nan, jnp.float32),
        )

    def logged(logs: jax.Array, values: Logs, position: jax.Array) -> jax.Array:
        """`logs` f32[k, S, L] with the values f[k] of a step at its position."""
        row = jnp.stack([values[name].astype(jnp.float32) for name in names], axis=-1)  # (k, L)
        where = (0, position % epoch_steps, 0)
        return jax.lax.dynamic_update_slice(logs, row[:, None], where)

    def train(carry: Carry, plan: FoldPlan, data: Arrays) -> Carry:
        states, logs = train_folds(carry.states, carry.position, plan, data)
        logs = logged(carry.logs, logs, carry.position)
        return Carry(states=states, position=carry.position + 1, logs=logs)

    def train_several(carry: Carry, plan: FoldPlan, data: Arrays) -> Carry:
        return jax.lax.fori_loop(0, steps_per_call, lambda _, c: train(c, plan, data), carry)

    local_folds = _make_lift(num_local, None)(functions.train, (True, False, True, False))

    def busy_steps(
        states: FoldState, logs: jax.Array, start: jax.Array, plan: FoldPlan, data: Arrays
    ) -> tuple[FoldState, jax.Array]:
        """The steps of a call up to the last one that a fold of this device has."""
        valid = jax.lax.dynamic_slice_in_dim(plan.valid, start, steps_per_call, axis=1).any(axis=0)
        count = jnp.max(jnp.where(valid, jnp.arange(1, steps_per_call + 1), 0))

        def body(i: jax.Array, pair: tuple[FoldState, jax.Array]) -> tuple[FoldState, jax.Array]:
            states, values = local_folds(pair[0], start + i, plan, data)
            return states, logged(pair[1], values, start + i)

        return jax.lax.fori_loop(0, count, body, (states, logs))

    def train_busy(carry: Carry, plan: FoldPlan, data: Arrays) -> Carry:
        run = busy_steps
        if mesh is not None:
            # Each device counts its own steps, and asks no other one.
            folds, alike = PartitionSpec("folds"), PartitionSpec()
            run = jax.shard_map(
                busy_steps,
                mesh=mesh,
                in_specs=(folds, folds, alike, folds, alike),
                out_specs=(folds, folds),
                check_vma=False,
            )
        states, logs = run(carry.states, carry.logs, carry.position, plan, data)
        return Carry(states=states, position=carry.position + steps_per_call, logs=logs)

    several = train_busy if skips_idle else train_several
    folded, shared = shardings(mesh, devices[0])
    carried = Carry(states=folded, position=shared, logs=folded)
    return Programs(
        init=jax.jit(init, in_shardings=(folded, shared), out_shardings=carried),
        train=jax.jit(
            train if steps_per_call == 1 else several,
            in_shardings=(carried, folded, shared),
            out_shardings=carried,
            donate_argnums=0,
        ),
        evaluate=jax.jit(
            evaluate, in_shardings=(folded, shared, folded, shared), out_shardings=folded
        ),
        log_names=names,
        folded=folded,
        shared=shared,
    )


def _make_lift(
    num_folds: int, mesh: Mesh | None
) -> Callable[[Callable[..., Any], tuple[bool, ...]], Callable[..., Any]]:
    """The map from functions of one fold to functions of a group.

    Its second argument says which arguments of the function have a fold axis.

    Args:
      num_folds: folds on one device.
      mesh: mesh of all devices; None: one device.
    """

    def alone(function: Callable[..., Any], has_folds: tuple[bool, ...]) -> Callable[..., Any]:
        # An axis of one fold is not without cost: XLA computes some arrays once with it and once
        # without.
        def lifted(*args: Any) -> Any:
            single = [
                jax.tree.map(lambda x: x[0], arg) if has else arg
                for arg, has in zip(args, has_folds, strict=True)
            ]
            return jax.tree.map(lambda x: x[None], function(*single))

        return lifted

    def together(function: Callable[..., Any], has_folds: tuple[bool, ...]) -> Callable[..., Any]:
        if num_folds == 1:
            return alone(function, has_folds)
        return jax.vmap(function, in_axes=tuple(0 if has else None for has in has_folds))

    def sharded(function: Callable[..., Any], has_folds: tuple[bool, ...]) -> Callable[..., Any]:
        # With sharded arrays under jit the partitioner would answer a grouped convolution with
        # all-gathers; with shard_map no fold ever needs another device's data.
        specs = tuple(PartitionSpec("folds") if has else PartitionSpec() for has in has_folds)
        return jax.shard_map(
            together(function, has_folds),
            mesh=mesh,
            in_specs=specs,
            out_specs=PartitionSpec("folds"),
            check_vma=False,
        )

    return together if mesh is None else sharded


def mesh_of(strategy: str, target: Target) -> Mesh | None:
    """The mesh of all devices along the folds for `shard`, otherwise None."""
    if strategy_for(strategy, target) != "shard":
        return None
    return Mesh(np.array(target.devices), ("folds",))


def shardings(mesh: Mesh | None, device: Any) -> tuple[Any, Any]:
    """The places of arrays with a leading fold axis, and of arrays that all folds share."""
    if mesh is None:
        single = SingleDeviceSharding(device)
        return single, single
    return NamedSharding(mesh, PartitionSpec("folds")), NamedSharding(mesh, PartitionSpec())

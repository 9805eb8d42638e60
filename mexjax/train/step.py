"""One fold: how its state is made, advanced by one update, and evaluated.

Pure functions of one fold's arrays. They know one model and one batch; they read no file and
have no fold axis: `folds.py` adds it outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from flax import struct
from ml_collections import ConfigDict

from mexjax.cpu import is_cpu
from mexjax.cpu.ordering import tree_after
from mexjax.ops import flow_frames
from mexjax.train import augment, frozen
from mexjax.train.batches import gather, has_flow, network_batch, prepared_batch
from mexjax.train.optim import Optimizer

Arrays = Mapping[str, Any]


@struct.dataclass
class FoldPlan:
    """What one fold trains on and is scored on. Stacked over folds it has a leading F.

    Attributes:
      fold_id: i32[], number of the fold in the whole protocol: names its random streams.
      seed: u32[], of the run. Data, not a constant: another seed is the same program.
      idx: i32[S, B], rows of the dataset in each batch.
      weight: f32[S, B], 1 for a sample, 0 for padding.
      valid: bool[S], False for a step this fold does not have.
      total_steps: i32[], number of valid steps.
      epoch_steps: i32[], valid steps of one epoch.
      scale: f32[2, 2], (mean, maximum) of the training and of the evaluated split.
      eval_idx: i32[J, M], rows of the dataset in each evaluation batch (padding repeats a row).
      extras: what the paper's `fold_arrays` gives of the fold, entries of its training batches.
    """

    fold_id: jax.Array
    seed: jax.Array
    idx: jax.Array
    weight: jax.Array
    valid: jax.Array
    total_steps: jax.Array
    epoch_steps: jax.Array
    scale: jax.Array
    eval_idx: jax.Array
    extras: dict[str, jax.Array] = struct.field(default_factory=dict)


@struct.dataclass
class FoldState:
    """Everything one fold carries from update to update."""

    params: Any
    batch_stats: Any
    opt_state: Any
    step: jax.Array  # i32[], updates made: invalid steps do not count


class FoldFunctions(NamedTuple):
    """The three pure functions of one fold."""

    init: Callable[[FoldPlan, Arrays], FoldState]
    train: Callable[
        [FoldState, jax.Array, FoldPlan, Arrays], tuple[FoldState, dict[str, jax.Array]]
    ]
    evaluate: Callable[[FoldState, jax.Array, FoldPlan, Arrays], dict[str, jax.Array]]


def make_fold_functions(
    config: ConfigDict,
    module: nn.Module,
    paper: ModuleType,
    optimizer: Optimizer,
    *,
    has_invalid_steps: bool,
) -> FoldFunctions:
    """Bind model, loss and optimizer into the three functions of one fold.

    Args:
      config: the whole configuration.
      module: the linen module `paper.make` gave.
      paper: the file of the model, for its `inputs`, `targets`, `loss` and
        `predictions`.
      optimizer: see `mexjax.train.optim`.
      has_invalid_steps: whether any fold of the run has steps it must sit out. Without them the
        guard, which rereads the whole state, is left out of the program.

    Returns:
      `init(plan, data)`, `train(state, position, plan, data)` and
      `evaluate(state, j, plan, data)`; `data` is the dataset on the device and, of networks that
      keep some of their parameters, what `mexjax.train.frozen.shared_arrays` gives as `frozen`;
      `position` is the number of the step in the plan and `j` that of the evaluation batch.
    """
    is_split_scaled = config.data.split_scale != "none"
    mirror = flow_frames.mirror if has_flow(config) else augment.mirror
    num_images = flow_frames.NUM_IMAGES if has_flow(config) else None
    freezes = bool(config.model.get("freeze_bn_after_epoch_1", False))

    def fold_key(plan: FoldPlan, purpose: int) -> jax.Array:
        # threefry: the stream of a fold is the same alone and in any group of folds.
        root = jax.random.key(plan.seed, impl="threefry2x32")
        return jax.random.fold_in(jax.random.fold_in(root, purpose), plan.fold_id)

    def seen(data: Arrays, frames: jax.Array, idx: jax.Array, scale: jax.Array) -> dict:
        own = scale if is_split_scaled else None
        return network_batch(config, paper, data, frames, idx, own)

    def whole(params: Any, data: Arrays) -> Any:
        return frozen.merge(params, data["frozen"]["kept"]) if "frozen" in data else params

    def is_prepared(data: Arrays) -> bool:
        return "per_clip" in data.get("frozen", {})

    def init(plan: FoldPlan, data: Arrays) -> FoldState:
        idx = jnp.zeros((2,), jnp.int32)
        frames = augment.center_crop(gather(data, idx), config.augment)
        batch = network_batch(config, paper, data, frames, idx) | plan.extras
        keys = jax.random.split(fold_key(plan, 0), 3)
        rngs = dict(zip(("params", "drop_path", "dropout"), keys, strict=True))
        variables = module.init(rngs, batch, train=False)
        params, _ = frozen.split(variables["params"], paper, config.model)
        if "frozen" in data:
            params = frozen.started(params, data["frozen"]["start"])
        statistics = variables.get("batch_stats", {})
        given = data.get("frozen", {}).get("start_statistics", {})
        return FoldState(
            params=params,
            batch_stats=frozen.started(statistics, given),
            opt_state=optimizer.transform.init(params),
            step=jnp.zeros((), jnp.int32),
        )

    def loss_fn(
        params: Any, batch_stats: Any, batch: dict[str, jax.Array], key: jax.Array, data: Arrays
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        keys = jax.random.split(key)
        outputs, updated = module.apply(
            {"params": whole(params, data), "batch_stats": batch_stats},
            batch,
            train=True,
            mutable=["batch_stats"],
            rngs={"drop_path": keys[0], "dropout": keys[1]},
        )
        per_sample, logs = paper.loss(outputs, batch, config.model)
        weight = batch["weight"]
        total = jnp.maximum(weight.sum(), 1.0)

        def mean(values: jax.Array) -> jax.Array:
            # `where`, not a product alone: a padded sample's loss may be anything.
            return jnp.where(weight > 0, weight * values, 0.0).sum() / total

        loss = mean(per_sample)
        logs = {"loss": loss} | {name: mean(values) for name, values in logs.items()}
        return loss, (logs, updated.get("batch_stats", {}))

    if config.train.is_remat:
        loss_fn = jax.checkpoint(loss_fn)

    def train(
        state: FoldState, position: jax.Array, plan: FoldPlan, data: Arrays
    ) -> tuple[FoldState, dict[str, jax.Array]]:
        idx, weight, valid = plan.idx[position], plan.weight[position], plan.valid[position]
        key_augment, key_model = jax.random.split(
            # By the fold's own step, not its place in the plan, which depends on longer folds.
            jax.random.fold_in(fold_key(plan, 1), state.step)
        )
        if is_prepared(data):
            batch = prepared_batch(data, idx)
        else:
            frames = gather(data, idx, train=True)
            frames = augment.augment(frames, key_augment, config.augment, mirror, num_images)
            batch = seen(data, frames, idx, plan.scale[0]) | paper.targets(frames, config.model)
        batch |= {
            "label": data["labels"][idx],
            "subject": data["subjects"][idx],
            "weight": weight,
            **plan.extras,
        }
        if freezes:
            batch["is_frozen"] = state.step >= plan.epoch_steps
        (_, (logs, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.batch_stats, batch, key_model, data
        )
        grads = _after(grads, grads)
        updates, _ = optimizer.transform.update(grads, state.opt_state, state.params)
        rate = optimizer.rate(state.step, plan.total_steps, plan.epoch_steps)
        factors = _rate_factors(updates, paper, config.model)
        updates = jax.tree.map(lambda update, factor: -rate * factor * update, updates, factors)

        def kept(after: Any, before: Any) -> Any:
            """`after`, but `before` in a step that the fold does not have."""
            if not has_invalid_steps:
                return after
            return jax.tree.map(lambda a, b: jnp.where(valid, a, b), after, before)

        params = kept(optax.apply_updates(state.params, updates), state.params)
        # Once more: the new moments take the place of the old ones, which the updates are made of.
        old = _after(state.opt_state, params)
        _, opt_state = optimizer.transform.update(grads, old, state.params)
        new = FoldState(
            params=params,
            batch_stats=kept(batch_stats, state.batch_stats),
            opt_state=kept(opt_state, state.opt_state),
            step=kept(state.step + 1, state.step),
        )
        if has_invalid_steps:
            logs = jax.tree.map(lambda value: jnp.where(valid, value, jnp.nan), logs)
        return new, logs

    def evaluate(
        state: FoldState, j: jax.Array, plan: FoldPlan, data: Arrays
    ) -> dict[str, jax.Array]:
        idx = plan.eval_idx[j]
        variables = {"params": whole(state.params, data), "batch_stats": state.batch_stats}

        def predict(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
            found = paper.predictions(module.apply(variables, batch, train=False))
            left_out = () if config.eval.keeps_features else getattr(paper, "ON_REQUEST", ())
            return {name: value for name, value in found.items() if name not in left_out}

        if is_prepared(data):
            return predict(prepared_batch(data, idx))
        frames = augment.center_crop(gather(data, idx), config.augment)
        found = predict(seen(data, frames, idx, plan.scale[1]))
        if config.eval.is_flip_averaged:
            mirrored = predict(seen(data, mirror(frames), idx, plan.scale[1]))
            found["logits"] = (found["logits"] + mirrored["logits"]) / 2
        return found

    return FoldFunctions(init, train, evaluate)


def _after(tree: Any, other: Any) -> Any:
    """`tree`, on a CPU not before `other`.

    The new state takes the place of the old one. XLA:CPU copies what is in that place, in front of
    a step, unless every use of it comes first however the program is ordered. So the gradients,
    which are made of the parameters, are complete before the first new parameter, and these before
    the new moments. The parameters are still copied, which the new ones, and with L2 the new
    moments, are made of.
    """
    return tree_after(tree, other) if is_cpu() else tree


def _rate_factors(tree: Any, paper: ModuleType, model_config: ConfigDict) -> Any:
    """What the learning rate is multiplied with at each leaf of a tree of parameters."""
    factor = getattr(paper, "rate_factor", lambda path, model_config: 1.0)
    flat = flax.traverse_util.flatten_dict(tree)
    return flax.traverse_util.unflatten_dict({path: factor(path, model_config) for path in flat})

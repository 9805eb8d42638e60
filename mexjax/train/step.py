"""One fold: its state is made, advanced by one update, and evaluated.

These are pure functions of one fold's arrays. They know one model and one batch; they read no file
and have no fold axis, which `fold_axis.py` adds outside.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from flax import struct
from ml_collections import ConfigDict

from mexjax.models.paper import Paper
from mexjax.train import frozen, trial_numbers
from mexjax.train.batches import Batch, BatchMaker, is_prepared, prepared_batch
from mexjax.train.draws import alike_at_once
from mexjax.train.optim import Optimizer, make_optimizer

Arrays = Mapping[str, Any]
Logs = dict[str, jax.Array]
# An array of a plan: it is NumPy's on the host, where plans are made, and JAX's in a program.
PlanArray = Any
# Purposes of the random streams of a fold.
_INIT, _TRAIN = 0, 1


@struct.dataclass
class FoldPlan:
    """The samples that one fold trains on and is scored on; stacked over folds with a leading F.

    Attributes:
      fold_id: i32[], number of the fold in the whole protocol; it names its random streams.
      seed: u32[], seed of the run. It is data, so that another seed is the same program.
      idx: i32[S, B], rows of the dataset in each batch.
      weight: f32[S, B], 1 for a sample, 0 for padding.
      valid: bool[S], False for a step this fold does not have.
      total_steps: i32[], number of valid steps.
      epoch_steps: i32[], valid steps of one epoch.
      scale: f32[2, 2], (mean, maximum) of the training and of the evaluated split.
      eval_idx: i32[J, M], rows of the dataset in each evaluation batch (padding repeats a row).
      extras: the paper's `fold_arrays` of the fold, entries of its training batches.
      values: f32[], numbers of the program that differ between the trials of a sweep, by dotted
        key (`mexjax.train.trial_numbers`); they take the place of those of the configuration.
    """

    fold_id: PlanArray
    seed: PlanArray
    idx: PlanArray
    weight: PlanArray
    valid: PlanArray
    total_steps: PlanArray
    epoch_steps: PlanArray
    scale: PlanArray
    eval_idx: PlanArray
    extras: dict[str, PlanArray] = struct.field(default_factory=dict)
    values: dict[str, PlanArray] = struct.field(default_factory=dict)


@struct.dataclass
class FoldState:
    """Everything one fold carries from update to update."""

    params: Any
    batch_stats: Any
    opt_state: Any
    step: jax.Array  # i32[], number of updates: invalid steps do not count


@dataclasses.dataclass(frozen=True)
class FoldFunctions:
    """The three pure functions of one fold: `init`, `train` and `evaluate`.

    Their argument `data` is the dataset on the device. For networks that keep some of their
    parameters it has an entry `frozen`, see `mexjax.train.frozen.shared_arrays`.

    Attributes:
      config: the whole configuration.
      paper: the paper.
      options: options of the paper.
      module: the network.
      optimizer: see `mexjax.train.optim`.
      has_invalid_steps: True if any fold of the run has steps it must sit out. Without them the
        guard, which rereads the whole state, is left out of the program.
      values: see `at`.
    """

    config: ConfigDict
    paper: Paper
    options: Any
    module: nn.Module
    optimizer: Optimizer
    has_invalid_steps: bool
    values: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)

    @property
    def batches(self) -> BatchMaker:
        """The maker of this paper's batches."""
        strengths = trial_numbers.of_section(self.values, "augment")
        return BatchMaker(self.config, self.paper, self.options, strengths)

    def at(self, values: Mapping[str, jax.Array]) -> FoldFunctions:
        """These functions with numbers f32[] in the place of keys, see `FoldPlan.values`."""
        if not values:
            return self
        train = trial_numbers.of_section(values, "train")
        return dataclasses.replace(
            self,
            options=dataclasses.replace(self.options, **trial_numbers.of_section(values, "model")),
            optimizer=make_optimizer(self.config.train, train),
            values=values,
        )

    def init(self, plan: FoldPlan, data: Arrays) -> FoldState:
        """The state before the first update."""
        batch = self.batches.plain_batch(data, jnp.zeros((2,), jnp.int32)) | plan.extras
        keys = jax.random.split(_fold_key(plan, _INIT), 3)
        names = ("params", "drop_path", "dropout")
        rngs: dict[str, jax.Array] = dict(zip(names, keys, strict=True))
        variables = alike_at_once(functools.partial(self.module.init, train=False), rngs, batch)
        params, _ = frozen.split(variables["params"], self.paper, self.options)
        if "frozen" in data:
            params = frozen.started(params, data["frozen"]["start"])
        statistics = variables.get("batch_stats") or {}
        start = data.get("frozen", {}).get("start_statistics", {})
        return FoldState(
            params=params,
            batch_stats=frozen.started(statistics, start),
            opt_state=self.optimizer.transform.init(params),
            step=jnp.zeros((), jnp.int32),
        )

    def train(
        self, state: FoldState, position: jax.Array, plan: FoldPlan, data: Arrays
    ) -> tuple[FoldState, Logs]:
        """One update.

        Args:
          state: the state before it.
          position: i32[], number of the step in the plan.
          plan: plan of the fold.
          data: see the class.

        Returns:
          The state after it, and the logged values. In a step that the fold does not have, these
          are the same state and NaN.
        """
        if plan.values and not self.values:
            return self.at(plan.values).train(state, position, plan, data)
        idx, weight, valid = plan.idx[position], plan.weight[position], plan.valid[position]
        # Keys follow the fold's own step: its place in the plan depends on longer folds.
        key_augment, key_model = jax.random.split(
            jax.random.fold_in(_fold_key(plan, _TRAIN), state.step)
        )
        batch = self._training_batch(data, idx, key_augment, plan)
        batch |= {"weight": weight, **plan.extras}
        if self.paper.freezes_norms(self.options):
            batch["is_frozen"] = state.step >= plan.epoch_steps
        loss = jax.checkpoint(self._loss) if self.config.train.is_remat else self._loss
        (_, (logs, statistics)), gradients = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.batch_stats, batch, key_model, data
        )

        def kept(after: Any, before: Any) -> Any:
            """`after`, but `before` in a step that the fold does not have."""
            if not self.has_invalid_steps:
                return after
            return jax.tree.map(lambda a, b: jnp.where(valid, a, b), after, before)

        time = (state.step, plan.total_steps, plan.epoch_steps)
        params, opt_state = self.optimizer.update_in_place(
            gradients, state.params, state.opt_state, time, self._rate_factors(gradients), kept
        )
        after = FoldState(
            params=params,
            batch_stats=kept(statistics, state.batch_stats),
            opt_state=kept(opt_state, state.opt_state),
            step=kept(state.step + 1, state.step),
        )
        if self.has_invalid_steps:
            logs = jax.tree.map(lambda value: jnp.where(valid, value, jnp.nan), logs)
        return after, logs

    def evaluate(
        self, state: FoldState, j: jax.Array, plan: FoldPlan, data: Arrays
    ) -> dict[str, jax.Array]:
        """The paper's predictions for evaluation batch j i32[]."""
        idx = plan.eval_idx[j]
        if is_prepared(data):
            return self._predict(state, prepared_batch(data, idx), data)
        frames = self.batches.plain_frames(data, idx)
        batch = self.batches.batch(data, frames, idx, plan.scale[1])
        outputs = self._predict(state, batch, data)
        if self.config.eval.is_flip_averaged:
            flipped = self.batches.mirror(frames)
            batch = self.batches.batch(data, flipped, idx, plan.scale[1])
            mirrored = self._predict(state, batch, data)
            outputs["logits"] = (outputs["logits"] + mirrored["logits"]) / 2
        return outputs

    def _training_batch(
        self, data: Arrays, idx: jax.Array, key: jax.Array, plan: FoldPlan
    ) -> Batch:
        """The augmented clips idx i[B], with targets, labels and subjects."""
        if is_prepared(data):
            batch = prepared_batch(data, idx)
        else:
            frames = self.batches.augmented_frames(data, idx, key)
            batch = self.batches.batch(data, frames, idx, plan.scale[0])
            batch |= self.paper.targets(frames, self.options)
        return batch | {"label": data["labels"][idx], "subject": data["subjects"][idx]}

    def _loss(
        self, params: Any, batch_stats: Any, batch: Batch, key: jax.Array, data: Arrays
    ) -> tuple[jax.Array, tuple[Logs, Any]]:
        """The mean loss of a batch, and its logged parts with the new batch statistics."""
        keys = jax.random.split(key)
        outputs, updated = self.module.apply(
            {"params": _whole(params, data), "batch_stats": batch_stats},
            batch,
            train=True,
            mutable=["batch_stats"],
            rngs={"drop_path": keys[0], "dropout": keys[1]},
        )
        per_sample, parts = self.paper.loss(outputs, batch, self.options)
        weight = batch["weight"]
        total = jnp.maximum(weight.sum(), 1.0)

        def mean(values: jax.Array) -> jax.Array:
            # A product alone will not do: the loss of a padded sample may be infinite.
            return jnp.where(weight > 0, weight * values, 0.0).sum() / total

        loss = mean(per_sample)
        logs = {"loss": loss} | {name: mean(values) for name, values in parts.items()}
        return loss, (logs, updated.get("batch_stats", {}))

    def _predict(self, state: FoldState, batch: Batch, data: Arrays) -> dict[str, jax.Array]:
        params = _whole(state.params, data)
        variables = {"params": params, "batch_stats": state.batch_stats}
        # Flax states another result, for calls with `mutable`.
        outputs = cast(Mapping[str, jax.Array], self.module.apply(variables, batch, train=False))
        predictions = self.paper.predictions(outputs)
        left_out = () if self.config.eval.keeps_features else self.paper.on_request
        return {name: value for name, value in predictions.items() if name not in left_out}

    def _rate_factors(self, params: Any) -> Any:
        """The factor of the learning rate at each leaf of a tree like that of the parameters."""
        flat = flax.traverse_util.flatten_dict(params)
        return flax.traverse_util.unflatten_dict(
            {path: self.paper.rate_factor(path, self.options) for path in flat}
        )


def _fold_key(plan: FoldPlan, purpose: int) -> jax.Array:
    # With threefry the stream of a fold is the same alone and in any group of folds.
    root = jax.random.key(plan.seed, impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(root, purpose), plan.fold_id)


def _whole(params: Any, data: Arrays) -> Any:
    """All parameters of the network, the trained ones and the kept ones."""
    return frozen.merge(params, data["frozen"]["kept"]) if "frozen" in data else params

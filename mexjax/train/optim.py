"""Optimizers whose learning rate is a function of where a fold is in its own training.

Folds of one program have different lengths, so the rate cannot be a schedule over one global
step: it is computed in the step from the fold's own step, total and epoch length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mexjax.cpu import is_cpu
from mexjax.cpu.ordering import tree_after
from mexjax.errors import ConfigError, unknown_name

Tree = Any
Rate = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Optimizer(NamedTuple):
    """`update = -rate(step, total_steps, epoch_steps) * factor * transform(gradient)`."""

    transform: optax.GradientTransformation
    rate: Rate

    def update_in_place(
        self,
        gradients: Tree,
        params: Tree,
        opt_state: Any,
        time: tuple[jax.Array, jax.Array, jax.Array],
        factors: Tree,
        kept: Callable[[Any, Any], Any],
    ) -> tuple[Tree, Any]:
        """New parameters and moments, which take the place of the old ones on a CPU too.

        XLA:CPU copies an old array before a step unless every use of it comes first, however the
        program is ordered. So the gradients, which the parameters give, are complete before the
        first new parameter, and the new parameters before the new moments. The parameters are still
        copied, for the new ones and, with L2, the new moments are computed from them.

        Args:
          gradients: gradients of the parameters.
          params: parameters before the update.
          opt_state: state of `transform` before the update.
          time: step, total steps and steps of an epoch, i32[] each.
          factors: factor of the learning rate, a float for each parameter.
          kept: gives its second argument, the value before, in a step that changes nothing.
        """
        gradients = _after(gradients, gradients)
        updates, _ = self.transform.update(gradients, opt_state, params)
        rate = self.rate(*time)
        updates = jax.tree.map(lambda update, factor: -rate * factor * update, updates, factors)
        new_params = kept(optax.apply_updates(params, updates), params)
        # The transform is computed once more: the new moments take the place of the old ones, from
        # which the updates are computed.
        old_state = _after(opt_state, new_params)
        _, new_state = self.transform.update(gradients, old_state, params)
        return new_params, new_state


def _after(tree: Tree, other: Tree) -> Tree:
    """`tree`, which on a CPU is not used before `other`."""
    return tree_after(tree, other) if is_cpu() else tree


# Keys of `train` that are numbers of the program: their values may be traced arrays.
NUMBERS = (
    *("learning_rate", "weight_decay", "momentum", "beta1", "beta2", "epsilon"),
    *("grad_clip_norm", "warmup_fraction", "decay_per_epoch"),
)


def make_optimizer(config: ConfigDict, values: Mapping[str, Any] | None = None) -> Optimizer:
    """Builds the optimizer of `config.train`.

    Args:
      config: the `train` section of the configuration.
      values: numbers f32[] that take the place of keys in `NUMBERS`. A key that is zero in
        `config` and switches a part off leaves it off.

    Returns:
      A gradient transformation without learning rate, and the rate as a function of the
      step (i32[], counted from 0), the fold's total number of steps and its steps per epoch.

    Raises:
      ConfigError: an optimizer or a schedule that does not exist.
    """
    number = {name: config[name] for name in NUMBERS} | dict(values or {})
    parts = []
    if config.grad_clip_norm > 0:
        parts.append(optax.clip_by_global_norm(number["grad_clip_norm"]))
    decay, by_name = None, config.decays_kernels_only
    if config.weight_decay > 0:
        decay = optax.add_decayed_weights(number["weight_decay"], _are_kernels if by_name else None)
    adam = optax.scale_by_adam(b1=number["beta1"], b2=number["beta2"], eps=number["epsilon"])
    momentum = optax.trace(decay=number["momentum"])
    # L2 enters the gradient before the moments; decoupled decay comes after them.
    orders = {"adam": (decay, adam), "adamw": (adam, decay), "sgd": (decay, momentum)}
    if config.optimizer not in orders:
        raise ConfigError(unknown_name("train.optimizer", config.optimizer, orders))
    parts += [part for part in orders[config.optimizer] if part is not None]
    # A GPU would cut the vector up again, into a kernel for each parameter.
    is_fused = config.is_update_fused and is_cpu()
    if is_fused and by_name:
        # One vector has no names: a part that goes by name stays a tree.
        parts = [part if part is decay else optax.flatten(part) for part in parts]
    transform = optax.chain(*parts)
    if is_fused and not by_name:
        transform = optax.flatten(transform)
    return Optimizer(transform, make_rate(config, values))


def _are_kernels(params: optax.Params) -> optax.Params:
    """A tree of bool, true for a leaf that is a matrix and multiplies inputs."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: str(path[-1].key).endswith("kernel"), params
    )


def make_rate(config: ConfigDict, values: Mapping[str, Any] | None = None) -> Rate:
    """The learning rate `f(step, total_steps, epoch_steps)` of `config.schedule`.

    Args:
      config: the `train` section of the configuration.
      values: see `make_optimizer`.
    """
    number = {name: config[name] for name in NUMBERS} | dict(values or {})
    peak, decay_per_epoch = number["learning_rate"], number["decay_per_epoch"]

    def constant(step: jax.Array, total: jax.Array, epoch: jax.Array) -> jax.Array:
        del step, total, epoch
        return jnp.asarray(peak, jnp.float32)

    def cosine(step: jax.Array, total: jax.Array, epoch: jax.Array) -> jax.Array:
        del epoch
        part = jnp.clip(step / jnp.maximum(total, 1), 0.0, 1.0)
        return peak * 0.5 * (1.0 + jnp.cos(jnp.pi * part))

    def one_cycle(step: jax.Array, total: jax.Array, epoch: jax.Array) -> jax.Array:
        # This is Smith & Topin 2018 with the common start at 1/25: up and down by a cosine.
        del epoch
        part = jnp.clip(step / jnp.maximum(total, 1), 0.0, 1.0)
        warm = number["warmup_fraction"]
        warm = max(warm, 1e-6) if isinstance(warm, float | int) else jnp.maximum(warm, 1e-6)
        up = 0.04 + 0.96 * 0.5 * (1.0 - jnp.cos(jnp.pi * jnp.minimum(part / warm, 1.0)))
        down = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip((part - warm) / (1.0 - warm), 0.0, 1.0)))
        return peak * jnp.where(part < warm, up, down)

    def epoch_decay(step: jax.Array, total: jax.Array, epoch: jax.Array) -> jax.Array:
        del total
        epochs = step // jnp.maximum(epoch, 1)
        if config.decay_epochs > 0:
            epochs = jnp.minimum(epochs, config.decay_epochs)
        return peak * decay_per_epoch ** epochs.astype(jnp.float32)

    def milestones(step: jax.Array, total: jax.Array, epoch: jax.Array) -> jax.Array:
        del total
        epochs = step // jnp.maximum(epoch, 1)
        passed = sum((jnp.float32(epochs >= at) for at in config.milestones), jnp.float32(0))
        return peak * decay_per_epoch**passed

    rates = {
        "constant": constant,
        "cosine": cosine,
        "one_cycle": one_cycle,
        "epoch_decay": epoch_decay,
        "milestones": milestones,
    }
    if config.schedule not in rates:
        raise ConfigError(unknown_name("train.schedule", config.schedule, rates))
    return rates[config.schedule]

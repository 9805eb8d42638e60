"""Learning rates over a fold's own length, and the order of weight decay."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import small_config

from mexjax.errors import ConfigError
from mexjax.train.optim import make_optimizer, make_rate


def rate(schedule, step, total=100, epoch=10, **changes):
    named = {f"train__{key}": value for key, value in changes.items()}
    config = small_config(train__schedule=schedule, train__learning_rate=2.0, **named).train
    return float(make_rate(config)(jnp.int32(step), jnp.int32(total), jnp.int32(epoch)))


def test_rates_at_their_landmarks():
    assert rate("constant", 70) == 2.0
    assert rate("cosine", 0) == 2.0
    assert rate("cosine", 50) == pytest.approx(1.0)
    assert rate("cosine", 100) == pytest.approx(0.0, abs=1e-6)
    assert rate("one_cycle", 0, warmup_fraction=0.2) == pytest.approx(2.0 / 25)
    assert rate("one_cycle", 20, warmup_fraction=0.2) == pytest.approx(2.0)
    assert rate("one_cycle", 100, warmup_fraction=0.2) == pytest.approx(0.0, abs=1e-6)
    assert rate("epoch_decay", 29, decay_per_epoch=0.5) == pytest.approx(0.5)
    assert rate("epoch_decay", 99, decay_per_epoch=0.5, decay_epochs=3) == pytest.approx(0.25)
    stepped = {"decay_per_epoch": 0.1, "milestones": (4, 7)}
    found = [rate("milestones", step, **stepped) for step in (0, 39, 40, 69, 70, 99)]
    assert found == pytest.approx([2.0, 2.0, 0.2, 0.2, 0.02, 0.02])
    assert rate("milestones", 99) == 2.0


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("adam", optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.01))),
        ("adamw", optax.adamw(0.01, weight_decay=0.1)),
        ("sgd", optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.01, momentum=0.9))),
    ],
)
def test_updates_equal_those_of_optax(name, reference):
    config = small_config(
        train__optimizer=name,
        train__weight_decay=0.1,
        train__learning_rate=0.01,
        train__schedule="constant",
    ).train
    ours = make_optimizer(config)
    params = mine = {"w": jnp.array([1.0, -2.0, 3.0])}
    state, other = ours.transform.init(params), reference.init(params)
    for step in range(3):
        grads = {"w": jnp.array([0.3, 0.1, -0.2]) * (step + 1)}
        updates, state = ours.transform.update(grads, state, mine)
        scale = ours.rate(jnp.int32(step), jnp.int32(9), jnp.int32(3))
        mine = optax.apply_updates(mine, {"w": -scale * updates["w"]})
        updates, other = reference.update(grads, other, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(mine["w"], params["w"], rtol=1e-6)


PARAMS = {
    "backbone": {"conv": {"kernel": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}},
    "head": {"fc1_kernel": jnp.ones(3), "fc1_bias": jnp.ones(3)},
}


@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_decay_of_kernels_alone(name, is_fused):
    config = small_config(
        train__optimizer=name,
        train__weight_decay=0.1,
        train__decays_kernels_only=True,
        train__is_update_fused=is_fused,
    ).train
    transform = make_optimizer(config).transform
    grads = jax.tree.map(lambda p: jnp.full_like(p, 0.01), PARAMS)
    updates, _ = transform.update(grads, transform.init(PARAMS), PARAMS)
    # Adam's first step is the sign of what it is given; decoupled decay comes on top.
    decayed = 1.1 if name == "adamw" else 1.0
    wanted = {
        "backbone": {"conv": {"kernel": decayed}, "norm": {"scale": 1.0}},
        "head": {"fc1_kernel": decayed, "fc1_bias": 1.0},
    }
    for path, found in jax.tree_util.tree_flatten_with_path(updates)[0]:
        value = wanted
        for key in path:
            value = value[key.key]
        np.testing.assert_allclose(found, value, rtol=1e-4)


def test_coupled_decay_enters_the_moments():
    """What torch.optim.Adam does: without a gradient the decayed kernel still moves by the rate."""
    config = small_config(train__weight_decay=0.1, train__decays_kernels_only=True).train
    config.optimizer = "adam"
    transform = make_optimizer(config).transform
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = transform.update(zeros, transform.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["backbone"]["conv"]["kernel"], 1.0, rtol=1e-5)
    assert not updates["backbone"]["norm"]["scale"].any()


def test_unknown_names_list_the_known():
    with pytest.raises(ConfigError, match=r"'adamm'.*Did you mean 'adam"):
        make_optimizer(small_config(train__optimizer="adamm").train)
    with pytest.raises(ConfigError, match="Known: constant, cosine, epoch_decay, milestones"):
        make_optimizer(small_config(train__schedule="steps").train)

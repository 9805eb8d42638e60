"""Arrays that exist no earlier than another one decide nothing, and save memory."""

from __future__ import annotations

import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import needs_cpu
from small import small_config

from mexjax.cpu.ordering import copy_after, empty_after, tree_after, zeros_after
from mexjax.ops.conv import choice, conv2d
from mexjax.train import optim
from mexjax.train.programs import device_data, trace_step
from mexjax.train.study import Study, make_study


@pytest.mark.parametrize("value", [0.0, -1.0, jnp.nan, jnp.inf, -jnp.inf])
def test_what_is_in_the_other_array_does_not_matter(value):
    x = jnp.full((2, 3), value)
    a = jnp.asarray([1.5, -0.25, jnp.inf])
    np.testing.assert_array_equal(zeros_after(x, (4, 1), jnp.float32), np.zeros((4, 1)))
    np.testing.assert_array_equal(copy_after(a, x), a)
    tree = {"a": a, "count": jnp.arange(3)}
    copies = tree_after(tree, [x, a])
    chex.assert_trees_all_equal(copies, tree)
    chex.assert_trees_all_equal_shapes_and_dtypes(copies, tree)
    chex.assert_shape(empty_after(x, (5, 2), jnp.bfloat16), (5, 2))


@needs_cpu()
def test_one_program_holds_what_comes_first_no_longer_than_it_needs():
    """Ten sums, one after the other, whose zeros a compiler could make before the first."""

    def chain(x, make):
        for _ in range(10):
            total = jax.lax.fori_loop(
                0, 3, lambda i, total, x=x: total + x * i, make(x, x.shape, x.dtype)
            )
            x = jnp.sin(total) @ x
        return x

    def temporary_bytes(make):
        x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
        compiled = jax.jit(lambda x: chain(x, make)).lower(x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    late = temporary_bytes(zeros_after)
    early = temporary_bytes(lambda x, shape, dtype: jnp.zeros(shape, dtype))
    assert late <= early
    assert late < 8 * 256 * 256 * 4


@pytest.mark.parametrize(
    ("name", "points"), [("winograd2", 16), ("winograd4", 36), ("dense_map", 16)]
)
@needs_cpu()
def test_convolutions_do_not_hold_what_their_kernels_become(name, points):
    """That is made of weights alone, which are there before the first layer and the last."""
    channels, num_layers = 64, 6
    weights = [jax.ShapeDtypeStruct((3, 3, channels, channels), jnp.float32)] * num_layers
    size = 2 if name == "dense_map" else 4
    x = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)

    def loss(weights, x):
        with choice.use_lowering(name):
            for w in weights:
                x = jnp.tanh(conv2d(x, w))
        return x.sum()

    compiled = jax.jit(jax.grad(loss)).lower(weights, x).compile()
    transformed = points * channels * channels * 4
    # Each has one for the forward pass and one for the input gradient.
    assert compiled.memory_analysis().temp_size_in_bytes < num_layers * transformed


def copied_numbers(study: Study) -> int:
    """Numbers of the carried state that a training step copies before it does anything else."""
    program = trace_step(study, device_data(study)).lower().compile().as_text()
    copies = re.findall(r" = f32\[([\d,]+)\]\S* copy\(%carry", program)
    return sum(math.prod(map(int, shape.split(","))) for shape in copies)


@needs_cpu()
def test_a_step_copies_no_moments(monkeypatch):
    """The networks' own training step keeps its moments in place where a fold sits steps out."""
    study = make_study(small_config(train__weight_decay=0.0, train__batch_size=4))
    assert not study.plan.valid.all()  # else the guard is left out
    ordered = copied_numbers(study)
    monkeypatch.setattr(optim, "_after", lambda tree, other: tree)
    # The parameters may still be copied.
    assert ordered < 0.6 * copied_numbers(study)


def test_empty_arrays_and_trees():
    nothing = jnp.zeros((0, 3))
    np.testing.assert_array_equal(copy_after(jnp.ones(2), nothing), np.ones(2))
    assert tree_after({"a": 1.0}, {}) == {"a": 1.0}

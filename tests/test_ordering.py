"""Arrays that exist no earlier than another one decide nothing, and save memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mexjax.ops.ordering import again_after, room_after, tree_after, zeros_after


@pytest.mark.parametrize("value", [0.0, -1.0, jnp.nan, jnp.inf, -jnp.inf])
def test_what_is_in_the_other_array_does_not_matter(value):
    x = jnp.full((2, 3), value)
    a = jnp.asarray([1.5, -0.25, jnp.inf])
    np.testing.assert_array_equal(zeros_after(x, (4, 1), jnp.float32), np.zeros((4, 1)))
    np.testing.assert_array_equal(again_after(a, x), a)
    tree = {"a": a, "count": jnp.arange(3)}
    copies = tree_after(tree, [x, a])
    jax.tree.map(np.testing.assert_array_equal, copies, tree)
    assert copies["count"].dtype == tree["count"].dtype
    assert room_after(x, (5, 2), jnp.bfloat16).shape == (5, 2)


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


def test_the_state_is_updated_in_its_place():
    """What `mexjax.step` does, of two layers with Adam: no copy of parameters or moments."""
    transform = optax.scale_by_adam()

    def step(params, state, x, *, is_ordered):
        def loss(params):
            return jnp.square(jnp.tanh(x @ params["a"]) @ params["b"]).sum()

        after = tree_after if is_ordered else lambda tree, other: tree
        grads = jax.grad(loss)(params)
        grads = after(grads, grads)
        updates, new_state = transform.update(grads, state, params)
        new = optax.apply_updates(params, updates)
        if is_ordered:
            _, new_state = transform.update(grads, after(state, new), params)
        return new, new_state

    params = {name: jnp.ones((512, 512)) * 0.01 for name in "ab"}
    x = jnp.linspace(-1, 1, 4 * 512).reshape(4, 512)
    state = transform.init(params)
    results, copies = [], []
    for is_ordered in (True, False):
        function = jax.jit(
            lambda p, s, x, is_ordered=is_ordered: step(p, s, x, is_ordered=is_ordered),
            donate_argnums=(0, 1),
        )
        compiled = function.lower(params, state, x).compile()
        copies.append(compiled.as_text().count("f32[512,512]{1,0} copy("))
        results.append(compiled(*jax.tree.map(jnp.copy, (params, state)), x))
    assert copies[0] == 0 <= copies[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *results)

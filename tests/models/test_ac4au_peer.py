"""AC4AU in PyTorch, as the benchmarks time it, is the same network and trains on the same thing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack
from fdp_helpers import jit
from papers import acting, keys_of, loss_of, network_of
from rule_weights import rule_array

from mexjax.interop import common
from mexjax.train.augment import LUMA

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
from torch_peer import ac4au as peer  # noqa: E402
from torch_peer import training  # noqa: E402

EXTRAS = ("unit_share", "is_training_subject")
SMALL = {
    "preset": "scratch",
    "backbone_divisor": 8,
    "backbone_depths": (1, 2, 1),
    "emb_dim": 32,
    "spatial_mlp_width": 16,
    "temporal_mlp_width": 32,
    "expert_width": 8,
    "spatial_dropout_rate": 0.0,
    "temporal_dropout_rate": 0.0,
    "expert_dropout_rate": 0.0,
}


@pytest.mark.slow
def test_the_peer_is_the_same_network():
    config = keys_of("ac4au", SMALL)
    module = network_of("ac4au", config, 12)
    rng = np.random.default_rng(0)
    batch = {
        "clip": jnp.asarray(rng.uniform(-1, 1, (3, 8, 32, 32, 3)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 2, (3, 12))),
        "subject": jnp.array([0, 2, 0]),
        "unit_share": jnp.asarray(rng.uniform(0.05, 0.5, 12), jnp.float32),
        "is_training_subject": jnp.array([True, True, True, False]),
    }
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), batch, train=False))
    entries = peer.make_entries(shapes)
    assert len(entries) == len(jax.tree.leaves(shapes))
    state = {n: rule_array(n, s) for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    variables = common.to_variables(entries, state, "the rule")

    @jit
    def step(variables):
        def loss(params):
            outputs, updated = module.apply(
                {"params": params, "batch_stats": variables["batch_stats"]},
                batch,
                train=True,
                mutable=["batch_stats"],
            )
            return loss_of("ac4au", outputs, batch, config)[0].mean(), (
                outputs,
                updated,
            )

        (value, (outputs, updated)), grads = jax.value_and_grad(loss, has_aux=True)(
            variables["params"]
        )
        return value, outputs, grads, updated["batch_stats"]

    value, outputs, grads, stats = step(variables)
    network = peer.AC4AU(config, units=12, subjects=4, num_frames=8, channels=3, image_size=32)
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    missing, surplus = network.train().load_state_dict(tensors, strict=False)
    assert not surplus and all(name.endswith(common.COUNTER) for name in missing)
    clip = torch.from_numpy(np.moveaxis(np.asarray(batch["clip"]), -1, 2).copy())
    theirs = network(clip)
    for name in ("log_p", "log_not_p", "subject_cosines"):
        np.testing.assert_allclose(
            outputs[name], theirs[name].detach(), atol=slack(1e-4), err_msg=name
        )
    others = [torch.from_numpy(np.array(batch[key])) for key in EXTRAS]
    label, subject = (
        torch.from_numpy(np.asarray(batch[key]).astype(np.int64)) for key in ("label", "subject")
    )
    their_value = peer.loss(theirs, label, subject, *others, config)
    assert float(their_value.detach()) == pytest.approx(float(value), rel=slack(1e-4))
    their_value.backward()
    ours = common.to_state(entries, {"params": grads, "batch_stats": stats})
    parameters = dict(network.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in parameters.values())
    for key, parameter in parameters.items():
        np.testing.assert_allclose(
            ours[key], parameter.grad, rtol=0.02, atol=slack(1e-3) * largest, err_msg=key
        )
    for key, buffer in network.named_buffers():
        if "running" in key:
            np.testing.assert_allclose(
                ours[key], buffer, rtol=slack(1e-4), atol=slack(1e-5), err_msg=key
            )


def test_the_peer_says_what_it_does_not_do():
    sizes = {"units": 12, "subjects": 4, "num_frames": 8, "channels": 3, "image_size": 32}
    with pytest.raises(SystemExit, match=r"model\.head='auser', found 'linear'"):
        peer.AC4AU(keys_of("ac4au", acting("ac4au", SMALL | {"head": "linear"})), **sizes)


def test_clips_are_recoloured_and_turned_alike():
    rng = np.random.default_rng(0)
    clip = torch.from_numpy(rng.uniform(0.3, 0.7, (6, 1, 3, 16, 16)).astype(np.float32))
    frames = clip.repeat(1, 4, 1, 1, 1)
    turned = training.rotate(frames, 10.0, rng)
    jittered = training.jitter(frames, [0.0, 0.0, 0.2, 0.05], rng)
    for found in (turned, jittered):
        np.testing.assert_array_equal(found[:, 0], found[:, 3])
        assert (found - frames).abs().mean((1, 2, 3, 4)).min() > 1e-3
    luma = torch.tensor(LUMA)
    np.testing.assert_allclose(
        torch.einsum("btchw,c->bthw", jittered, luma),
        torch.einsum("btchw,c->bthw", frames, luma),
        atol=slack(2e-3),
    )

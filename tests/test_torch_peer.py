"""The PyTorch networks of the benchmarks are the same networks: same outputs, losses, gradients."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from fdp_helpers import jit, make_loss_and_grads, rule_variables, state_of
from small import ROOT

from mexjax.interop import fdp as interop
from mexjax.models import fdp

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
sys.path.insert(0, str(ROOT / "benchmarks"))
from torch_peer import fdp as peer  # noqa: E402

SMALL = {
    "stem_channels": (8, 8, 8, 8),
    "local_channels": (16, 16, 16, 16),
    "global_channels": (32, 32, 32, 32),
    "channel_divisor": 8,
    "map_size_px": 32,
    "encoder_channels": (8, 16),
    "decoder_channels": (8, 8),
    "drop_path_rate": 0.0,
    "mer_dropout_rate": 0.0,
    "mer_width": 16,
}
CASES = {
    "paper": {"preset": "paper", **SMALL},
    "official": {
        "preset": "official",
        **SMALL,
        "num_local": (1, 1, 1, 1),
        "local_channels": (8, 8, 8, 16),
    },
    "tiny": {"preset": "tiny", "mer_dropout_rate": 0.0},
}


@pytest.mark.parametrize("name", CASES)
def test_the_peer_is_the_same_network(name: str):
    config = fdp.resolve(CASES[name])
    module = fdp.make(config, num_classes=5)
    shapes = interop.variable_shapes(module)
    variables = rule_variables(shapes)
    rng = np.random.default_rng(0)
    frames = rng.random((2, 8, 64, 64, 1), np.float32)
    target = np.array(fdp.targets(frames, config)["dynamic_image"])
    label = np.array([1, 3], np.int32)
    batch = {"clip": (frames - 0.5) / 0.5, "label": label, "dynamic_image": target}
    batch["weight"] = np.ones(2, np.float32)
    (loss, (_, _, stats)), grads = jit(make_loss_and_grads(module, config))(variables, batch)

    network = peer.FDP(config).train()
    state = {k: torch.from_numpy(np.array(v)) for k, v in state_of(**variables).items()}
    missing, surplus = network.load_state_dict(state, strict=False)
    assert not surplus
    assert all(key.endswith("num_batches_tracked") for key in missing)
    their_target = peer.dynamic_image(
        torch.from_numpy(frames[..., 0]), config["map_size_px"], quantize=config["quantize_target"]
    )
    # A gray level of 255 may fall on the other side of the cut.
    np.testing.assert_allclose(their_target, target, atol=1 / 254 if "official" in name else 1e-5)
    clip = torch.from_numpy(np.moveaxis(batch["clip"], -1, 2).copy())
    outputs = network(clip)
    their_loss = peer.loss(
        outputs, torch.from_numpy(target), torch.from_numpy(label.astype(np.int64)), config
    )
    assert float(their_loss.detach()) == pytest.approx(float(loss), rel=2e-5)
    their_loss.backward()
    theirs = {k: p.grad.numpy() for k, p in network.named_parameters() if p.grad is not None}
    ours = state_of(params=grads, batch_stats=stats)
    largest = max(np.abs(v).max() for v in theirs.values())
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=0.02, atol=2e-3 * largest, err_msg=key)
    buffers = dict(network.named_buffers())
    for key, value in ours.items():
        if "running" in key:
            np.testing.assert_allclose(value, buffers[key], rtol=1e-4, atol=1e-5, err_msg=key)

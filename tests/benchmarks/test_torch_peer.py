"""The PyTorch networks of the benchmarks are the same networks: same outputs, losses, gradients."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack
from fdp_helpers import jit, make_loss_and_grads, rule_variables, state_of
from papers import acting, keys_of, network_of, targets_of
from st_helpers import FRAMES, make_step, small_batch, variables_of
from st_helpers import SMALL as SMALL_UNIT

from mexjax.interop import common
from mexjax.models import get_model
from mexjax.models.fdp import weights as interop
from mexjax.models.gamdss import weights as gamdss_weights
from mexjax.models.spatio_temporal import unit as st_unit_keys
from mexjax.models.spatio_temporal import weights as st_unit
from mexjax.models.tsfmicro import weights as tsfmicro_weights
from mexjax.models.tsfmicro.options import FUSIONS
from mexjax.ops.conv import use_lowering
from mexjax.train.augment import CENTERS, normalise

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
from torch_peer import fdp as peer  # noqa: E402
from torch_peer import peers, training  # noqa: E402

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


@pytest.mark.parametrize(
    "name",
    [name if name == "tiny" else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_the_peer_is_the_same_network(name: str):
    given = acting("fdp", CASES[name])
    config, module = keys_of("fdp", given), network_of("fdp", given, 5)
    shapes = interop.variable_shapes(module)
    variables = rule_variables(shapes)
    rng = np.random.default_rng(0)
    frames = rng.random((2, 8, 64, 64, 1), np.float32)
    target = np.array(targets_of("fdp", frames, given)["dynamic_image"])
    label = np.array([1, 3], np.int32)
    batch = {"clip": (frames - 0.5) / 0.5, "label": label, "dynamic_image": target}
    batch["weight"] = np.ones(2, np.float32)
    # One form for all convolutions: forms that are equal to rounding already differ by a hundredth
    # of some gradients here, where rounding decides near ties of five poolings.
    with use_lowering("im2col" if name == "official" else "auto"):
        (loss, (_, _, stats)), grads = jit(make_loss_and_grads(module, given))(variables, batch)

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
    assert float(their_loss.detach()) == pytest.approx(float(loss), rel=slack(2e-5))
    their_loss.backward()
    theirs = {k: p.grad.numpy() for k, p in network.named_parameters() if p.grad is not None}
    ours = state_of(params=grads, batch_stats=stats)
    largest = max(np.abs(v).max() for v in theirs.values())
    for key, value in theirs.items():
        if name == "official":
            # Five poolings by maxima: rounding, which processors differ in, decides near ties.
            size = max(np.linalg.norm(value), 1e-3 * largest)
            assert np.linalg.norm(ours[key] - value) < 0.03 * size, key
            continue
        np.testing.assert_allclose(
            ours[key], value, rtol=0.02, atol=slack(2e-3) * largest, err_msg=key
        )
    buffers = dict(network.named_buffers())
    for key, value in ours.items():
        if "running" in key:
            np.testing.assert_allclose(
                value, buffers[key], rtol=slack(1e-4), atol=slack(1e-5), err_msg=key
            )


UNITS = {f"tsfmicro, {fusion}": ("tsfmicro", {"fusion": fusion}) for fusion in FUSIONS} | {
    "tsfmicro, before blocks": (
        "tsfmicro",
        {"fusion": "t_to_s", "t_to_s_place": "before_blocks", "resize": "bilinear_antialias"},
    ),
    "gamdss": ("gamdss", {"lambda_fall": 0.5, "fall_place_frame": "offset"}),
}
# Two stages, one of each kind.
TWO_STAGES = {key: value[:2] for key, value in SMALL_UNIT.items() if key in st_unit_keys.PER_STAGE}
TWO_STAGES |= {"stem_channels": (4, 8), "stem_strides": (2, 2), "map_size_px": 4}


@pytest.mark.parametrize(
    "case",
    [case if case == "gamdss" else pytest.param(case, marks=pytest.mark.slow) for case in UNITS],
)
def test_the_peer_is_the_same_unit(case: str):
    name, changes = UNITS[case]
    paper = get_model(name)
    keys = acting(name, {**SMALL_UNIT, **TWO_STAGES, "label_smoothing": 0.1, **changes})
    config, module = keys_of(name, keys), network_of(name, keys, 3)
    shapes = st_unit.variable_shapes(module, channels=1)
    if name == "gamdss":
        entries = gamdss_weights.make_entries(shapes)
    else:
        entries = tsfmicro_weights.make_entries(shapes, config["fusion"])
    variables, batch = variables_of(entries), small_batch()
    (loss, (outputs, _, updated)), grads = jit(make_step(module, paper))(variables, batch)

    network = peers.get_peer(name).make(
        config, num_classes=3, num_frames=3, channels=1, image_size=32
    )
    state = common.to_state(entries, variables)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    clip = np.stack([np.asarray(batch[frame]) for frame in FRAMES], 1)
    theirs = network.train()(torch.from_numpy(np.moveaxis(clip, -1, 2).copy()))
    np.testing.assert_allclose(outputs["logits"], theirs["logits"].detach(), atol=slack(2e-5))
    label = torch.from_numpy(np.asarray(batch["label"]).astype(np.int64))
    their_loss = peers.get_peer(name).loss(theirs, None, label, config)
    assert float(their_loss.detach()) == pytest.approx(float(loss), rel=slack(1e-5))
    their_loss.backward()
    found = {"params": grads, "batch_stats": updated["batch_stats"]}
    ours = common.to_state(entries, found)
    parameters = dict(network.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in parameters.values())
    for key, parameter in parameters.items():
        np.testing.assert_allclose(
            ours[key], parameter.grad, rtol=0.01, atol=slack(1e-4) * largest, err_msg=key
        )
    for key, value in network.named_buffers():
        if "running" in key:
            np.testing.assert_allclose(
                ours[key], value, rtol=slack(1e-4), atol=slack(1e-5), err_msg=key
            )


def test_a_peer_decides_by_the_rise():
    config = keys_of("gamdss", {**SMALL_UNIT, "preset": "paper"})
    network = peers.get_peer("gamdss").make(
        config, num_classes=3, num_frames=3, channels=1, image_size=32
    )
    outputs = network.eval()(torch.zeros(1, 3, 1, 32, 32))
    assert set(outputs) == {"logits", "logits_rise"}
    with pytest.raises(SystemExit, match="backbone=rmt"):
        peers.get_peer("gamdss").make(
            {**config, "backbone": "resnet18"}, num_classes=3, num_frames=3, channels=1,
            image_size=32,
        )  # fmt: skip
    with pytest.raises(SystemExit, match="tsfmicro"):
        peers.get_peer("no_such_model")


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_clips_are_normalised_alike(center: str, channels: int):
    frames = np.random.default_rng(0).random((2, 3, 4, 4, channels), np.float32)
    wanted = np.asarray(normalise(jnp.asarray(frames), center))
    found = training.normalise(torch.from_numpy(np.moveaxis(frames, -1, 2).copy()), center)
    np.testing.assert_allclose(np.moveaxis(found.numpy(), 2, -1), wanted, atol=slack(2e-5))

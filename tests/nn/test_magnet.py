"""The learned magnifier: names of both ports, the network beside a plain PyTorch one, its use."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from device_helpers import slack
from rule_weights import rule_state

import mexjax
from mexjax.data.view_frames import Magnifier, magnified
from mexjax.errors import ConfigError, DataError
from mexjax.interop import common
from mexjax.interop import magnet as interop
from mexjax.nn.magnet import MagNet, gain_of

COUNTS = {"zhengpeng": (42, 877_968), "postech": (88, 966_979)}


# In the order in which they are used.
NAMES = {
    "zhengpeng": """encoder.cba_1 encoder.cba_2 encoder.resblks encoder.texture_cba
        encoder.texture_resblks encoder.motion_cba encoder.motion_resblks manipulator.g
        manipulator.h_conv manipulator.h_resblk decoder.resblks decoder.cba_1 decoder.cba_2""",
    "postech": """encoder.res_encoder.conv1 encoder.res_encoder.conv2 encoder.res_encoder.residual
        encoder.conv_tex encoder.texture_resblk encoder.conv_sha encoder.shape_resblk
        res_manipulator.conv1 res_manipulator.conv2 res_manipulator.residual
        decoder.res_decoder.residual decoder.res_decoder.conv1 decoder.res_decoder.conv2""",
}


def state_of(layout: str) -> common.State:
    entries = interop.make_entries(interop.variable_shapes(MagNet(layout)), layout)
    return rule_state({n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)})


@pytest.mark.parametrize("layout", COUNTS)
def test_names_of_the_ports(layout: str):
    state = state_of(layout)
    assert (len(state), sum(a.size for a in state.values())) == COUNTS[layout]
    some = {
        "zhengpeng": {
            "encoder.resblks.2.cba_1.conv2d.weight": (32, 32, 3, 3),
            "manipulator.g.conv2d.weight": (32, 32, 3, 3),
            "manipulator.h_resblk.cba_2.conv2d.weight": (32, 32, 3, 3),
            "decoder.resblks.8.cba_2.conv2d.weight": (64, 64, 3, 3),
            "decoder.cba_2.conv2d.weight": (3, 32, 7, 7),
        },
        "postech": {
            "res_manipulator.conv1.weight": (32, 32, 7, 7),
            "res_manipulator.residual.0.conv2.bias": (32,),
            "decoder.conv_tex_aft_upsample.weight": (32, 32, 3, 3),
            "decoder.res_decoder.conv_up_sample.bias": (64,),
            "encoder.shape_resblk.1.conv1.weight": (32, 32, 3, 3),
        },
    }[layout]
    assert {name: state[name].shape for name in some} == some
    module, variables = mexjax.from_torch("magnet", {f"module.{n}": a for n, a in state.items()})
    assert module.layout == layout
    back = mexjax.to_torch("magnet", variables, layout=layout)
    assert set(back) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)


def torch_forward(state, layout, a, b, gain):
    """The network written once more, directly from the tensors' names."""
    import torch
    from torch.nn import functional

    weights = {name: torch.from_numpy(array) for name, array in state.items()}
    is_postech = layout == "postech"

    def conv(x, name, stride=1):
        name = name if is_postech else f"{name}.conv2d"
        weight = weights[f"{name}.weight"]
        pad = weight.shape[-1] // 2
        x = functional.pad(x, (pad,) * 4, mode="reflect")
        return functional.conv2d(x, weight, weights.get(f"{name}.bias"), stride)

    def blocks(x, name, count):
        first, second = ("conv1", "conv2") if is_postech else ("cba_1", "cba_2")
        for i in range(count):
            own = name if count == 1 and not is_postech else f"{name}.{i}"
            x = x + conv(conv(x, f"{own}.{first}").relu(), f"{own}.{second}")
        return x

    names = NAMES[layout].split()

    def encode(x):
        x = conv(conv(x, names[0]).relu(), names[1], 2).relu()
        code = blocks(x, names[2], 3)
        texture = blocks(conv(code, names[3], 2).relu(), names[4], 2)
        return texture, blocks(conv(code, names[5]).relu(), names[6], 2)

    (_, motion_a), (texture, motion_b) = encode(a), encode(b)
    change = conv(conv(motion_b - motion_a, names[7]).relu() * gain, names[8])
    motion = motion_b + blocks(change, names[9], 1)
    texture = functional.interpolate(texture, scale_factor=2, mode="nearest")
    if is_postech:
        texture = conv(texture, "decoder.conv_tex_aft_upsample").relu()
    x = blocks(torch.cat([texture, motion], 1), names[10], 9)
    x = functional.interpolate(x, scale_factor=2, mode="nearest")
    if is_postech:
        x = conv(x, "decoder.res_decoder.conv_up_sample").relu()
    return conv(conv(x, names[11]).relu(), names[12])


@pytest.mark.parametrize("layout", COUNTS)
def test_the_network_is_that_of_the_port(layout: str):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = state_of(layout)
    module, variables = mexjax.from_torch("magnet", state)
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (2, 1, 24, 32, 3)).astype(np.float32)
    found = np.asarray(jax.jit(module.apply)(variables, a, b, np.float32(3)))
    with torch.inference_mode():
        theirs = torch_forward(
            state, layout, *(torch.from_numpy(x.transpose(0, 3, 1, 2)) for x in (a, b)), 3.0
        )
    wanted = theirs.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted, atol=slack(2e-5) * np.abs(wanted).max())


def test_both_conventions_of_the_gain():
    assert gain_of(3.0, "port") == 3.0 and gain_of(3.0, "official") == 2.0
    assert gain_of(1.0, "official") == 0.0
    with pytest.raises(ConfigError, match="official, port"):
        gain_of(3.0, "paper")


def test_frames_are_magnified_by_a_checkpoint(tmp_path):
    path = tmp_path / "magnet.npz"
    np.savez(path, **state_of("zhengpeng"))
    rng = np.random.default_rng(1)
    onset, apex = rng.integers(0, 256, (2, 22, 30, 1)).astype(np.uint8)
    how = Magnifier("magnet", 3.0, str(path), "official")
    gray = magnified(onset, apex[None], how)
    assert gray.shape == (1, 22, 30, 1) and gray.dtype == np.uint8
    colour = magnified(np.repeat(onset, 3, -1), np.repeat(apex, 3, -1)[None], how)
    assert colour.shape == (1, 22, 30, 3)
    # The view is kept, and no device may round it.
    run, variables = how.network
    image = np.zeros((1, 24, 32, 3), np.float32)
    lowered = run.lower(variables, image, image, np.float32(2)).as_text()
    lines = [line for line in lowered.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) > 20 and all("HIGHEST" in line for line in lines)
    again = magnified(onset, apex[None], Magnifier("magnet", 1.0, str(path), "official"))
    assert (again != gray).any()  # the gain reaches the frame
    with pytest.raises(ConfigError, match="magnet needs one"):
        Magnifier("magnet")
    with pytest.raises(ConfigError, match="checkpoint belongs"):
        Magnifier("phase", weights=str(path))
    with pytest.raises(ConfigError, match="must be positive"):
        Magnifier("phase", 0.0)
    with pytest.raises(DataError, match=r"encoder\.cba_1\.conv2d\.weight"):
        mexjax.from_torch("magnet", {"a": np.zeros(1, np.float32)})

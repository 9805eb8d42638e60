"""Devices that may be absent, and what programs are compiled for."""

from __future__ import annotations

import types

import jax
import pytest
from device_helpers import needs_cpu

from mexjax import target
from mexjax.cpu import is_cpu
from mexjax.errors import ConfigError
from mexjax.gpu import targets
from mexjax.ops.conv.choice import layer_of
from mexjax.ops.conv.geometry import Geometry
from mexjax.ops.selective_scan import linear_scan
from mexjax.target import Target
from mexjax.train import fold_axis

GPU = types.SimpleNamespace(platform="cuda", device_kind="NVIDIA H200")
CPU = types.SimpleNamespace(platform="cpu", device_kind="cpu")


def test_an_order_has_a_device_and_a_number():
    assert targets.parse("h200") == (targets.GPUS["h200"], 1)
    assert targets.parse(" H200x8") == (targets.GPUS["h200"], 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h300", "Unknown GPU 'h300'"),
        ("h200x0", "from 1 to 8"),
        ("h200x9", "from 1 to 8"),
        ("h200x", "from 1 to 8"),
        ("h200x²", "from 1 to 8"),
        ("8", "Expected a GPU"),
        ("", "such as"),
    ],
)
def test_other_orders_are_explained(text, message):
    with pytest.raises(ConfigError, match=message):
        targets.parse(text)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA B200", "B200"),
        ("Tesla T4", "T4"),
    ],
)
def test_a_device_is_found_by_whole_words(kind, name):
    found = targets.peaks_of(kind)
    assert found is not None and found[0] == name


def test_a_device_without_figures_has_no_peak():
    assert targets.peaks_of("NVIDIA H2000") is None


def test_every_described_device_has_a_peak_and_a_description():
    for gpu in targets.GPUS.values():
        assert gpu.peaks.bfloat16 >= gpu.peaks.tf32 >= gpu.peaks.float32
        assert f'device_description_str: "{gpu.kind}"' in gpu.description
        assert gpu.description.count("{") == gpu.description.count("}")


@needs_cpu()
def test_the_target_decides_what_is_traced():
    """The platform of a convolution's layer and the form of a scan follow the target."""
    image, kernel = jax.numpy.ones((1, 4, 4, 2)), jax.numpy.ones((3, 3, 2, 2))
    geometry = Geometry((4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), 1)
    rows = jax.ShapeDtypeStruct((2, 64, 3), "float32")

    def loops() -> str:
        return str(jax.make_jaxpr(linear_scan)(rows, rows))

    assert is_cpu() and layer_of("forward", image, kernel, geometry).platform == "cpu"
    assert "scan[" in loops()
    with target.use(Target((GPU,))):
        assert not is_cpu() and layer_of("forward", image, kernel, geometry).platform == "gpu"
        assert "scan[" not in loops()
    assert is_cpu() and "scan[" in loops()


A100 = types.SimpleNamespace(platform="cuda", device_kind="NVIDIA A100")


@pytest.mark.parametrize(
    ("strategy", "devices", "text"),
    [
        ("auto", (CPU,), "1 x cpu, strategy loop (auto)"),
        ("loop", (CPU,), "1 x cpu, strategy loop"),
        ("auto", (GPU,), "1 x NVIDIA H200, strategy vmap (auto)"),
        ("auto", (GPU,) * 8, "8 x NVIDIA H200, strategy shard (auto)"),
        ("auto", (GPU, A100, GPU), "2 x NVIDIA H200, 1 x NVIDIA A100, strategy shard (auto)"),
        ("shard", (CPU,) * 4, "4 x cpu, strategy shard"),
        (
            "vmap",
            (GPU,) * 8,
            "1 of 8 devices (NVIDIA H200), strategy vmap"
            " (--config.folds.strategy=shard uses all devices)",
        ),
        (
            "loop",
            (A100, GPU),
            "1 of 2 devices (NVIDIA A100), strategy loop"
            " (--config.folds.strategy=shard uses all devices)",
        ),
        (
            "auto",
            (CPU,) * 4,
            "1 of 4 devices (cpu), strategy loop (auto; each device of a CPU computes on all cores;"
            " --config.folds.strategy=shard uses all devices)",
        ),
    ],
)
def test_devices_are_told_against_those_that_are_there(strategy, devices, text):
    assert fold_axis.describe_devices(strategy, Target(devices)) == text


def test_folds_in_one_program_are_told_as_the_strategy_that_they_need():
    text = fold_axis.describe_devices("auto", Target((CPU,)), per_chunk=3)
    assert text == "1 x cpu, strategy vmap (auto)"
    with pytest.raises(ConfigError, match="Did you mean 'vmap'"):
        fold_axis.describe_devices("vmpa", Target((CPU,)))


def test_auto_follows_the_devices():
    assert fold_axis.strategy_for("auto", Target((CPU,) * 4)) == "loop"
    assert fold_axis.strategy_for("auto", Target((CPU,)), per_chunk=3) == "vmap"
    assert fold_axis.strategy_for("auto", Target((GPU,))) == "vmap"
    assert fold_axis.strategy_for("auto", Target((GPU,) * 2)) == "shard"
    assert fold_axis.strategy_for("vmap", Target((GPU,) * 2)) == "vmap"
    assert len(fold_axis.devices_of("auto", Target((GPU,) * 2))) == 2
    assert len(fold_axis.devices_of("vmap", Target((GPU,) * 2))) == 1

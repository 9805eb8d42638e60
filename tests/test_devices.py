"""The settings and tolerances of the tests themselves, for platforms that may be absent."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest
from device_helpers import GPU_FLAGS, QUICK_FLAGS, needs_devices, settings, slack
from small import ROOT


@pytest.mark.parametrize("platforms", ["", "cpu", " CPU ", "cpu,cuda", ","])
def test_the_cpu_has_four_devices_and_quick_programs(platforms):
    found = settings(platforms)
    assert found.flags == QUICK_FLAGS and not found.variables
    assert found.options["jax_num_cpu_devices"] == 4
    assert found.options["jax_platforms"].split(",")[0] == "cpu"
    assert "jax_default_matmul_precision" not in found.options


@pytest.mark.parametrize(
    ("platforms", "names", "flags"),
    [
        ("cuda", "cuda,cpu", GPU_FLAGS),
        ("CUDA, cpu", "cuda,cpu", GPU_FLAGS),
        ("gpu", "gpu,cpu", GPU_FLAGS),
        ("tpu", "tpu,cpu", ()),
    ],
)
def test_other_platforms_compute_exactly_and_have_no_flag_of_the_cpu(platforms, names, flags):
    found = settings(platforms)
    assert found.flags == flags and not set(found.flags) & set(QUICK_FLAGS)
    assert found.options["jax_platforms"] == names
    assert found.options["jax_default_matmul_precision"] == "highest"
    assert found.variables == {
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def test_every_option_is_one_of_jax():
    for platforms in ("cpu", "cuda"):
        for name in settings(platforms).options:
            assert hasattr(jax.config, name), name


@pytest.mark.parametrize(
    ("value", "on_gpu"), [(1e-6, 1e-5), (2e-3, 1e-2), (0.05, 0.05), (0.0, 0.0)]
)
def test_more_is_allowed_on_a_gpu_but_not_more_than_for_bfloat16(value, on_gpu):
    assert slack(value, "cpu") == value
    assert slack(value, "gpu") == pytest.approx(on_gpu)


def test_a_test_that_needs_more_devices_is_skipped():
    assert not needs_devices(1).args[0]
    mark = needs_devices(len(jax.local_devices()) + 1)
    assert mark.args[0] and mark.kwargs["reason"].startswith("fewer than ")


def test_the_cpu_is_not_tested_in_the_name_of_another_platform():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "tests/test_rooms.py", "-q"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "no_such_platform"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 4
    assert "JAX has no device for the first of JAX_PLATFORMS=no_such_platform,cpu." in done.stdout

"""A command does not load JAX's plugin for CUDA where it could only complain."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from small import ROOT

from mexjax import machine, plugins
from mexjax.errors import ConfigError

PLUGIN = """
import os
os.write(2, b"Could not find cuda drivers\\n")
def initialize():
    os.write(2, b"begun\\n")
    raise RuntimeError("Unable to load CUDA")
"""
COMMAND = """
from mexjax import plugins, signals
plugins.has_driver = lambda: {has_driver}
signals.begin()
from mexjax import machine
print([device.platform for device in machine.devices()], plugins.lacks_driver())
"""


@pytest.fixture
def packages(tmp_path) -> Path:
    """A folder of packages with a plugin that writes what it does to standard error."""
    for name in ("jax_plugins/xla_cuda12", "jax_cuda12_plugin"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text(PLUGIN)
    return tmp_path


def run(code: str, folder: Path | None, platforms: str) -> tuple[str, str]:
    """What a process of its own prints and complains about."""
    paths = [str(folder)] if folder else []
    paths += [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    environment |= {"JAX_PLATFORMS": platforms} if platforms else {}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("platforms", "has_driver", "lacks_driver"),
    [("cpu", False, False), ("cpu", True, False), ("cuda,cpu", False, True)],
)
def test_a_plugin_without_use_is_not_loaded(packages, platforms, has_driver, lacks_driver):
    code = COMMAND.format(has_driver=has_driver)
    assert run(code, packages, platforms) == (f"['cpu'] {lacks_driver}\n", "")


def test_a_plugin_is_taken_back_without_its_complaints(packages):
    code = """
import os, sys
from mexjax import plugins, signals
plugins.has_driver = lambda: False
signals.begin()
plugins.take_back()
with plugins.without_complaints():
    import jax_cuda12_plugin, jax_plugins.xla_cuda12
    os.write(2, b"another line")
print(jax_cuda12_plugin.__file__ is not None, callable(jax_plugins.xla_cuda12.initialize))
print(plugins.lacks_driver())
"""
    assert run(code, packages, "cuda,cpu") == ("True True\nFalse\n", "another line")


def test_a_plugin_that_the_user_may_want_is_loaded(packages):
    """The complaints are then about something that the user should know."""
    _, errors = run(COMMAND.format(has_driver=True), packages, "cuda,cpu")
    assert "Could not find cuda drivers" in errors and "Unable to load CUDA" in errors


def test_a_library_leaves_plugins_to_its_user(packages):
    code = "import mexjax, mexjax.machine\nmexjax.machine.devices()"
    assert "Could not find cuda drivers" in run(code, packages, "cpu")[1]


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None or plugins.has_driver(),
    reason="JAX for CUDA is not installed here, or there is a driver",
)
@pytest.mark.parametrize("platforms", ["", "cpu"])
def test_the_real_plugin_is_silent_without_a_driver(platforms):
    code = COMMAND.replace("plugins.has_driver = lambda: {has_driver}\n", "")
    assert run(code, None, platforms) == (f"['cpu'] {not platforms}\n", "")


@pytest.mark.parametrize(
    ("platforms", "answer"),
    [("", True), ("cpu", False), (" CUDA", True), ("gpu", True), ("cpu,cuda", True), (",", True)],
)
def test_no_platform_is_every_platform(platforms, answer):
    assert plugins._asks_for_cuda(platforms) is answer


def fail(name: str) -> None:
    raise OSError(name)


@pytest.mark.parametrize(
    ("library", "answer"),
    [
        (fail, False),
        (lambda name: types.SimpleNamespace(), False),
        (lambda name: types.SimpleNamespace(cuInit=lambda flags: 100), False),  # no device
        (lambda name: types.SimpleNamespace(cuInit=lambda flags: 0), True),
    ],
)
def test_a_driver_is_found_by_its_files_or_by_asking_it(monkeypatch, tmp_path, library, answer):
    monkeypatch.setattr(plugins, "_SIGNS", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr(plugins.ctypes, "CDLL", library)
    assert plugins.has_driver() is answer
    (tmp_path / "nvidiactl").touch()
    assert plugins.has_driver()


def test_a_missing_driver_is_the_reason_for_missing_devices(monkeypatch):
    monkeypatch.setattr(plugins._State, "lacks_driver", True)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")

    def absent() -> list:
        raise RuntimeError("Unknown backend")

    monkeypatch.setattr(machine.jax, "local_devices", absent)
    with pytest.raises(ConfigError) as error:
        machine.devices()
    assert str(error.value) == (
        "JAX_PLATFORMS=cuda asks for devices that this machine or this installation of JAX does"
        " not have. JAX for CUDA is installed, but no NVIDIA driver is found. Unset JAX_PLATFORMS,"
        " or set it to cpu."
    )

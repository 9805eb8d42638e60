"""Rooms of the package list what is in them, and import nothing that they do not need."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import mexjax

# Rooms whose modules are imported one by one, and rooms that offer names of their own.
OF_MODULES = ["cpu", "gpu", "ops", "nn", "data", "prepare", "train", "report", "studies"]
OF_NAMES = ["config", "interop", "models", "ops.conv", "protocol"]


def test_the_package_has_the_names_that_it_lists():
    assert sorted(mexjax.__all__) == sorted([*mexjax._PUBLIC, "__version__"])
    assert all(hasattr(mexjax, name) for name in mexjax.__all__)


def test_every_room_is_looked_at():
    rooms = {module.name for module in pkgutil.iter_modules(mexjax.__path__) if module.ispkg}
    assert rooms == {name.partition(".")[0] for name in OF_MODULES + OF_NAMES}


@pytest.mark.parametrize("room", OF_MODULES)
def test_a_room_lists_its_modules(room: str):
    package = importlib.import_module(f"mexjax.{room}")
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)} - {"__main__"}
    assert sorted(set(package.__all__) & modules) == sorted(modules)
    assert all(callable(getattr(package, name)) for name in set(package.__all__) - modules)


@pytest.mark.parametrize("room", OF_NAMES)
def test_a_room_has_the_names_that_it_lists(room: str):
    package = importlib.import_module(f"mexjax.{room}")
    assert package.__all__ and all(hasattr(package, name) for name in package.__all__)


# Modules, and what must not have been imported after them.
LIGHT = {
    "mexjax.report.write, mexjax.report.compare, mexjax.report.command": ["jax", "cv2", "sklearn"],
    "mexjax.protocol.splits, mexjax.protocol.metrics, mexjax.protocol.scoring": ["jax", "cv2"],
    "mexjax.prepare.pipeline, mexjax.prepare.command": ["jax", "flax", "orbax", "grain"],
    "mexjax.models, mexjax.nn, mexjax.ops, mexjax.train, mexjax.config": ["jax", "flax", "cv2"],
    "mexjax.prepare, mexjax.data, mexjax.report, mexjax.studies": ["numpy", "pandas", "matplotlib"],
}


@pytest.mark.parametrize(("modules", "heavy"), LIGHT.items(), ids=lambda item: str(item)[:24])
def test_what_a_module_does_not_need_is_not_imported(modules: str, heavy: list[str]):
    code = f"import sys, {modules}; print([n for n in {heavy} if n in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (answer.stdout.strip(), answer.returncode) == ("[]", 0), answer.stderr

"""Rooms of the package list what is in them, and import nothing that they do not need."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

LISTED = ["prepare", "data", "report", "studies"]


@pytest.mark.parametrize("room", LISTED)
def test_a_room_lists_its_modules(room: str):
    package = importlib.import_module(f"mexjax.{room}")
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert sorted(package.__all__) == sorted(modules - {"__main__"})


def test_the_names_of_the_protocol_are_there():
    from mexjax import protocol

    assert all(hasattr(protocol, name) for name in protocol.__all__)


# Modules, and what must not have been imported after them.
LIGHT = {
    "mexjax.report.write, mexjax.report.compare, mexjax.report.command": ["jax", "cv2", "sklearn"],
    "mexjax.protocol.splits, mexjax.protocol.metrics, mexjax.protocol.scoring": ["jax", "cv2"],
    "mexjax.prepare.pipeline, mexjax.prepare.command": ["jax", "flax", "orbax", "grain", "skimage"],
    "mexjax.prepare, mexjax.data, mexjax.report, mexjax.studies": ["numpy", "pandas", "matplotlib"],
}


@pytest.mark.parametrize(("modules", "heavy"), LIGHT.items(), ids=lambda item: str(item)[:24])
def test_what_a_module_does_not_need_is_not_imported(modules: str, heavy: list[str]):
    code = f"import sys, {modules}; print([n for n in {heavy} if n in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (answer.stdout.strip(), answer.returncode) == ("[]", 0), answer.stderr

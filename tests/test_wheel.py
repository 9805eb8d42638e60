"""The wheel: what it holds, and the command that is installed from it outside a checkout."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from small import OVERRIDES, ROOT

pytestmark = pytest.mark.slow
# Files of the checkout that the wheel is made of.
SOURCES = ("mexjax", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that no build folder is left in the checkout."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", f"--outdir={out}"]
    done = subprocess.run([*command, str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("mexjax-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of scripts of an environment with the wheel, and the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "zz_packages_of_the_tests.pth").write_text("\n".join(sorted(paths)))
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command += ["--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def run(folder: Path, *command: str) -> str:
    """Output of a command that must succeed, run in a folder that is no checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["JAX_PLATFORMS"] = "cpu"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_module_card_and_table(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("mexjax", "mexjax"), ("configs", "mexjax/configs")):
        for suffix in ("*.py", "*.json", "*.csv", "py.typed"):
            for path in (ROOT / folder).rglob(suffix):
                assert f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" in names
    assert not any(name.startswith(("configs/", "tests/", "benchmarks/")) for name in names)


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = [n for n in file.namelist() if n.endswith(".dist-info/METADATA")]
        about = email.message_from_bytes(file.read(name))
    assert about["Name"] == "mexjax" and about["Author"] == "mexjax developers"
    assert about["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in about.get_all("Classifier")


def test_the_installed_command_lists_and_trains_elsewhere(installed, tmp_path):
    mexjax = str(installed / "mexjax")
    place = run(tmp_path, str(installed / "python"), "-c", "import mexjax; print(mexjax.__file__)")
    assert place.startswith(str(installed.parent))
    text = run(tmp_path, mexjax, "--list")
    assert "paper_14m" in text and "casme2" in text
    keys = [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
    keys += ["--config.train.num_epochs", "1", "--config.folds.only=synthetic/01"]
    text = run(tmp_path, mexjax, "--config=fdp", *keys)
    assert "UF1" in text
    # The keys that were set have a digest in the name of the folder.
    (folder,) = (tmp_path / "runs").glob("fdp_tiny_*")
    results = json.loads((folder / "results.json").read_text())
    assert results["metrics"]["last"]["uf1"] >= 0
    # The other spellings of the card find the same run, which is finished.
    for card in ("fdp:tiny", "configs/fdp.py", "configs/fdp.py:tiny"):
        assert "finished before" in run(tmp_path, mexjax, f"--config={card}", *keys)
    assert "UF1" in run(tmp_path, mexjax, "report", str(folder))

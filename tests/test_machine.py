"""The environment of a process as people have it: notebooks' backends, other devices, `~`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from process_helpers import own_lines

import mexjax
from mexjax import cli, machine, main
from mexjax.config import find_card
from mexjax.models import get_model
from mexjax.prepare import command as prepare
from mexjax.report import command as report
from mexjax.studies import options as studies

DRAW = """
import os, sys
import numpy as np
from mexjax.report import agg, feature_figures, figures, unit_figures
from mexjax.studies import au_figures, keyframes_figures, magnify
figure = figures.confusion_figure(np.eye(2, dtype=int), ["a", "b"], "title")
figures.save_figure(figure, __import__("pathlib").Path(sys.argv[1]))
import matplotlib
print(os.environ.get("MPLBACKEND"), matplotlib.rcParams._get("backend"))
"""


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("backend", "stays"),
    [("module://no_such_package.backend_inline", True), ("no_such_backend", False), ("svg", True)],
)
def test_pictures_are_drawn_whatever_the_notebook_says(backend, stays, tmp_path):
    """A backend that can be had is left to the user; pictures have the same bytes with any."""
    pictures = []
    for name in (backend, "agg"):
        answer = run(["-c", DRAW, str(tmp_path / "a.png")], MPLBACKEND=name)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.split()[0] == name
        assert (answer.stdout.split()[1] == name) == (stays or name == "agg")
        pictures.append((tmp_path / "a.png").read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config=fdp"],
        ["study", "ac4au_tables"],
        ["study", "magnify", "--methods=linear", "--clips=1", "--size-px=32"],
    ],
)
def test_devices_that_are_not_there_end_in_one_message(arguments, tmp_path):
    folder = "--out" if "study" in arguments else "--workdir"
    command = ["-m", "mexjax.main", *arguments, f"{folder}={tmp_path / 'run'}"]
    answer = run(command, JAX_PLATFORMS="no_such_platform")
    assert answer.returncode == cli.ERROR
    lines = own_lines(answer.stderr.strip())
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("Error: JAX_PLATFORMS=no_such_platform asks for devices that")
    assert lines[0].endswith("Unset JAX_PLATFORMS, or set it to cpu.")
    assert not list(tmp_path.iterdir())


def test_an_error_without_a_text_names_the_variable(monkeypatch):
    """JAX fails so where a platform is known to it and has no device."""

    def fail() -> list:
        raise AssertionError

    monkeypatch.setattr(machine.jax, "local_devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(mexjax.errors.ConfigError, match=r"JAX_PLATFORMS=cuda asks .*have\. Unset"):
        machine.devices()
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(mexjax.errors.ConfigError, match="found no device"):
        machine.devices()


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_home_is_expanded_in_every_path_of_a_command(home):
    options = prepare.parser().read(
        ["--dataset=csv", "--root=~/a", "--out=~/b", "--landmarks=~/c", "--landmarker-model=~/d"]
    )
    paths = [*options.root, options.out, options.landmarks, options.landmarker_model]
    assert paths == [home / name for name in "abcd"]
    options = prepare.parser().read(["--dataset=csv", "--root=~/a", "--spreadsheet=~/t.csv"])
    assert prepare._inputs(["csv"], options)[0].spreadsheet == home / "t.csv"
    assert report.parser().read(["~/run"]).workdir == [home / "run"]
    assert main.parser().parse_args(["--workdir=~/run"]).workdir == str(home / "run")
    assert studies.ac4au_tables().read(["--out=~/a"]).out == home / "a"
    options = studies.au().read(["--run=~/a", "--out=~/b"])
    assert (options.run, options.out) == (home / "a", home / "b")
    assert studies.au().read(["--root=~/a"]).root == home / "a"
    options = studies.keyframes().read(["--root=~/a", "--out=~/b"])
    assert (options.root, options.out) == ([home / "a"], home / "b")
    options = studies.magnify().read(["--root=~/a", "--out=~/b", "--weights=~/c"])
    assert (options.root, options.out) == (home / "a", home / "b")
    assert options.weights == str(home / "c")


def test_home_is_expanded_in_every_path_of_a_configuration(home):
    (home / "mine.py").write_text(
        "import mexjax\n\n"
        "def get_config(variant=''):\n"
        "    config = mexjax.load_config('fdp').unlock()\n"
        "    config.data.name, config.data.root = 'prepared', '~/both'\n"
        "    return config\n"
    )
    assert find_card("~/mine.py") == home / "mine.py"
    assert mexjax.load_config("~/mine.py").data.root == str(home / "both")
    magnet = {"data.magnify": "magnet", "data.magnify_weights": "~/m.pth"}
    assert mexjax.load_config("fdp", magnet).data.magnify_weights == str(home / "m.pth")
    for name, keys in (
        ("ac4au", {"is_pretrained": True, "pretrained": "~/f"}),
        ("micro_au_clip", {"weights": "~/f", "prompts_file": "~/f", "merges_file": "~/f"}),
    ):
        options = get_model(name).options({"preset": "tiny"} | keys)
        for key, value in keys.items():
            assert getattr(options, key) == (str(home / "f") if value == "~/f" else value)


def test_home_is_expanded_for_compiled_programs(home, monkeypatch):
    before = machine.jax.config.jax_compilation_cache_dir
    try:
        assert machine.use_compilation_cache("~/xla") == home / "xla"
    finally:
        machine.jax.config.update("jax_compilation_cache_dir", before)

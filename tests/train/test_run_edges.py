"""`mexjax.run` from Python refuses and expands what the command does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import CARD, OVERRIDES, ROOT, small_config

import mexjax
from mexjax import main
from mexjax.config import check_values, load_config
from mexjax.errors import ConfigError, WorkdirError
from mexjax.train import run as train
from mexjax.train.workdir import Workdir


class Reached(Exception):
    """The data would be loaded now."""


@pytest.fixture
def no_data(monkeypatch):
    def reached(config):
        raise Reached

    monkeypatch.setattr(train, "make_study", reached)


def test_home_is_expanded_in_the_folder_of_a_run(no_data, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for workdir in ("~/run", Path("~/run")):
        with pytest.raises(Reached):
            mexjax.run(small_config(), workdir)
    assert (tmp_path / "run" / "config.json").is_file() and not (tmp_path / "~").exists()


@pytest.mark.parametrize("platform", ["cuda", "no_such_platform"])
def test_a_platform_that_is_not_there(platform, tmp_path):
    code = (
        "import sys, mexjax\n"
        f"config = mexjax.load_config({str(CARD)!r})\n"
        "try:\n    mexjax.run(config, sys.argv[1])\n"
        "except mexjax.errors.ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if platform == "cuda" and not done.stdout and not done.returncode:
        pytest.skip("there is a GPU")
    assert done.stdout.startswith(f"JAX_PLATFORMS={platform} asks for devices that"), done.stderr
    assert done.stdout.count("\n") == 1 and not (tmp_path / "run").exists()


def test_keys_that_are_changed_in_python_are_seen(no_data, tmp_path):
    """A change has the name of the folder, and is refused where it has no effect."""
    config = load_config("fdp")
    order = main.Order("fdp", (), None, False)
    assert order.folder(config) == "runs/fdp_tiny"
    config.train.batch_size += 1
    assert order.folder(config) != "runs/fdp_tiny"
    check_values(config)
    config.train.momentum = 0.5  # without effect on AdamW
    refusal = r"train\.momentum=0\.5 has no effect.*train\.optimizer=sgd"
    for call in (check_values, lambda config: mexjax.run(config, tmp_path / "run")):
        with pytest.raises(ConfigError, match=refusal):
            call(config)
    assert not (tmp_path / "run").exists()
    config.train.optimizer = "sgd"
    check_values(config)


def test_a_card_may_set_what_has_no_effect(tmp_path, monkeypatch):
    """Only changes of the card are compared, and a home in its paths is none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "import mexjax\n\ndef get_config(variant=''):\n"
        "    config = mexjax.load_config('fdp', {'data.name': 'prepared'}).unlock()\n"
        "    config.data.root, config.data.cache = '~/a', '~/b'\n"
        "    config.train.momentum = 0.5\n    return config\n"
    )
    config = load_config(tmp_path / "mine.py")
    assert config.data.root == str(tmp_path / "a")
    check_values(config)
    config.train.momentum = 0.6
    with pytest.raises(ConfigError, match=r"train\.momentum=0\.6 has no effect"):
        check_values(config)


def test_a_default_folder_has_a_name_that_disks_take():
    sets = ",".join(f"dataset_{number:02d}" for number in range(40))
    overrides = ("data.name=prepared", "data.root=/x", f"data.datasets={sets}")
    folder = main.Order("fdp", overrides, None, False).folder(load_config("fdp", overrides))
    others = (*overrides[:2], f"data.datasets={sets[:-1]}0")
    other = main.Order("fdp", others, None, False).folder(load_config("fdp", others))
    assert len(folder) < 255 and folder.startswith("runs/fdp_tiny_dataset_00")
    assert folder != other


def test_a_finished_run_that_cannot_be_written_says_how_to_see_it(tmp_path, monkeypatch):
    (tmp_path / "run.json").write_text("{}")

    def fails(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", fails)
    message = f"Read-only file system.*mexjax report {tmp_path} prints its results"
    with pytest.raises(WorkdirError, match=message):
        Workdir.open(tmp_path, small_config(), is_overwritten=False)


def test_results_are_printed_where_the_report_cannot_be_written(tmp_path, monkeypatch, capsys):
    """The disk may fill after the last fold; the run is recorded and the numbers are seen."""
    from mexjax.report import write

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "_write", fails)
    options = [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
    options.append("--config.folds.only=synthetic/02")
    assert main.main([f"--config={CARD}", f"--workdir={tmp_path}", *options]) == 2
    captured = capsys.readouterr()
    assert "accuracy" in captured.out and "Report, figures" not in captured.out
    assert captured.err.startswith("Error: Cannot write the report of ")
    assert "No space left on device" in captured.err and (tmp_path / "run.json").is_file()
    monkeypatch.undo()
    assert main.main([f"--config={CARD}", f"--workdir={tmp_path}", *options]) == 0
    assert "finished before" in capsys.readouterr().out

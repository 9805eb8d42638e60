"""Several processes train one run: real ones, which find each other by JAX's runtime."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from process_helpers import own_lines
from small import CARD, OVERRIDES, ROOT, small_config

import mexjax
from mexjax import main, processes
from mexjax.errors import ConfigError
from mexjax.report.files import read_run

PLAIN = {"train.optimizer": "sgd", "folds.per_chunk": 1, "checkpoint.every_epochs": 1}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def started(count, workdir, *, indices=None, changes=None, code=None, **environment):
    """The processes of a run, of which some may be left out or have other keys."""
    options = [f"--config.{key}={value}" for key, value in (OVERRIDES | PLAIN).items()]
    where = f"--coordinator=127.0.0.1:{free_port()}"
    begin = ["-c", code] if code else ["-m", "mexjax.main"]
    quick = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment
    return [
        subprocess.Popen(
            [
                *(sys.executable, *begin, f"--config={CARD}", f"--workdir={workdir}", *options),
                *(where, f"--num-processes={count}", f"--process-id={i}"),
                *(changes or {}).get(i, ()),
            ],
            env=os.environ | quick,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in (range(count) if indices is None else indices)
    ]


def ended(running, timeout=280):
    """Status, output and error lines of each process."""
    out = []
    for process in running:
        output, errors = process.communicate(timeout=timeout)
        lines = [line for line in own_lines(errors) if not line.startswith("[Gloo]")]
        out.append((process.returncode, output, lines))
    return out


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    named = {key.replace(".", "__"): value for key, value in PLAIN.items()}
    return mexjax.run(small_config(**named), tmp_path_factory.mktemp("alone") / "run").workdir


def same_numbers(one, two):
    first, second = read_run(one), read_run(two)
    assert first.clip.tolist() == second.clip.tolist()
    np.testing.assert_allclose(first.logits, second.logits, rtol=1e-5, atol=1e-5)


def test_two_processes_leave_the_run_of_one(alone, tmp_path):
    first, second = ended(started(2, tmp_path / "run"))
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "process 0 of 2" in first[1] and "Report, figures and predictions" in first[1]
    assert "process 1 of 2" in second[1] and "Report" not in second[1]
    assert not first[2] and not second[2]
    same_numbers(alone, tmp_path / "run")
    names = {path.name for path in alone.iterdir() if path.name != "checkpoints"}
    assert {p.name for p in (tmp_path / "run").iterdir() if p.name != "checkpoints"} == names


@pytest.mark.slow
def test_a_killed_process_and_other_numbers_of_them(alone, tmp_path):
    """Two processes, one killed; then three, all stopped; then one: the numbers of one run."""
    running = started(2, tmp_path / "run")
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("run/groups/group_*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running[1].kill()
    for process in running:  # JAX would end the other one after its time limit
        process.send_signal(signal.SIGKILL)
    ended(running)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("run/groups/group_*.npz")}
    assert before and not (tmp_path / "run" / "run.json").exists()
    done = ended(started(3, tmp_path / "run"))
    assert [status for status, _, _ in done] == [0, 0, 0], done
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    same_numbers(alone, tmp_path / "run")
    (again,) = ended(started(1, tmp_path / "run"))
    assert again[0] == 0 and "was finished before" in again[1]


@pytest.mark.slow
def test_a_stop_of_all_processes_saves_them(alone, tmp_path):
    running = started(
        2, tmp_path / "run", changes={i: ["--config.train.num_epochs=2"] for i in (0, 1)}
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("run/groups/group_*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in running:
        process.send_signal(signal.SIGTERM)
    done = ended(running)
    if [status for status, _, _ in done] != [0, 0]:  # it may have been too late
        assert {status for status, _, _ in done} <= {0, 2, 143}
        assert any(
            "Stopped by SIGTERM; the state is saved" in "".join(o[1:2] + tuple(o[2])) for o in done
        )
    done = ended(started(2, tmp_path / "run"))
    assert [status for status, _, _ in done] == [0, 0], done
    same_numbers(alone, tmp_path / "run")


@pytest.mark.slow
def test_processes_with_other_keys_are_refused(tmp_path):
    first, second = ended(started(2, tmp_path / "run", changes={1: ["--config.seed=7"]}))
    for status, _, lines in (first, second):
        assert status == 2
        assert lines == [
            "Error: Process 1 has another configuration than process 0. Start all 2 processes with"
            " the same command, and let all see the same data."
        ]
    assert not (tmp_path / "run").exists()


LATE = """
import sys
from mexjax import cli, processes
port = next(a for a in sys.argv if a.startswith("--coordinator=")).partition("=")[2]
cli.entry_point(lambda: cli.run_command(lambda: processes.join(port, 2, 0, wait_s=3)))
"""


@pytest.mark.slow
def test_a_process_that_never_comes_is_told(tmp_path):
    ((status, _, lines),) = ended(started(2, tmp_path / "run", indices=[0], code=LATE))
    assert status == 2 and len(lines) == 1, lines
    assert lines[0].startswith("Error: Not all processes came to 127.0.0.1:")
    assert "within 3 s. Look whether each was started" in lines[0]
    code = LATE.replace("2, 0, wait", "2, 1, wait")
    ((status, _, lines),) = ended(started(2, tmp_path / "run", indices=[1], code=code))
    assert status == 2 and "process 0 is missing, for nothing answers there" in lines[0]


@pytest.mark.slow
def test_an_error_of_one_process_stops_the_others(tmp_path):
    """The second process finds no folder that it could write records into."""
    code = """
from mexjax import main
from mexjax.errors import WorkdirError
from mexjax.train.workdir import Workdir
def fails(self, index, record):
    raise WorkdirError("The disk is full.")
Workdir.save_group = fails
main.entry_point()
"""
    running = started(2, tmp_path / "run", indices=[0])
    port = next(a for a in running[0].args if a.startswith("--coordinator="))
    command = [a for a in running[0].args if not a.startswith("--process-id")]
    at = command.index("-m")
    command[at : at + 2] = ["-c", code]
    second = subprocess.Popen(
        [*command, "--process-id=1"],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert port in second.args
    first, other = ended([running[0], second])
    assert other[0] == 2 and other[2] == ["Error: The disk is full."]
    assert first[0] == 2 and len(first[2]) == 1
    assert "Process 1 of 2 stopped while it trained" in first[2][0]


@pytest.mark.slow
def test_the_script_for_one_machine(alone, tmp_path):
    options = [f"--config.{key}={value}" for key, value in (OVERRIDES | PLAIN).items()]
    names = {"MEXJAX_PYTHON": sys.executable, "MEXJAX_LOGS": str(tmp_path / "logs")}
    done = subprocess.run(
        [
            *("bash", str(ROOT / "launch" / "local.sh"), "2", f"--config={CARD}"),
            *(*options, f"--workdir={tmp_path / 'run'}"),
        ],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | names,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "process 0 of 2" in done.stdout
    assert "process 1 of 2" in (tmp_path / "logs" / "process_1.log").read_text(encoding="utf-8")
    same_numbers(alone, tmp_path / "run")


@pytest.mark.parametrize("arguments", [[], ["two", "--config=fdp"], ["0", "--config=fdp"]])
def test_the_script_explains_itself(arguments):
    command = ["bash", str(ROOT / "launch" / "local.sh"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("Usage: bash launch/local.sh N")


@pytest.mark.parametrize("name", ["local.sh", "slurm.sbatch"])
def test_scripts_have_no_mistake_of_syntax(name):
    command = ["bash", "-n", str(ROOT / "launch" / name)]
    assert subprocess.run(command, capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--num-processes=2"], "--coordinator and --process-id is not given"),
        (["--coordinator=node1", "--num-processes=2", "--process-id=0"], "takes HOST:PORT"),
        (["--coordinator=n:1", "--num-processes=2", "--process-id=2"], "--process-id is 0 to 1"),
    ],
)
def test_arguments_that_contradict_each_other(arguments, text, tmp_path, capsys):
    assert main.main(["--config=fdp", f"--workdir={tmp_path / 'run'}", *arguments]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "is_announced"),
    [
        ({}, False),
        # In the script of a batch job there is one process, whatever its steps have.
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n[1-2]"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
    ],
)
def test_what_schedulers_say(environment, is_announced):
    assert processes.are_announced(environment) == is_announced


def test_one_process_meets_nobody():
    processes.agree("configuration", "00" * 32)
    with pytest.raises(ConfigError, match="as it is"), processes.phase("it did nothing"):
        raise ConfigError("The error of the block comes as it is.")

"""The command that compiles a card for GPUs that are not there."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import results_files
from small import ROOT, small_config

from mexjax import main
from mexjax.gpu import compiling, targets
from mexjax.studies import compile_command
from mexjax.train import cost
from mexjax.train.programs import Calls, count_calls
from mexjax.train.study import make_study

FDP = ["compile", "--for=h200", "--config=fdp"]
needs_plugin = pytest.mark.skipif(
    not any(d.name == "jax-cuda12-plugin" for d in importlib.metadata.distributions()),
    reason="the extra gpu-programs is not installed",
)


def said(capsys) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile"], "The following arguments are required: --for, --config. See mexjax compile"),
        (["compile", "--fro=h200", "--for=h200", "--config=fdp"], "Did you mean --for?"),
        (["compile", "--for=h300", "--config=fdp"], "Unknown GPU 'h300'. Did you mean 'h"),
        (["compile", "--for=h200x0", "--config=fdp"], "how many of it, from 1 to 8"),
        (["compile", "--for=h200x9", "--config=fdp"], "how many of it, from 1 to 8"),
        (["compile", "--for=8xh200", "--config=fdp"], "Not understood: '8xh200'"),
        (
            ["compile", "--for=h200", "--config=fpd"],
            "Unknown recipe card 'fpd'. Did you mean 'fdp'",
        ),
        ([*FDP, "--config.precison=tf32"], "key 'precison'. Did you mean 'precision'"),
        ([*FDP, "--config.precision=fp8"], "Unknown precision 'fp8'"),
        ([*FDP, "--config.seed"], "--config.seed has no value"),
        ([*FDP, "--folds=0"], "takes a whole number from 1 on, found '0'"),
        ([*FDP, "--folds=many"], "takes a whole number from 1 on, found 'many'"),
        ([*FDP, "--folds=2", "--config.folds.per_chunk=3"], "Give one of the two."),
        ([*FDP, "--folds=2", "--config.folds.strategy=loop"], "Set folds.strategy=auto"),
        ([*FDP, "--config.sweep.seeds=0,1"], "mexjax compile takes one configuration"),
        ([*FDP, "--folds=99999"], "folds.per_chunk must be at most 10000"),
        ([*FDP, "--json=nowhere/a.json"], "its folder is not there"),
        ([*FDP, "--json=."], "it is a folder"),
    ],
)
def test_mistakes_end_in_one_message(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(targets, "absent", lambda *_: pytest.fail("the mistake went unnoticed"))
    assert main.main(arguments) == 2
    text = said(capsys)
    assert text.startswith("Error: ") and message in text, text
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_end_in_the_command_that_installs_them(capsys, monkeypatch):
    def raises(**_):
        raise RuntimeError("Unknown backend cuda.\nAvailable: ['cpu']")

    monkeypatch.setattr(targets.topologies, "get_topology_desc", raises)
    assert main.main(FDP) == 2
    text = capsys.readouterr().err
    assert "pip install 'mexjax[gpu-programs]'" in text and "Traceback" not in text
    assert text.count("\n") == 1


def test_help_names_every_gpu(capsys):
    assert main.main(["compile", "--help"]) == 0
    text = said(capsys)
    assert all(name in text for name in targets.GPUS)


@pytest.mark.parametrize("skips_idle", [False, True])
@pytest.mark.parametrize("steps_per_call", [0, 1])
def test_the_work_of_a_run_is_that_of_its_groups(skips_idle, steps_per_call, monkeypatch):
    study = make_study(small_config(train__steps_per_call=steps_per_call, eval__batch_size=4))
    monkeypatch.setattr(cost, "skipping_pays", lambda *_: skips_idle)
    calls = count_calls(study, 2, cost.StepBound(1.0, 1.0))
    per_call, steps = study.schedule.steps_per_call, 0
    for start in range(0, 5, 2):
        group = study.plan.valid[start : start + 2]
        for position in range(0, study.schedule.num_steps, per_call):
            some = group[:, position : position + per_call].any(axis=0)
            steps += int(some.sum()) if skips_idle else per_call * int(some.any())
    assert calls == (3, steps, 3 * 2 * study.plan.eval_idx.shape[1])
    assert 0 < calls.steps <= 3 * study.schedule.num_steps


def fake(temporary_gb=0.0, **bounds):
    program = types.SimpleNamespace(temporary_gb=temporary_gb, argument_gb=1.0)
    program.bounds = types.SimpleNamespace(**bounds)
    return program


def test_bounds_of_a_study_are_sums_over_its_calls():
    times = {"roofline_ms": 1.0, "graph_ms": 2.0, "launch_ms": 5.0}
    programs = {name: fake(**times) for name in ("init", "train", "evaluate")}
    lowered = types.SimpleNamespace(calls=Calls(groups=2, steps=100, batches=8))
    assert compile_command._study_bounds(lowered, programs) == {
        **{"groups": 2, "steps": 100, "evaluation_batches": 8},
        **{"roofline_s": 0.11, "graph_s": 0.22, "launch_s": 0.55},
    }


def test_memory_is_that_of_the_largest_program_beside_the_card():
    """A run plans four fifths of what JAX takes for several folds, and all of it for one."""
    card = targets.GPUS["l4"]
    share = 0.75 * card.memory_bytes / 1e9
    for width, needed, fits in ((1, 0.9 * share, True), (2, 0.9 * share, False), (1, 19.0, False)):
        programs = {"init": fake(), "train": fake(needed - 1.0), "evaluate": fake()}
        size = cost.GroupSize(width, "")
        memory = compile_command._memory(types.SimpleNamespace(size=size), programs, card)
        assert memory["fits"] == fits and memory["needed_gb"] == pytest.approx(needed, abs=1e-3)


def test_nothing_is_read_from_or_written_to_the_cache(tmp_path):
    """The settings of the cache are as before afterwards."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        jax.config.update(names[0], str(tmp_path))
        jax.config.update(names[1], 0.0)
        compiling.compilation_cache.reset_cache()
        shape = jax.ShapeDtypeStruct((3,), np.float32)
        with compiling.without_cache():
            jax.jit(lambda x: x + 1.5).lower(shape).compile()
        assert not list(tmp_path.iterdir())
        jax.jit(lambda x: x + 2.5).lower(shape).compile()
        assert list(tmp_path.iterdir())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compiling.compilation_cache.reset_cache()


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """A process without flags of the tests, which would change programs."""
    flags = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    flags |= {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"} | variables
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        check=False,
    )


# A sum at places that may be equal, whose order threads decide unless they are told otherwise.
OPTIONS = """
import jax, numpy as np
from mexjax.config import load_config
from mexjax.gpu import targets
from mexjax.gpu.compiling import compile_for
from mexjax.train.numerics import compile_options

gpu = targets.GPUS["h200"]
target = targets.absent(gpu)
place = jax.sharding.SingleDeviceSharding(target.devices[0])
kinds = (((999,), np.int32), ((999, 64), np.float32))
shapes = [jax.ShapeDtypeStruct(*kind, sharding=place) for kind in kinds]
kernels = []
for deterministic in (False, True, True):
    config = load_config("fdp", {"deterministic": deterministic, "gpu.graphs": "convolutions"})
    lowered = jax.jit(lambda i, x: jax.numpy.zeros((9, 64)).at[i].add(x)).lower(*shapes)
    compiled = compile_for(lowered, gpu, options=compile_options(config, target))
    kernels.append(compiled.bounds.kernels)
print(*kernels)

# A loop with few launches beside it.
def steps(x):
    return jax.lax.scan(lambda x, _: (jax.numpy.tanh(x @ x) + x[::-1], None), x, length=7)[0]

matrix = jax.ShapeDtypeStruct((128, 128), np.float32, sharding=place)
config = load_config("fdp", {"gpu.graphs": "epoch"})
lowered = jax.jit(steps).lower(matrix)
for options in ({}, compile_options(config, target)):
    print(compile_for(lowered, gpu, num_steps=7, options=options).host_launches)
"""


@needs_plugin
@pytest.mark.gpu_program
def test_options_are_taken_and_the_cache_is_left_alone(tmp_path):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = python("-W", "error", "-c", OPTIONS, **cache)
    assert done.returncode == 0, done.stderr
    quick, slow, again, by_step, by_epoch = map(int, done.stdout.split())
    assert quick < slow == again
    assert by_step > 0 and by_epoch == 0, "the epoch is one graph"
    assert not list(tmp_path.glob("*lambda*")), "nothing of an absent GPU is in the cache"


@needs_plugin
@pytest.mark.gpu_program
def test_a_card_is_compiled_and_bounded(tmp_path):
    file = tmp_path / "figures.json"
    given = ["compile", "--for=h200x8", "--config=micro_au_clip", "--folds=1", f"--json={file}"]
    done = python("-m", "mexjax", *given)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    record = json.loads(file.read_text())
    files = [r for r in results_files.read_results() if r.kind == "gpu_programs"]
    committed = files[-1].record["programs"]["micro_au_clip_tiny_1x8"]
    train = record["programs"]["train"]
    for key in ("kernels", "gbytes"):
        assert train[key] == pytest.approx(committed[key], rel=0.05)
    assert record["devices"] == 8 and record["folds_per_device"] == 1
    assert record["memory"]["fits"]
    study = record["study"]
    assert study["groups"] == -(-record["folds"] // 8)
    assert 0 < study["roofline_s"] < study["graph_s"] < study["launch_s"]
    least = study["steps"] * train["graph_ms"] / 1e3
    assert least <= study["graph_s"] < 1.2 * least
    for words in ("8 x NVIDIA H200", "training step", "at least", "it fits", "Nothing was run"):
        assert words in done.stdout

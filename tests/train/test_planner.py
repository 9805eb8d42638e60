"""The plan of a run counts what the run does, and records nothing."""

from __future__ import annotations

import dataclasses

import pytest
from small import CARD, OVERRIDES, small_config

import mexjax
from mexjax import main
from mexjax.errors import ConfigError
from mexjax.train import planner
from mexjax.train import run as train


def counted(monkeypatch, config, folder):
    """Calls of the training and of the evaluation program in a run."""
    compile_programs, calls = train.compile_programs, {"train": 0, "evaluate": 0}

    def counting(*args, **sizes):
        compiled = compile_programs(*args, **sizes)

        def called(name):
            def call(*arrays):
                calls[name] += 1
                return getattr(compiled, name)(*arrays)

            return call

        return compiled._replace(train=called("train"), evaluate=called("evaluate"))

    monkeypatch.setattr(train, "compile_programs", counting)
    monkeypatch.setattr("mexjax.train.cost.needed_bytes", lambda program: 0)
    monkeypatch.setattr("mexjax.train.cost.temporary_bytes", lambda program: 0)
    monkeypatch.setattr("mexjax.train.cost.cost", lambda program: {})
    mexjax.run(config, folder)
    monkeypatch.undo()
    return calls


@pytest.mark.parametrize("changes", [{"folds__strategy": "loop"}, {"folds__strategy": "vmap"}])
def test_a_plan_counts_what_a_run_does(changes, tmp_path, monkeypatch):
    config = small_config(**changes)
    (plan,) = planner.make_plan(config)
    calls = counted(monkeypatch, config, tmp_path / "run")
    assert (plan.num_steps, plan.num_evaluation_batches) == (calls["train"], calls["evaluate"])
    assert plan.num_trials == 5 and plan.runs == []
    assert plan.num_groups == (5 if changes["folds__strategy"] == "loop" else 3)
    assert plan.memory_bytes > 0 and plan.train_s > 0 and plan.evaluate_s > 0
    # Five folds in groups of two leave a sixth place; one by one there is none.
    if changes["folds__strategy"] == "loop":
        assert plan.padding == 0 and plan.num_idle == 0
    else:
        assert plan.padding >= 1 / 6 - 1e-9


def test_devices_without_a_trial_are_counted():
    (plan,) = planner.make_plan(small_config(folds__strategy="shard", folds__per_chunk=1))
    assert (plan.num_devices, plan.per_device, plan.num_groups) == (4, 1, 2)
    assert plan.num_idle == 3
    assert "In the last group 3 devices have no trial." in planner.plan_lines([plan])


def test_a_sweep_has_a_plan_for_each_program():
    config = small_config(
        sweep__seeds=(0, 1),
        sweep__values__train__weight_decay=(0.0, 0.1, 0.2),
        folds__strategy="loop",
    )
    plans = planner.make_plan(config)
    assert [plan.num_trials for plan in plans] == [10, 20]
    assert plans[0].runs == ["weight_decay=0.0_seed0", "weight_decay=0.0_seed1"]
    lines = planner.plan_lines(plans)
    assert lines[0].startswith("Program 1 of 2: weight_decay=0.0_seed0")
    assert any(line.startswith("20 trials of 4 runs, 1 at a time, so 20 groups") for line in lines)


def test_the_command_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
    assert main.main([f"--config={CARD}", *options, "--plan"]) == 0
    text = capsys.readouterr().out
    assert "5 folds, 2 at a time, so 3 groups" in text and "Expected: " in text
    assert not list(tmp_path.iterdir())


def test_a_plan_refuses_what_a_run_refuses():
    with pytest.raises(ConfigError, match="must be at least 0"):
        planner.make_plan(small_config(train__weight_decay=-1.0))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (89, "89 s"), (600, "10 min"), (7200, "2 h")]
)
def test_times_are_said_in_a_unit_that_suits(seconds, text):
    plan = planner.ProgramPlan([], 1, 1, 1, "so", 1, 1, 1, 0.0, 1, 1, 1.0, seconds, 0.0)
    assert f"Expected: {text} of training" in planner.plan_lines([plan])[-1]
    assert planner.plan_lines([dataclasses.replace(plan, runs=["a"])])[0].startswith("1 trials")

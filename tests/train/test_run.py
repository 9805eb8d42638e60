"""A whole study: files, resuming, interruption, and what is said when it cannot go on."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pandas as pd
import pytest
from device_helpers import needs_cpu
from small import CARD, OVERRIDES, ROOT, small_config

import mexjax
from mexjax import main, plugins, target
from mexjax.data.loading import load_table
from mexjax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    Interrupted,
    MexjaxError,
    OutOfMemoryError,
    WorkdirError,
)
from mexjax.report.agreement import config_digest
from mexjax.train import group
from mexjax.train import run as train
from mexjax.train import workdir as workdir_module
from mexjax.train.checkpoint import GroupCheckpoints
from mexjax.train.fold_axis import describe_devices
from mexjax.train.programs import trace_step
from mexjax.train.record import read_rows
from mexjax.train.study import load_dataset, make_study
from mexjax.train.workdir import Workdir

FILES = "config.json folds.json predictions.npz predictions.csv results.json run.json perf.json"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return mexjax.run(small_config(), folder)


def test_a_run_writes_its_files(finished):
    for name in [*FILES.split(), "report.md", "sheet.npz"]:
        assert (finished.workdir / name).is_file(), name
    assert not list(finished.workdir.glob("checkpoints/*")), "finished groups keep no checkpoint"
    assert not list(finished.workdir.glob("**/.*.tmp"))


def test_results_agree_with_the_predictions(finished):
    table = pd.read_csv(finished.workdir / "predictions.csv")
    pd.testing.assert_frame_equal(table, finished.predictions)
    accuracy = (table["label"] == table["prediction"]).mean()
    results = json.loads((finished.workdir / "results.json").read_text())
    assert results["metrics"]["last"]["acc"] == pytest.approx(accuracy)
    assert results["metrics"]["oracle"]["acc"] >= accuracy - 1e-6
    assert table["clip"].is_unique and len(table) == 36
    logits = table.filter(regex="^logit_").to_numpy()
    names = [c.removeprefix("logit_") for c in table.columns if c.startswith("logit_")]
    assert [names[i] for i in logits.argmax(axis=1)] == table["prediction"].tolist()


def test_nothing_is_compiled_while_training(finished):
    costs = json.loads((finished.workdir / "perf.json").read_text())
    assert costs["num_compilations"] > 0 and costs["compile_s"] > 0
    assert costs["num_compilations_while_training"] == 0


def test_every_clip_is_held_out_with_its_subject(finished):
    listed = json.loads((finished.workdir / "folds.json").read_text())
    for fold in listed["folds"]:
        train, test = set(fold["train"]), set(fold["test"])
        assert not train & test
        assert {c.rsplit("/", 1)[0] for c in test} == {fold["name"]}
        assert fold["name"] not in {c.rsplit("/", 1)[0] for c in train}


def test_clips_without_a_class_are_counted_by_emotion(tmp_path):
    config = small_config(
        protocol__classes=3,
        folds__only=("synthetic/01",),
        train__num_epochs=1,
        eval__every_epochs=1,
    )
    emotions = load_table(config)["emotion"].tolist()
    results = mexjax.run(config, tmp_path / "run").results
    num_unused = emotions.count("others")
    assert 0 < num_unused < len(emotions)
    assert results["left_out"] == {
        **{"num_clips": num_unused, "num_clips_in_all": len(emotions)},
        "clips": {"others": num_unused},
    }
    line = f"{len(emotions)} clips, {num_unused} left out: {num_unused} others"
    assert line in (tmp_path / "run/report.md").read_text(encoding="utf-8")


def test_a_finished_run_is_not_trained_again(finished, monkeypatch):
    monkeypatch.setattr(group.GroupTrainer, "run", lambda self: pytest.fail("trained again"))
    again = mexjax.run(small_config(), finished.workdir)
    assert again.was_finished and again.results == finished.results


def test_a_fold_alone_is_the_fold_among_the_others(finished, tmp_path):
    name = "synthetic/03"
    config = small_config(folds__only=(name,), folds__strategy="loop")
    alone = mexjax.run(config, tmp_path / "alone").predictions
    among = finished.predictions[finished.predictions["fold"] == name].reset_index(drop=True)
    assert alone["clip"].tolist() == among["clip"].tolist()
    columns = [c for c in alone.columns if c.startswith("logit_")]
    np.testing.assert_allclose(alone[columns], among[columns], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        pytest.param({"train__num_epochs": 2}, [4, 6], id="the last of an epoch"),
        pytest.param(
            {"train__num_epochs": 0, "train__num_steps": 6},
            [6, 6],
            id="a whole epoch",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_steps_that_no_fold_of_a_group_has_are_left_out(changes, steps, tmp_path, monkeypatch):
    config = small_config(
        folds__strategy="loop",
        folds__only=("synthetic/01", "synthetic/02"),
        train__batch_size=14,
        **changes,
    )
    valid = make_study(config).plan.valid
    assert sorted(valid.sum(axis=1)) == steps and not valid.all()
    compile_programs, calls = train.compile_programs, []

    def counting(*arguments, **sizes):
        compiled = compile_programs(*arguments, **sizes)
        step = compiled.train

        class Counted:
            def __call__(self, *arrays):
                calls.append(1)
                return step(*arrays)

            def __getattr__(self, name):
                return getattr(step, name)

        return compiled._replace(train=Counted())

    monkeypatch.setattr(train, "compile_programs", counting)
    short = mexjax.run(config, tmp_path / "short")
    assert len(calls) == valid.sum()
    calls.clear()
    # Run instead of left out, these steps change nothing.
    always = lambda self, _, carry: self.compiled.train(carry, self.plan, self.data)  # noqa: E731
    monkeypatch.setattr(group.GroupTrainer, "_call", always)
    whole = mexjax.run(config, tmp_path / "whole")
    assert len(calls) == valid.size
    pd.testing.assert_frame_equal(short.predictions, whole.predictions, check_exact=True)
    arrays = [np.load(run.workdir / "predictions.npz") for run in (short, whole)]
    for name in arrays[0].files:
        if name != "seconds":
            np.testing.assert_array_equal(*(found[name] for found in arrays), err_msg=name)


@pytest.mark.parametrize(
    ("every", "seconds", "epochs"),
    [(1, 0.0, [1, 2, 3, 4, 5]), (2, 0.0, [2, 4]), (1, 2.0, [2, 4])],
)
def test_checkpoints_are_some_epochs_and_some_time_apart(
    every, seconds, epochs, tmp_path, monkeypatch
):
    """By a clock that only an evaluation, one an epoch, sets on: by a second."""
    config = small_config(
        folds__only=("synthetic/02",),
        train__num_epochs=6,
        checkpoint__every_epochs=every,
        checkpoint__min_seconds=seconds,
    )
    saved, clock, evaluate = [], [100.0], group.GroupTrainer._evaluate

    def slow(self, *place):
        clock[0] += 1
        return evaluate(self, *place)

    monkeypatch.setattr(group.GroupTrainer, "_evaluate", slow)
    monkeypatch.setattr(group, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(GroupCheckpoints, "save", lambda self, position, _: saved.append(position))
    mexjax.run(config, tmp_path / "run")
    steps = make_study(config).schedule.epoch_steps
    assert saved == [epoch * steps for epoch in epochs]


def test_a_checkpoint_within_a_call_is_refused(tmp_path):
    """Saved where a call was one step, read where it is four."""
    group.check_resume(8, 4, tmp_path)
    with pytest.raises(CheckpointError, match=r"after step 5, which lies within a call of 4 steps"):
        group.check_resume(5, 4, tmp_path)


class Killed(BaseException):
    """Stands for the process going away: nothing on the way catches it."""


@pytest.mark.parametrize(
    "calls",
    [3, pytest.param(6, marks=pytest.mark.slow), pytest.param(11, marks=pytest.mark.slow)],
)
def test_a_run_cut_short_goes_on_to_the_same_predictions(calls, finished, tmp_path, monkeypatch):
    """Cut at a step, without any saving on the way out; every epoch is checkpointed."""
    config = small_config(checkpoint__every_epochs=1)
    device_get, left = jax.device_get, [calls]

    def fails(tree):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return device_get(tree)

    monkeypatch.setattr(group.jax, "device_get", fails)
    with pytest.raises(Killed):
        mexjax.run(config, tmp_path / "run")
    monkeypatch.undo()
    mexjax.run(config, tmp_path / "run")
    expected = (finished.workdir / "predictions.csv").read_bytes()
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == expected


def command(workdir, **changes):
    options = [f"--config.{key}={value}" for key, value in (OVERRIDES | changes).items()]
    environment = dict(
        os.environ,
        JAX_COMPILATION_CACHE_DIR=jax.config.jax_compilation_cache_dir,
        JAX_PLATFORMS="cpu",
        JAX_NUM_CPU_DEVICES="4",  # as in these tests: the threads of a device round alike
    )
    return subprocess.Popen(
        [sys.executable, "-m", "mexjax.main", f"--config={CARD}", f"--workdir={workdir}", *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@needs_cpu()
@pytest.mark.slow
def test_sigkill_then_sigterm_then_the_same_predictions(finished, tmp_path):
    """The real thing: processes killed at moments nobody chose."""
    workdir = tmp_path / "run"
    changes = {"checkpoint.every_epochs": 1}
    groups = workdir / "groups"
    for number, stop in enumerate((signal.SIGKILL, signal.SIGTERM)):
        process = command(workdir, **changes)
        deadline = time.monotonic() + 300
        # Wait until training has begun: there is a checkpoint of the group after those finished.
        while process.poll() is None and time.monotonic() < deadline:
            done = len(list(groups.glob("*.npz"))) if groups.is_dir() else 0
            if done >= number and any(workdir.glob(f"checkpoints/group_{done:03d}/*")):
                break
            time.sleep(0.05)
        process.send_signal(stop)
        output, _ = process.communicate(timeout=300)
        if stop == signal.SIGTERM and process.returncode != 0:
            assert process.returncode == 143, output
            assert "the state is saved" in output
    process = command(workdir, **changes)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    expected = (finished.workdir / "predictions.csv").read_bytes()
    assert (workdir / "predictions.csv").read_bytes() == expected
    assert "UF1" in output


def test_a_stop_request_saves_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    """SIGTERM between two steps: the state is saved there and the run goes on from there."""
    config = small_config(folds__only=("synthetic/02",))
    straight = mexjax.run(config, tmp_path / "straight")
    compile_programs = train.compile_programs

    def with_signal(*args, **sizes):
        compiled, calls = compile_programs(*args, **sizes), [0]

        def step(*arrays):
            calls[0] += 1
            if calls[0] == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return compiled.train(*arrays)

        return compiled._replace(train=step)

    monkeypatch.setattr(train, "compile_programs", with_signal)
    monkeypatch.setattr(train.cost, "needed_bytes", lambda program: 0)
    monkeypatch.setattr(train.cost, "temporary_bytes", lambda program: 0)
    with pytest.raises(Interrupted, match="Stopped by SIGTERM; the state is saved"):
        mexjax.run(config, tmp_path / "run")
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "run" / "checkpoints" / "group_000").glob("[0-9]*")] == [
        "6"
    ]
    resumed = mexjax.run(config, tmp_path / "run")
    pd.testing.assert_frame_equal(resumed.predictions, straight.predictions)


def test_a_mistake_does_not_claim_the_folder(tmp_path):
    with pytest.raises(ConfigError):
        mexjax.run(small_config(data__center="clip_maen"), tmp_path / "run")
    config = small_config(folds__only=("synthetic/02",))
    assert mexjax.run(config, tmp_path / "run").results


def test_overwrite_leaves_other_folders_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["Other"]}')
    (tmp_path / "weights.bin").write_text("precious")
    with pytest.raises(WorkdirError, match="not of a mexjax run, so nothing there was deleted"):
        mexjax.run(small_config(), tmp_path, overwrite=True)
    assert (tmp_path / "weights.bin").read_text() == "precious"


def test_another_number_of_devices_is_told(tmp_path):
    folder = Workdir.open(tmp_path / "run", small_config(), is_overwritten=False)
    folder.save_group_size(2, 4)
    assert folder.group_size(4) == 2
    with pytest.raises(WorkdirError, match="begun on 4 devices and there are 2 now"):
        folder.group_size(2)


def test_another_configuration_is_told_apart(finished):
    with pytest.raises(WorkdirError, match=r"train\.batch_size is 8 there and 9 now.*--overwrite"):
        mexjax.run(small_config(train__batch_size=9), finished.workdir)
    # What does not change the numbers may differ.
    mexjax.run(small_config(checkpoint__every_epochs=7), finished.workdir)


def test_overwrite_starts_anew(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.workdir, copy)
    (copy / "notes.json").write_text("[]")
    config = small_config(folds__only=("synthetic/02",))
    anew = mexjax.run(config, copy, overwrite=True)
    assert (copy / "notes.json").read_text() == "[]"
    assert not anew.was_finished and set(anew.predictions["fold"]) == {"synthetic/02"}


def test_a_damaged_group_record_is_trained_again(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.workdir, copy)
    (copy / "run.json").unlink()
    record = copy / "groups" / "group_001.npz"
    record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])
    again = mexjax.run(small_config(), copy)
    assert not again.was_finished
    expected = (finished.workdir / "predictions.csv").read_bytes()
    assert (copy / "predictions.csv").read_bytes() == expected


def test_a_flipped_bit_in_a_group_record_is_trained_again(finished, tmp_path, caplog):
    """Also in parts of the file that no reader looks at, and a digest that is gone."""
    size = (finished.workdir / "groups" / "group_001.npz").stat().st_size
    folder = Workdir.open(tmp_path / "run", small_config(), is_overwritten=False)
    record, beside = (folder.groups / f"group_001.npz{end}" for end in ("", ".sha256"))

    def copy():
        shutil.copytree(finished.workdir / "groups", folder.groups, dirs_exist_ok=True)
        caplog.clear()

    for place in range(0, size, max(size // 40, 1)):
        copy()
        content = bytearray(record.read_bytes())
        content[place] ^= 1 << (place % 8)
        record.write_bytes(content)
        assert folder.load_group(1) is None and not record.exists(), place
        assert "group_001.npz is damaged: its digest does not fit" in caplog.text
    copy()
    beside.unlink()
    assert folder.load_group(1) is None
    copy()
    assert folder.load_group(1) is not None and not caplog.text


def test_the_groups_of_a_run_are_told_from_its_records(finished, tmp_path):
    """A file of sizes that is damaged does not cut the folds into other groups."""
    folder = Workdir(tmp_path / "run")
    shutil.copytree(finished.workdir, folder.path)
    size = folder.groups / "size.json"
    devices = json.loads(size.read_text())["num_devices"]
    for content in (size.read_bytes().replace(b'"per_device": 2', b'"per_device": 3'), b"{", None):
        size.unlink()
        if content is not None:
            size.write_bytes(content)
        assert folder.group_size(devices) == 2
        size.touch()
    with pytest.raises(CheckpointError, match=r"has the folds \[1, 2\], but this group has \[1\]"):
        group.check_group(np.array([1, 2]), np.array([1]), size)


@pytest.mark.parametrize("name", ["predictions.npz", "sheet.npz", "folds.json", "run.json"])
def test_a_damaged_file_of_a_finished_run_is_refused_by_the_report_and_made_anew(
    name, finished, tmp_path, monkeypatch, caplog
):
    copy = tmp_path / "copy"
    shutil.copytree(finished.workdir, copy)
    content = bytearray((copy / name).read_bytes())
    # The digit of a number of run.json and the last byte of a name of folds.json stay JSON.
    texts = {"run.json": b'"num_params": ', "folds.json": b"synthetic/0"}
    place = content.index(texts[name]) + len(texts[name]) if name in texts else len(content) // 2
    content[place] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(MexjaxError, match=name):
        mexjax.write_report(copy)
    shutil.copytree(copy, tmp_path / "alone")
    monkeypatch.setattr(group.GroupTrainer, "run", lambda self: pytest.fail("trained again"))
    assert not mexjax.run(small_config(), copy).was_finished
    assert f"{name} " in caplog.text and "The record is written anew" in caplog.text
    for file in ("predictions.csv", "predictions.npz", "sheet.npz", "folds.json"):
        assert (copy / file).read_bytes() == (finished.workdir / file).read_bytes()
    assert mexjax.run(small_config(), copy).was_finished
    # Without every group nothing is trained again that might be there in a copy.
    (tmp_path / "alone" / "groups" / "group_001.npz").unlink()
    with pytest.raises(MexjaxError, match=rf"{name}.*delete run\.json"):
        mexjax.run(small_config(), tmp_path / "alone")


def test_a_changed_configuration_of_a_finished_run_is_refused_by_the_report(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.workdir, copy)
    config = json.loads((copy / "config.json").read_text())
    config["train"]["batch_size"] = 9
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"config\.json is damaged or was changed after training"):
        mexjax.write_report(copy)


def test_records_that_vanish_after_training_are_written_again(finished, tmp_path, monkeypatch):
    """The whole folder may go while the last group is trained; what is trained is in memory."""
    copy = tmp_path / "copy"
    shutil.copytree(finished.workdir, copy)
    for name in ("run.json", "groups/group_002.npz"):
        (copy / name).unlink()
    train_one = group.GroupTrainer.run
    damages = [
        lambda: (copy / "groups" / "group_000.npz").unlink(),
        lambda: (copy / "groups" / "group_001.npz").write_bytes(b"x"),
        lambda: shutil.rmtree(copy / "groups"),
    ]
    records = [copy / "groups" / f"group_00{number}.npz" for number in (0, 1)]

    def run_and_damage(self):
        outputs = train_one(self)
        for damage in damages:
            damage()
        return outputs

    monkeypatch.setattr(group.GroupTrainer, "run", run_and_damage)
    mexjax.run(small_config(), copy)
    for path in records:
        assert path.read_bytes() == (finished.workdir / "groups" / path.name).read_bytes()
    for name in ("predictions.csv", "predictions.npz"):
        assert (copy / name).read_bytes() == (finished.workdir / name).read_bytes()


@pytest.mark.parametrize("damage", [None, "{", "true", '[["seed"]]', '{"seed": 0}', "flipped"])
def test_a_damaged_configuration_is_told_from_its_digest(damage, finished, tmp_path, caplog):
    """It is written again for the same run, and lets no other run in."""
    copy = tmp_path / "copy"
    shutil.copytree(finished.workdir, copy)
    (copy / "run.json").unlink()
    saved = copy / "config.json"
    content = saved.read_text()
    saved.unlink()
    if damage is not None:
        other = content.replace('"batch_size": 8', '"batch_size": 9')
        saved.write_text(other if damage == "flipped" else damage)
    for config in (small_config(seed=1), small_config(train__batch_size=9)):
        with pytest.raises(WorkdirError, match=r"another configuration|config\.json.*damaged"):
            mexjax.run(config, copy)
    mexjax.run(small_config(), copy)
    before, after = (config_digest(json.loads(text)) for text in (content, saved.read_text()))
    assert before == after and "config.json is missing or damaged" in caplog.text
    for name in ("predictions.csv", "predictions.npz"):
        assert (copy / name).read_bytes() == (finished.workdir / name).read_bytes()


def test_a_run_without_its_configuration_can_be_overwritten(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.workdir / "groups", copy / "groups")
    (copy / "groups" / "size.json").unlink()
    config = small_config(seed=1, folds__only=("synthetic/02",), train__num_epochs=1)
    with pytest.raises(WorkdirError, match=r"config\.json, which tells their.*--overwrite"):
        mexjax.run(config, copy)
    Workdir.open(copy, config, is_overwritten=True).close()
    assert not list(copy.glob("groups/*"))


@pytest.mark.parametrize("name", ["group_001.npz", "group_001.npz.sha256"])
def test_a_folder_in_the_place_of_a_record_is_told_before_training(name, finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.workdir, copy)
    (copy / "run.json").unlink()
    (copy / "groups" / name).unlink()
    (copy / "groups" / name).mkdir()
    with pytest.raises(WorkdirError, match=rf"{name} is a folder.*Move it away"):
        mexjax.run(small_config(), copy)


def test_groups_are_counted_beyond_a_thousand_and_strangers_are_not(tmp_path):
    folder = Workdir(tmp_path)
    for index in (0, 7, 1000):
        folder.save_group(index, {"fold_id": np.arange(index, index + 2)})
    for name in ("group_x.npz", "group_000.npz.part", "group_000_old.npz"):
        (folder.groups / name).touch()
    assert folder.recorded_groups() == [0, 7, 1000]
    assert folder.group_size(1) == 2
    rows = read_rows([1000, 8], folder)
    assert rows is not None and [int(row["fold_id"]) for row in rows] == [1000, 8]


def test_a_full_disk_leaves_records_and_checkpoints_as_they_were(tmp_path, caplog):
    """Nothing but the message comes, and the same command goes on."""
    config = small_config(
        folds__only=("synthetic/02",), train__num_epochs=3, checkpoint__every_epochs=1
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = mexjax.run(config, tmp_path / "whole").workdir
    for step, text, num_kept in ((1, "a checkpoint", 0), (3, ".*group_000.npz", 2)):
        folder = tmp_path / str(step)
        record = group.GroupTrainer._record_epoch

        def fills(self, epoch, logs, step=step, record=record):
            record(self, epoch, logs)
            if epoch == step:
                self.checkpoints.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (700, limits[1]))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(group.GroupTrainer, "_record_epoch", fills)
            try:
                with pytest.raises(WorkdirError, match=rf"Cannot write {text}.*Free") as error:
                    mexjax.run(config, folder)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert len(str(error.value)) < 400
        steps = [p for p in folder.glob("checkpoints/group_000/*") if p.name.isdecimal()]
        assert len(steps) == num_kept
        assert "Traceback" not in caplog.text
        assert not list(folder.glob("groups/*.npz")) and not list(folder.glob("**/.*.tmp"))
        mexjax.run(config, folder)
        name = "predictions.npz"
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_a_diverging_run_names_fold_epoch_and_step(tmp_path):
    config = small_config(
        train__optimizer="sgd",
        train__learning_rate=1e3,  # the largest that is taken
        train__schedule="constant",
        checkpoint__every_epochs=1,
    )
    with pytest.raises(DivergedError, match=r"fold synthetic/\d\d is not finite in epoch \d, step"):
        mexjax.run(config, tmp_path / "run")


def test_a_held_out_logit_that_is_not_finite(tmp_path, monkeypatch):
    """A clip that only evaluation sees can break where training does not."""
    compile_programs = train.compile_programs

    def with_nan(*args, **sizes):
        compiled = compile_programs(*args, **sizes)

        def evaluate(*arrays):
            found = compiled.evaluate(*arrays)
            return found | {"logits": found["logits"].at[..., 0].set(jax.numpy.nan)}

        return compiled._replace(evaluate=evaluate)

    monkeypatch.setattr(train, "compile_programs", with_nan)
    monkeypatch.setattr(group.jax, "transfer_guard", lambda _: contextlib.nullcontext())
    config = small_config(folds__only=("synthetic/02",))
    message = "held-out prediction of fold synthetic/02 is not finite after epoch 1"
    with pytest.raises(DivergedError, match=message):
        mexjax.run(config, tmp_path / "run")


def test_a_run_with_corrupt_checkpoints_says_which_folder_to_delete(tmp_path, monkeypatch):
    config = small_config(folds__only=("synthetic/02",), checkpoint__every_epochs=1)
    evaluate = group.GroupTrainer._evaluate

    def fails(self, epoch, carry):
        if epoch == 2:
            raise Killed
        return evaluate(self, epoch, carry)

    monkeypatch.setattr(group.GroupTrainer, "_evaluate", fails)
    with pytest.raises(Killed):
        mexjax.run(config, tmp_path / "run")
    monkeypatch.undo()
    folder = tmp_path / "run" / "checkpoints" / "group_000"
    damaged = [path for path in folder.rglob("*") if path.is_file()]
    assert damaged
    for path in damaged:
        path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"group_000 can be read.*Delete that folder"):
        mexjax.run(config, tmp_path / "run")
    shutil.rmtree(folder)
    assert mexjax.run(config, tmp_path / "run").results


def test_a_device_without_memory_names_the_keys_to_lower(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(train, "compile_programs", fails)
    with pytest.raises(
        OutOfMemoryError, match=r"Lower folds.per_chunk \(now 2.*batch_size \(now 8"
    ):
        mexjax.run(small_config(), tmp_path / "run")
    # Nothing was computed, so another configuration may have the folder.
    monkeypatch.undo()
    config = small_config(folds__only=("synthetic/02",))
    assert mexjax.run(config, tmp_path / "run").results


def test_files_of_a_finished_run_alone_are_told_apart_too(finished, tmp_path):
    """A copy without `groups/` still belongs to its configuration."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in finished.workdir.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    with pytest.raises(WorkdirError, match=r"seed is 0 there and 7 now"):
        mexjax.run(small_config(seed=7), copy)
    assert mexjax.run(small_config(), copy).was_finished


def test_a_record_that_cannot_be_read_is_kept(finished, tmp_path, monkeypatch):
    folder = Workdir.open(finished.workdir, small_config(), is_overwritten=False)

    def fails(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(workdir_module.np, "load", fails)
    with pytest.raises(WorkdirError, match="holds finished folds, so it was left alone"):
        folder.load_group(0)
    assert folder.group_file(0).is_file()


def test_another_seed_is_the_same_program():
    texts = []
    for seed in (0, 5):
        study = make_study(small_config(seed=seed, folds__only=("synthetic/02",)))
        data = study.dataset.on_host()
        texts.append(trace_step(study, data).lower().as_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__name": "casme22"}, r"Unknown data\.name 'casme22'.*Known:.*synthetic"),
        ({"model__name": "fpd"}, r"Unknown model 'fpd'. Did you mean 'fdp'"),
        ({"protocol__name": "losso"}, r"Unknown protocol\.name 'losso'. Did you mean 'loso'"),
        ({"eval__batch_size": 0}, r"eval.batch_size must be at least 1, found 0"),
        ({"augment__crop_px": 99}, r"augment.crop_px=99 is larger than the images"),
        ({"data__split_scale": "train"}, r"Set one of the two to none"),
        ({"data__root": "/data"}, r"data.root='/data' is for prepared datasets"),
        ({"conv": "im2coll"}, r"Unknown convolution lowering 'im2coll'. Did you mean 'im2col'"),
        ({"data__control": "statik"}, r"Unknown data.control 'statik'. Did you mean 'static'"),
        ({"folds__only": ("synthetic/9",)}, r"Unknown fold in folds.only 'synthetic/9'"),
        ({"train__optimizer": "adamm"}, r"Unknown train.optimizer"),
        ({"data__synthetic__num_clips": 3}, r"data.synthetic"),
        ({"precision": "float12"}, r"float12"),
        ({"seed": -1}, r"seed must be at least 0, found -1"),
        ({"seed": 2**32}, r"seed must be at most 4294967295, found 4294967296"),
        (
            {"train__schedule": "milestones", "train__milestones": ("a",)},
            r"train.milestones takes whole numbers, found 'a'",
        ),
        ({"data__magnify": "flow_scale"}, r"multiplies flow, and data.view=uniform has none"),
        ({"model__stem_strides": (1, 2)}, r"The stem needs one value a stage"),
        ({"data__image_size_px": 33}, r"do not divide an image of 33x33: change data.image_size"),
    ],
)
def test_bad_values_end_in_one_clear_message(changes, message, tmp_path):
    with pytest.raises(MexjaxError, match=message) as caught:
        mexjax.run(small_config(**changes), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WorkdirError, match=r"Cannot write to the run folder .*file/run"):
        mexjax.run(small_config(), tmp_path / "file" / "run")


def test_the_command_reports_errors_and_status(tmp_path, capsys):
    status = main.main([f"--config={CARD}", "--config.train.batchsize=3"])
    assert status == 2
    assert "Did you mean 'train.batch_size'" in capsys.readouterr().err
    assert main.main([f"--config={CARD}", "surplus"]) == 2
    assert "surplus" in capsys.readouterr().err


def test_the_command_reprints_a_finished_run(finished, capsys, monkeypatch):
    monkeypatch.setattr(plugins, "lacks_driver", lambda: True)
    options = [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
    argv = [f"--config={CARD}", f"--workdir={finished.workdir}", *options]
    assert main.main(argv) == 0
    output = capsys.readouterr().out
    assert "finished before" in output and "UF1" in output
    devices = describe_devices("auto", target.current(), OVERRIDES["folds.per_chunk"])
    assert f", seed 0, {devices}, folder {finished.workdir}\n" in output
    assert "JAX for CUDA is installed, but no NVIDIA driver is found.\n" in output


def test_results_tell_the_devices_that_were_used_from_those_that_are_there(finished):
    environment = finished.results["environment"]
    kinds = [device.device_kind for device in jax.local_devices()]
    assert environment["devices"] == kinds
    used = kinds if environment["strategy"] == "shard" else kinds[:1]
    assert environment["devices_used"] == used


@pytest.mark.parametrize("control", ["static", "shuffled_labels"])
def test_controls_change_the_data_they_say(control):
    plain = load_dataset(small_config())
    changed = load_dataset(small_config(data__control=control))
    if control == "static":
        assert (changed.clips == plain.clips[:, :1]).all()
        np.testing.assert_array_equal(changed.labels, plain.labels)
    else:
        np.testing.assert_array_equal(changed.clips, plain.clips)
        assert (changed.labels != plain.labels).any()
        assert sorted(changed.labels) == sorted(plain.labels)

"""Several seeds and settings side by side: each run is the one that is trained alone."""

from __future__ import annotations

import json
import os
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_config

import mexjax
from mexjax import main
from mexjax.errors import ConfigError, DivergedError, Interrupted, WorkdirError
from mexjax.models import get_model
from mexjax.report import sweep as report
from mexjax.report.files import read_run
from mexjax.train import optim, sweep, trials
from mexjax.train.group import GroupTrainer, History
from mexjax.train.programs import device_data
from mexjax.train.step import FoldFunctions
from mexjax.train.study import Schedule, make_study
from mexjax.train.trial_numbers import program_numbers

FOLDS = ("synthetic/01", "synthetic/02")
# Plain SGD: rounding does not grow by a division through small moments.
PLAIN = {
    "train__optimizer": "sgd",
    "folds__only": FOLDS,
    "protocol__num_validation_subjects": 1,
    "train__num_epochs": 2,
    "eval__every_epochs": 2,
    "folds__per_chunk": 4,
    "folds__strategy": "vmap",
}


def sweep_config(rates=(0.01, 0.02), seeds=(0, 1), **changes):
    values = {"sweep__seeds": seeds}
    if rates:
        values["sweep__values__train__learning_rate"] = rates
    return small_config(**(PLAIN | values | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return mexjax.run_sweep(sweep_config(), tmp_path_factory.mktemp("sweep") / "sweep")


def test_runs_have_names_settings_and_configurations():
    runs = trials.members(sweep_config())
    assert [run.name for run in runs] == [
        *("learning_rate=0.01_seed0", "learning_rate=0.01_seed1"),
        *("learning_rate=0.02_seed0", "learning_rate=0.02_seed1"),
    ]
    assert runs[3].setting == {"train.learning_rate": 0.02}
    config = runs[3].config
    assert (config.seed, config.train.learning_rate, tuple(config.sweep.seeds)) == (1, 0.02, ())
    assert config.is_locked and not config.sweep["values"]


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"train__learning_rate": (0.01, 0.02), "model__lambda_d": (1.0, 2.0)}, 1),
        ({"augment__brightness": (0.1, 0.2)}, 1),
        # Without decay the program has a part less, and an epoch more is another loop.
        ({"train__weight_decay": (0.0, 0.1, 0.2)}, 2),
        ({"train__num_epochs": (1, 2)}, 2),
        ({"model__mer_width": (16, 32)}, 2),
    ],
)
def test_numbers_share_a_program_and_other_keys_do_not(values, count):
    changes = {f"sweep__values__{key}": value for key, value in values.items()}
    runs = trials.members(sweep_config(rates=(), **changes))
    assert len(runs) == 2 * np.prod([len(value) for value in values.values()])
    assert len(trials.programs_of(runs)) == count


@pytest.mark.parametrize("control", ["none", "shuffled_labels"])
def test_seeds_share_a_program_unless_the_labels_follow_from_them(control):
    runs = trials.members(sweep_config(rates=(), data__control=control))
    assert len(trials.programs_of(runs)) == (1 if control == "none" else 2)
    keys = {trials.dataset_key(run.config) for run in runs}
    assert len(keys) == (1 if control == "none" else 2)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("train.learning_rat", "1,2", "Unknown key of sweep.values 'train.learning_rat'"),
        ("seed", "1,2", "Seeds have a key of their own: sweep.seeds=1,2"),
        ("model.preset", "paper,tiny", "A sweep has no values of model.preset. Start a sweep for"),
        ("report.has_figures", "true,false", "A sweep has no values of report.has_figures"),
        ("gpu.graphs", "default,epoch", "A sweep has no values of gpu.graphs"),
        ("model.stem_strides", "1,2", "model.stem_strides is a list itself"),
        ("train.learning_rate", "0.1,fast", "train.learning_rate takes a value of type float"),
        ("train.learning_rate", "", "sweep.values.train.learning_rate needs one value or more"),
        ("train.learning_rate", "0.1,0.10", "has a value twice: 0.1, 0.1"),
    ],
)
def test_values_that_cannot_be_swept_are_refused(key, value, text):
    with pytest.raises(ConfigError) as error:
        mexjax.load_config("fdp", [f"sweep.values.{key}={value}"])
    assert text in str(error.value)


def test_every_run_is_checked_before_any_is_trained(tmp_path):
    config = sweep_config(rates=(0.1, -1.0))
    with pytest.raises(ConfigError, match=r"train\.learning_rate must be above 0, found -1"):
        mexjax.run_sweep(config, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_single_run_takes_no_sweep(tmp_path):
    with pytest.raises(ConfigError, match=r"mexjax\.run_sweep"):
        mexjax.run(sweep_config(), tmp_path / "run")


@pytest.mark.parametrize(("seed", "rate"), [(0, 0.01), (1, 0.02)])
def test_a_run_is_the_one_that_is_trained_alone(seed, rate, finished, tmp_path):
    assert finished.num_programs == 1
    alone = mexjax.run(
        small_config(**PLAIN, seed=seed, train__learning_rate=rate), tmp_path / "run"
    )
    folder = finished.workdir / "runs" / f"learning_rate={rate}_seed{seed}"
    one, two = read_run(folder), read_run(alone.workdir)
    assert one.clip.tolist() == two.clip.tolist() and one.config == two.config
    np.testing.assert_allclose(one.logits, two.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one.curves["loss"], two.curves["loss"], rtol=1e-5)
    np.testing.assert_array_equal(one.validation_score, two.validation_score)
    # The command for a single run takes it as its own.
    again = mexjax.run(small_config(**PLAIN, seed=seed, train__learning_rate=rate), folder)
    assert again.was_finished


def joined(seeds, **changes):
    """The joined study of a sweep of seeds, and the study of each run."""
    config = sweep_config(rates=(), seeds=seeds, folds__only=(), train__batch_size=1, **changes)
    studies = [make_study(run.config) for run in trials.members(config)]
    return trials.layout(studies)[0], studies


@pytest.mark.parametrize("seeds", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_the_schedule_is_of_the_longest_fold_of_all_runs(seeds):
    study, each = joined(seeds)
    lengths = [one.schedule.epoch_steps for one in each]
    assert len(set(lengths)) > 1  # inner subjects follow from the seed
    assert study.schedule.epoch_steps == max(lengths)
    assert study.schedule.num_steps == study.plan.valid.shape[1]


def test_a_record_has_the_epochs_of_its_own_run():
    alone, other = (
        Schedule(num_epochs, 4, 1, eval_every=2, checkpoint_every=0, checkpoint_seconds=0.0)
        for num_epochs in (3, 5)
    )
    record = {
        "logits": np.array([[2.0, 4.0, 5.0]]).reshape(1, 3, 1, 1),  # after these epochs
        "curve_loss": np.arange(5.0).reshape(1, 5),
        "num_params": np.array([7]),
    }
    cut = trials.cut_record(record, other, alone)
    # Epoch 3 is the last one of the run, so the state after epoch 4 is the same.
    assert cut["logits"].ravel().tolist() == [2.0, 4.0]
    assert cut["curve_loss"].tolist() == [[0.0, 1.0, 2.0]]
    assert cut["num_params"].tolist() == [7]
    same = trials.cut_record(record, other, other)
    assert all(np.array_equal(same[name], record[name]) for name in record)


def test_runs_of_a_sweep_differ(finished):
    logits = [
        read_run(path).logits[:, -1] for path in sorted((finished.workdir / "runs").iterdir())
    ]
    assert len(logits) == 4
    for i in range(4):
        for j in range(i):
            assert np.abs(logits[i] - logits[j]).max() > 1e-3


@pytest.mark.parametrize(
    "card",
    [
        *("fdp", "gamdss", "tsfmicro"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ac4au", "micro_au_clip")),
    ],
)
def test_every_number_of_a_program_may_be_data(card):
    """The step is traced with an array in the place of each number; none is asked for its value."""
    config = mexjax.load_config(f"{card}:tiny", ["has_progress=False"])
    paper = get_model(card)
    keys = program_numbers(paper)
    if card == "micro_au_clip":  # its images are not augmented
        keys = tuple(key for key in keys if not key.startswith("augment."))
    values = mexjax.config.flat(config)
    with config.unlocked():
        for key in keys:  # every part is switched on
            if not key.startswith("model.") and not values[key]:
                section, name = key.split(".")
                config[section][name] = 0.1
    study = make_study(config)
    functions = FoldFunctions(
        config, paper, study.options, study.module, optim.make_optimizer(config.train), False
    )
    data = device_data(study)
    fold = jax.tree.map(lambda x: jnp.asarray(x[0]), study.plan)
    with_values = fold.replace(values={key: jnp.float32(0.1) for key in keys})
    state = jax.eval_shape(functions.init, fold, data)
    _, logs = jax.eval_shape(functions.train, state, jnp.int32(0), with_values, data)
    assert logs["loss"].shape == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "one_cycle", "warmup_fraction": 0.3, "weight_decay": 0.01},
        {"schedule": "epoch_decay", "decay_per_epoch": 0.7, "optimizer": "adamw", "beta1": 0.8,
         "weight_decay": 0.1, "grad_clip_norm": 0.5},
        {"schedule": "milestones", "milestones": (1,), "decay_per_epoch": 0.5, "optimizer": "sgd",
         "momentum": 0.6},
    ],
)  # fmt: skip
def test_an_update_with_numbers_as_data_is_the_same(changes):
    config = small_config(**{f"train__{key}": value for key, value in changes.items()}).train
    params = {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "bias": jnp.ones(3)}
    gradients = jax.tree.map(lambda x: 0.3 * x + 0.1, params)
    time = (jnp.int32(3), jnp.int32(10), jnp.int32(2))
    values = {name: jnp.float32(config[name]) for name in optim.NUMBERS}

    def update(values):
        optimizer = optim.make_optimizer(config, values)
        state = optimizer.transform.init(params)
        factors = jax.tree.map(lambda _: 1.0, params)
        for _ in range(2):
            new, state = optimizer.update_in_place(
                gradients, params, state, time, factors, lambda after, _: after
            )
        return new

    for one, two in zip(
        jax.tree.leaves(jax.jit(update)(values)),
        jax.tree.leaves(jax.jit(lambda: update(None))()),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, rtol=2e-6)


def test_more_seeds_keep_what_is_finished(finished):
    before = {p: p.read_bytes() for p in finished.workdir.glob("runs/*/predictions.npz")}
    stamps = {p: p.stat().st_mtime_ns for p in finished.workdir.glob("runs/*/groups/*.npz")}
    more = mexjax.run_sweep(sweep_config(seeds=(0, 1, 2)), finished.workdir)
    assert more.num_programs == 1
    assert [row["seeds"] for row in more.results["settings"]] == [[0, 1, 2], [0, 1, 2]]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    # Once more, nothing is left to train.
    assert mexjax.run_sweep(sweep_config(seeds=(0, 1, 2)), finished.workdir).num_programs == 0


def interrupt(config, folder, monkeypatch, *, call):
    """Trains a sweep until it is stopped in a call of the training program."""
    compile_programs = sweep.compile_programs

    def with_signal(*args, **sizes):
        compiled, calls = compile_programs(*args, **sizes), [0]

        def step(*arrays):
            calls[0] += 1
            if calls[0] == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return compiled.train(*arrays)

        return compiled._replace(train=step)

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "compile_programs", with_signal)
        patch.setattr("mexjax.train.cost.needed_bytes", lambda program: 0)
        patch.setattr("mexjax.train.cost.temporary_bytes", lambda program: 0)
        with pytest.raises(Interrupted):
            mexjax.run_sweep(config, folder)


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_checkpoint_of_other_keys_is_read(overwrite, finished, tmp_path, monkeypatch):
    folder = tmp_path / "sweep"
    # The runs have the same names, and nothing is recorded when the sweep is stopped.
    changes = {"rates": (), "seeds": (0,), "folds__per_chunk": 2}
    interrupt(sweep_config(**changes, train__learning_rate=0.05), folder, monkeypatch, call=3)
    assert list(folder.glob("checkpoints/*/[0-9]*"))
    assert not list(folder.glob("runs/*/groups/*.npz"))
    mexjax.run_sweep(
        sweep_config(**changes, train__learning_rate=0.01), folder, overwrite=overwrite
    )
    expected = read_run(finished.workdir / "runs" / "learning_rate=0.01_seed0")
    logits = read_run(folder / "runs" / "seed0").logits
    np.testing.assert_allclose(logits, expected.logits, rtol=1e-5, atol=1e-5)


def test_an_interrupted_sweep_goes_on_with_the_same_numbers(tmp_path, monkeypatch):
    config = sweep_config(rates=(), folds__per_chunk=2)
    straight = mexjax.run_sweep(config, tmp_path / "straight")
    interrupt(config, tmp_path / "sweep", monkeypatch, call=11)  # in the second group
    groups = list((tmp_path / "sweep").glob("runs/*/groups/group_*.npz"))
    assert len(groups) == 2  # the first group is recorded, one fold of each run
    assert list((tmp_path / "sweep" / "checkpoints").glob("*/[0-9]*"))
    mexjax.run_sweep(config, tmp_path / "sweep")
    assert not (tmp_path / "sweep" / "checkpoints").exists()
    for path in (straight.workdir / "runs").iterdir():
        other = read_run(tmp_path / "sweep" / "runs" / path.name)
        np.testing.assert_array_equal(read_run(path).logits, other.logits)


def test_a_trial_that_diverges_ends_alone(tmp_path):
    config = sweep_config(rates=(0.01, 900.0), seeds=(0,), train__grad_clip_norm=0.0)
    results = mexjax.run_sweep(config, tmp_path / "sweep").results
    good, bad = results["settings"]
    assert good["num_missing"] == 0 and good["metrics"]["last"]["acc"]["n"] == 1
    assert bad["num_missing"] == 1 and "metrics" not in bad
    (texts,) = bad["diverged"].values()
    assert "is not finite in epoch" in texts[0] and "learning_rate=900" in texts[0]
    assert "has no result" in (tmp_path / "sweep" / "sweep.md").read_text(encoding="utf-8")
    # It is not tried again, unless other keys make it another trial.
    assert mexjax.run_sweep(config, tmp_path / "sweep").results == results
    runs = trials.members(config)
    assert sweep._opened(tmp_path / "sweep", runs, is_new=False).diverged.keys() == {runs[1].name}
    others = trials.members(sweep_config(rates=(0.01, 900.0), seeds=(0,), train__momentum=0.5))
    assert not sweep._opened(tmp_path / "sweep", others, is_new=False).diverged
    with pytest.raises(DivergedError, match="Every run of the sweep has a trial that diverged"):
        mexjax.run_sweep(sweep_config(rates=(900.0, 800.0), seeds=(0,)), tmp_path / "bad")


def test_a_trial_that_failed_before_a_checkpoint_stays_failed():
    trainer = object.__new__(GroupTrainer)
    trainer.failures, trainer.names = {}, ["one", "two", "three"]
    trainer.schedule = Schedule(3, 2, 1, eval_every=1, checkpoint_every=1, checkpoint_seconds=0.0)
    trainer.host_plan = SimpleNamespace(valid=np.ones((3, 6), bool))
    curves, logits = np.full((3, 3, 1), np.nan), np.full((3, 3, 2, 2), np.nan)
    curves[:, :2], logits[:, :2] = 1.0, 1.0  # two of three epochs are done
    curves[1, 0], logits[2, 1, 0, 0] = np.inf, np.nan
    trainer.history = History(logits, curves, np.zeros(3))
    trainer._restore_failures(2)
    assert list(trainer.failures) == [1, 2]
    assert trainer.failures[1].endswith("fold two is not finite before epoch 3.")


def test_a_sweep_and_a_run_have_folders_of_their_own(finished, tmp_path):
    folder = finished.workdir / "runs" / "learning_rate=0.01_seed0"
    with pytest.raises(WorkdirError, match="is the folder of a single run"):
        mexjax.run_sweep(sweep_config(), folder)
    with pytest.raises(WorkdirError, match="is the folder of a sweep"):
        mexjax.run(small_config(**PLAIN), finished.workdir)


def test_the_command_reports_a_sweep(finished, capsys):
    assert main.main(["report", str(finished.workdir)]) == 0
    text = capsys.readouterr().out
    assert "train.learning_rate=0.02" in text and "Chosen (per fold" in text and "oracle (" in text
    saved = json.loads((finished.workdir / "sweep_results.json").read_text(encoding="utf-8"))
    assert [row["setting"] for row in saved["settings"]] == [
        {"train.learning_rate": 0.01},
        {"train.learning_rate": 0.02},
    ]


def test_the_default_folder_of_a_sweep_is_not_that_of_a_run():
    one = main.Order("fdp:tiny", [], None, False)
    two = main.Order("fdp:tiny", ["sweep.seeds=0,1"], None, False)
    folders = [o.folder(mexjax.load_config(o.card, o.overrides)) for o in (one, two)]
    assert folders[0] == "runs/fdp_tiny" and folders[1].startswith("runs/fdp_tiny_")


def test_settings_with_other_labels_are_not_compared(finished):
    names = [[f"learning_rate={rate}_seed{seed}" for seed in (0, 1)] for rate in (0.01, 0.02)]
    grid = [[read_run(finished.workdir / "runs" / name) for name in row] for row in names]
    assert report._not_comparable(grid) == ""
    label = grid[1][1].label
    label[0] = (label[0] + 1) % 5
    assert "learning_rate=0.02_seed1 has other labels than" in report._not_comparable(grid)

"""Task `au`: labels from the table, results, tables and comparison of several labels a clip."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from protocol_helpers import Config
from rich.console import Console
from sklearn import metrics as sk
from small import small_config

from mexjax.errors import ConfigError, DataError
from mexjax.protocol import metrics, splits
from mexjax.protocol.action_units import numbers_of
from mexjax.protocol.scoring import evaluation_scores, predict_units
from mexjax.report.compare import compare, print_comparison
from mexjax.report.text import print_results
from mexjax.report.write import write_report
from mexjax.train.study import load_dataset

UNITS = ("AU1", "AU4", "AU12")
DATASETS = ("casme", "samm")


def make_run(folder, *, seed: int = 0, with_inner: bool = False):
    """Leave-one-dataset-out over two sets of two subjects with five clips; three evaluations."""
    folder.mkdir()
    subjects = [f"{d}/{s}" for d in DATASETS for s in "12"]
    clips = [f"{s}/c{i}" for s in subjects for i in range(5)]
    of_clip = np.array([c.rpartition("/")[0] for c in clips])
    dataset = np.array([s.partition("/")[0] for s in of_clip])
    folds = []
    for name in DATASETS:
        other = [s for s in subjects if not s.startswith(name)]
        inner = other[:1] if with_inner else []
        train = [c for c, s in zip(clips, of_clip, strict=True) if s in other and s not in inner]
        folds.append(
            {
                "name": name,
                "train": train,
                "validation": [c for c, s in zip(clips, of_clip, strict=True) if s in inner],
                "test": [c for c, d in zip(clips, dataset, strict=True) if d == name],
            }
        )
    rng = np.random.default_rng(3)
    label = (rng.random((20, 3)) < (0.2, 0.6, 0.4)).astype(np.int32)
    label[dataset == "casme", 2] = 0  # a unit that a dataset lacks
    logits = np.random.default_rng(seed).normal(size=(20, 3, 3)) + 1.2 * (label[:, None] - 0.5)
    info = {"model": "ac4au", "preset": "tiny", "dataset": "synthetic_cd6me", "task": "au"}
    info |= {"protocol": "leave_one_dataset_out", "seed": seed, "control": "none"}
    listed = {"schema": 1, "protocol": info["protocol"], "classes": list(UNITS), "folds": folds}
    for name, content in (
        ("run", info),
        ("folds", listed),
        ("config", {"seed": seed, "report": {"has_figures": True}}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    inner = np.array([[0.1, 0.9, 0.2], [0.3, 0.1, 0.2]], np.float32)
    np.savez(
        folder / "predictions.npz",
        logits=logits.astype(np.float32),
        label=label,
        clip=np.array(clips),
        subject=of_clip,
        fold=dataset,
        epoch=np.array([1, 2, 4], np.int32),
        classes=np.array(UNITS),
        fold_names=np.array(DATASETS),
        curve_loss=np.ones((2, 4), np.float32),
        **({"validation_f1": inner} if with_inner else {}),
    )
    return folder, label, logits, dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, label, logits, dataset = make_run(
        tmp_path_factory.mktemp("units") / "run", with_inner=True
    )
    return folder, label, logits, dataset, write_report(folder)


def f1_of(label, prediction):
    return sk.f1_score(label, prediction, average=None, zero_division=0)


def test_one_binary_f1_a_unit_over_all_held_out_clips(made):
    _, label, logits, _, results = made
    last = results["metrics"]["last"]
    wanted = f1_of(label, logits[:, -1] > 0)
    found = [last["per_unit"][name]["f1"] for name in UNITS]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert last["f1"] == pytest.approx(wanted.mean(), abs=1e-6)
    assert last["acc"] == pytest.approx(((logits[:, -1] > 0) == label).mean(), abs=1e-6)
    always = f1_of(label, np.ones_like(label))
    found = [last["per_unit"][name]["f1_always"] for name in UNITS]
    np.testing.assert_allclose(found, always, atol=1e-6)
    assert last["f1_always"] == pytest.approx(always.mean(), abs=1e-6)
    assert [last["per_unit"][name]["n"] for name in UNITS] == label.sum(0).tolist()


def test_datasets_count_a_unit_they_lack_as_zero(made):
    _, label, logits, dataset, results = made
    for entry in results["datasets"]:
        rows = dataset == entry["name"]
        assert entry["last"]["f1"] == pytest.approx(
            f1_of(label[rows], logits[rows, -1] > 0).mean(), abs=1e-6
        )
        assert entry["f1_always"] == pytest.approx(
            f1_of(label[rows], np.ones_like(label[rows])).mean(), abs=1e-6
        )


def test_the_best_evaluation_is_that_of_the_largest_mean_f1(made):
    _, label, logits, dataset, results = made
    for entry in results["folds"]:
        rows = dataset == entry["name"]
        by_evaluation = [f1_of(label[rows], logits[rows, e] > 0).mean() for e in range(3)]
        best = int(np.argmax(by_evaluation))
        assert entry["oracle"]["epoch"] == (1, 2, 4)[best]
        assert entry["oracle"]["f1"] == pytest.approx(by_evaluation[best], abs=1e-6)
    assert [entry["selected"]["epoch"] for entry in results["folds"]] == [2, 1]


def test_an_evaluation_that_is_not_finite_is_never_the_best():
    label = np.array([[1, 0], [0, 1]])
    logits = np.where(label, 1.0, -1.0)[:, None].repeat(2, axis=1)
    logits[0, 0, 0] = np.nan
    np.testing.assert_array_equal(evaluation_scores("au", label, logits), [-1, 1])
    assert predict_units(logits)[0, 0].tolist() == [-1, 0]


def test_what_is_written_for_people(made):
    folder, _, _, _, results = made
    text = (folder / "report.md").read_text()
    assert "F1 of always present" in text and "mean over datasets" in text
    assert "UF1" not in text and "class" not in text.partition("## Time")[0].lower()
    assert (folder / "figures" / "units.png").stat().st_size > 5000
    console = Console(record=True, width=140)
    print_results(results, console=console)
    assert "AU12" in console.export_text()
    table = pd.read_csv(folder / "predictions.csv")
    assert [c for c in table if c.startswith("label_")] == [f"label_{u}" for u in UNITS]
    np.testing.assert_array_equal(
        table.filter(regex="^prediction_").to_numpy(), table.filter(regex="^logit_").to_numpy() > 0
    )


def test_runs_of_units_are_compared_by_mean_f1(made, tmp_path):
    other, *_ = make_run(tmp_path / "other", seed=1)
    (other / "config.json").write_text(json.dumps({"seed": 1, "train": {"learning_rate": 1}}))
    found = compare([made[0], other])
    pair = found["pairs"][0]
    metric = pair["metrics"]["f1"]
    means = [group["metrics"]["f1"]["mean"] for group in found["groups"]]
    assert metric["difference"] == pytest.approx(means[0] - means[1], abs=2e-6)
    low, high = metric["ci95"]
    assert low <= metric["difference"] <= high and 0 < metric["p_permutation"] <= 1
    console = Console(record=True, width=140)
    print_comparison(found, console=console)
    assert "mean F1 of the action units" in console.export_text()


def test_tasks_are_not_compared_with_each_other(made, tmp_path):
    other, *_ = make_run(tmp_path / "other")
    info = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(info | {"task": "emotion"}))
    with pytest.raises(DataError, match="'label' with 1 axes"):
        compare([made[0], other])


def test_clips_without_coded_units_are_counted(tmp_path):
    folder, *_ = make_run(tmp_path / "run")
    info = json.loads((folder / "run.json").read_text())
    left_out = {"num_clips": 5, "num_clips_in_all": 9, "clips": {"smic": 5}}
    (folder / "run.json").write_text(json.dumps(info | {"left_out": left_out}))
    assert write_report(folder)["left_out"] == left_out
    line = "9 clips, 5 left out, their action units were not coded: 5 smic"
    assert f"> **{line}**" in (folder / "report.md").read_text()


def test_labels_of_a_table_by_task():
    table = pd.DataFrame(
        {
            "dataset": ["casme2"] * 3,
            "emotion": ["surprise", "", "fear"],
            "aus": [["1", "2"], [], ["4"]],
            "aus_unsure": [[], ["12"], []],
        }
    )
    labels, names = splits.label_table(table, Config(task="au", units="1,12"))
    assert names == ("AU1", "AU12") and labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [[1, 0], [0, 0], [0, 0]])
    config = Config(task="au", units="1,12", is_unsure_present=True)
    np.testing.assert_array_equal(splits.label_table(table, config)[0][1], [0, 1])
    cells = table.assign(au=["1+2", "", "4"])
    unknown, _ = splits.label_table(cells, Config(task="au", units="1,12"))
    np.testing.assert_array_equal(unknown, [[1, 0], [-1, -1], [0, 0]])
    with pytest.raises(ConfigError, match=r"protocol\.task 'units'"):
        splits.label_table(table, Config(task="units"))
    with pytest.raises(DataError, match="different numbers"):
        numbers_of("1,1")


def test_a_model_says_which_tasks_it_takes():
    with pytest.raises(ConfigError, match=r"protocol\.task='au': fdp takes emotion"):
        load_dataset(small_config(protocol__task="au"))


def test_unit_matrices_add_up_over_groups():
    rng = np.random.default_rng(0)
    target, said = rng.integers(0, 2, (2, 40, 3))
    group = rng.integers(0, 4, 40)
    by_group = metrics.unit_confusions(target, said, group, 4)
    np.testing.assert_allclose(
        metrics.unit_details(by_group.sum(0))["f1"], f1_of(target, said), rtol=1e-12
    )
    for k in range(3):
        np.testing.assert_array_equal(
            by_group[2, k], sk.confusion_matrix(target[group == 2, k], said[group == 2, k])
        )

"""AC4AU on three small embedded sets: the whole run, its folds, its studies; and the sets."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from small import ROOT

import mexjax
from mexjax.data import synthetic
from mexjax.data.loading import load_table
from mexjax.errors import ConfigError
from mexjax.studies import au_statistics
from mexjax.studies import command as study
from mexjax.train.group import GroupTrainer
from mexjax.train.study import load_dataset, make_study

CARD = ROOT / "configs" / "ac4au.py"
SETS = ("casme2", "samm", "mmew")
OVERRIDES = {
    "data.collection.sets": SETS,
    "data.collection.scale": 0.08,
    "data.image_size_px": 32,
    "model.backbone_divisor": 8,
    "model.emb_dim": 32,
    "model.spatial_mlp_width": 16,
    "model.temporal_mlp_width": 32,
    "model.expert_width": 8,
    "train.num_epochs": 2,
    "train.batch_size": 16,
    "eval.every_epochs": 1,
    "folds.per_chunk": 3,
    "report.has_figures": False,
    "has_progress": False,
}


def small_config(**changes):
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return mexjax.load_config(CARD, OVERRIDES | named)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return mexjax.run(small_config(), tmp_path_factory.mktemp("ac4au") / "run")


def test_a_run_scores_each_unit_over_all_sets(finished):
    results = finished.results
    assert results["task"] == "au" and results["protocol"] == "leave_one_dataset_out"
    assert [fold["name"] for fold in results["folds"]] == [f"synthetic_{n}" for n in sorted(SETS)]
    assert [entry["name"] for entry in results["datasets"]] == [
        f"synthetic_{n}" for n in sorted(SETS)
    ]
    table = finished.predictions
    assert table["clip"].is_unique and len(table) == results["num_clips"]
    label, said = (table.filter(regex=f"^{kind}_AU").to_numpy() for kind in ("label", "prediction"))
    assert label.shape[1] == 12
    true = (label & said).sum(axis=0)
    f1 = 2 * true / np.maximum((label + said).sum(axis=0), 1)
    assert results["metrics"]["last"]["f1"] == pytest.approx(f1.mean(), abs=1e-6)
    share = label.mean(axis=0)
    always = (2 * share / (1 + share)).mean()
    assert results["metrics"]["last"]["f1_always"] == pytest.approx(always, abs=1e-6)
    # Prototypes of subjects are no part of the network that predicts.
    with np.load(finished.workdir / "groups" / "group_000.npz") as group:
        curves = {name for name in group.files if name.startswith("curve_")}
    assert curves == {"curve_au", "curve_dc", "curve_loss", "curve_subject_acc"}
    text = (finished.workdir / "report.md").read_text()
    assert "F1 of always present" in text


@pytest.mark.slow
def test_a_fold_alone_is_the_fold_among_others(finished, tmp_path):
    """Folds have different subjects and lengths, and in one program they do not touch."""
    name = "synthetic_samm"
    config = small_config(folds__only=(name,), folds__strategy="loop")
    alone = mexjax.run(config, tmp_path / "alone").predictions
    among = finished.predictions[finished.predictions["fold"] == name].reset_index(drop=True)
    assert alone["clip"].tolist() == among["clip"].tolist()
    columns = [c for c in alone.columns if c.startswith("logit_")]
    np.testing.assert_allclose(alone[columns], among[columns], rtol=5e-3, atol=5e-3)


def test_subjects_and_shares_of_a_fold():
    config = small_config()
    laid = make_study(config)
    extras, dataset = laid.plan.extras, laid.dataset
    assert dataset.subjects.max() + 1 == dataset.table["subject"].nunique()
    for f, fold in enumerate(laid.folds):
        known = extras["is_training_subject"][f]
        assert known[dataset.subjects[fold.train]].all()
        assert not known[dataset.subjects[fold.test]].any()
        counts = dataset.labels[fold.train].sum(axis=0)
        share = np.maximum(counts, 0.5) / len(fold.train)
        np.testing.assert_allclose(extras["unit_share"][f], share, rtol=1e-6)
    everything = make_study(small_config(model__alpha="global", model__gamma=0.0)).plan.extras
    assert set(everything) == {"unit_share"}
    assert (np.ptp(everything["unit_share"], axis=0) == 0).all(), "of all clips: alike in all folds"


def test_the_study_of_units_reads_the_run_alone(finished, capsys):
    assert study.main(["au", f"--run={finished.workdir}"]) == 0
    printed = capsys.readouterr().out
    assert "Linear probe for the subject" in printed and "Strongest correlations" in printed
    folder = finished.workdir / "au_study"
    content = json.loads((folder / "au_study.json").read_text())
    counts = content["counts"]["all clips"]
    table = load_table(small_config())
    assert counts["AU4"] == sum("4" in shown for shown in table["aus"])
    assert {p.stem for p in folder.glob("*.png")} == {
        "correlation", "network", "lengths", "features", "gates",
    }  # fmt: skip
    matrix = np.array(content["gates"]["matrix"])
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-4)
    for entry in content["subject_probe"].values():
        assert 0 <= entry["accuracy"] <= 1 and 0 < entry["chance"] < 1


def test_correlations_and_clusters():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2, 200)
    labels = np.stack([one, rng.integers(0, 2, 200), one, np.zeros(200, int), 1 - one], axis=1)
    found = au_statistics.correlations(labels)
    np.testing.assert_allclose(found[:3, :3], np.corrcoef(labels[:, :3].T), atol=1e-12)
    assert found[0, 2] == pytest.approx(1) and found[0, 4] == pytest.approx(-1)
    assert np.isnan(found[3]).all()
    order = au_statistics.cluster_order(found).tolist()
    assert abs(order.index(0) - order.index(2)) == 1 and order[-1] == 3


def test_the_probe_knows_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    subject = np.repeat(["a", "b", "c", "d"], 12)
    fold = np.repeat(["one", "two"], 24)
    centres = {name: rng.standard_normal(6) for name in "abcd"}
    known = np.array([centres[s] for s in subject]) + 0.1 * rng.standard_normal((48, 6))
    assert au_statistics.subject_probe(known, subject, fold)["accuracy"] == 1
    noise = au_statistics.subject_probe(rng.standard_normal((48, 6)), subject, fold)
    assert noise["accuracy"] < 0.8 and noise["chance"] == pytest.approx(0.5)


def test_tables_are_runs_that_are_read_again(tmp_path, capsys, monkeypatch):
    changes = [f"{key}={value}" for key, value in OVERRIDES.items()]
    arguments = ["--out", str(tmp_path), f"--card={CARD}", "--tables", "ablation", "--seeds", "0"]
    arguments += ["--only", "no pre-training", "no AUsER: one linear layer", "--set", *changes]
    arguments += ["train.num_epochs=1", "folds.only=synthetic_samm"]
    assert study.main(["ac4au_tables", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "29.6" in printed and "22.3" in printed
    content = json.loads((tmp_path / "tables.json").read_text())
    rows = {entry["row"]: entry for entry in content["tables"]["ablation"]}
    assert (
        rows["no pre-training"]["f1"] is None and "is_pretrained" in rows["no pre-training"]["note"]
    )
    linear = rows["no AUsER: one linear layer"]
    assert 0 <= linear["f1"]["mean"] <= 1 and linear["paper"] == pytest.approx(0.29647)
    assert 0 <= linear["probe"]["f_ac"] <= 1 and linear["probe"]["chance"] < 1
    assert content["environment"]["cpu_count"] and "--only 'no pre-training'" in content["command"]
    monkeypatch.setattr(GroupTrainer, "run", lambda self: pytest.fail("trained again"))
    assert study.main(["ac4au_tables", *arguments]) == 0
    assert study.main(["ac4au_tables", "--out", str(tmp_path), "--tables", "ablations"]) == 2
    assert "Did you mean 'ablation'" in capsys.readouterr().err


def test_sets_differ_in_what_real_ones_differ_in():
    config = small_config(data__collection__sets=tuple(synthetic.CAMERAS))
    dataset = load_dataset(config)
    table = dataset.table
    pd.testing.assert_frame_equal(load_table(config), table)
    assert dataset.clips.dtype == np.uint8 and dataset.clips.shape[1:] == (8, 32, 32, 3)
    by_set = table.groupby("dataset", sort=False)
    assert by_set["fps"].first().nunique() == 4
    assert by_set.size().nunique() >= 5
    for name, rows in by_set.indices.items():
        clips = dataset.clips[rows].astype(int)
        is_gray = (np.ptp(clips, axis=-1) == 0).all()
        assert is_gray == name.removeprefix("synthetic_").startswith(("samm", "fourd"))
    shares = [dataset.labels[rows].mean(axis=0) for rows in by_set.indices.values()]
    assert np.ptp(shares, axis=0).max() > 0.15, "of some unit"
    shared = table.groupby("subject")["dataset"].nunique()
    assert (shared == 1).all()
    gray = load_dataset(small_config(data__is_color=False))
    assert gray.clips.shape[-1] == 1


def test_fields_of_all_sets_and_fields_of_none():
    plain = load_table(small_config())
    changed = load_table(small_config(data__synthetic__annotation_error=0.3))
    assert plain["clip"].tolist() == changed["clip"].tolist()
    assert plain["onset"].tolist() != changed["onset"].tolist()
    other = load_table(small_config(data__synthetic__seed=1))
    assert [a for a in plain["aus"]] != [a for a in other["aus"]]
    for changes, words in (
        ({"data__synthetic__num_clips": 40}, "num_clips is fixed by each set"),
        ({"data__collection__sets": ("smic",)}, "Unknown embedded set 'smic'"),
        ({"data__collection__sets": ("samm", "samm")}, "different embedded sets"),
        ({"data__magnify": "linear"}, "does not magnify"),
        ({"data__root": "/data"}, "data.name=synthetic_sets takes none"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_dataset(small_config(**changes))

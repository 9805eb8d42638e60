"""Whole runs of Micro-AU CLIP: images of flow, what is recorded, and the report made of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small import ROOT

import mexjax
from mexjax.data.dataset import Dataset
from mexjax.errors import ConfigError, DataError
from mexjax.report import zero_shot
from mexjax.report.files import read_run
from mexjax.report.write import write_report
from mexjax.studies import command, magnify
from mexjax.train.study import load_dataset

CARD = ROOT / "configs" / "micro_au_clip.py"
SMALL = {
    "data.image_size_px": 28,
    "data.flow_source_px": 48,
    "data.synthetic.num_subjects": 3,
    "data.synthetic.num_clips": 36,
    "protocol.units": "micro_au_samm",
    "model.patch_px": 4,
    "model.image_width": 16,
    "model.image_depth": 1,
    "model.image_heads": 2,
    "model.text_width": 8,
    "model.embed_width": 16,
    "model.pooling_width": 8,
    "model.head_width": 8,
    "train.num_epochs": 2,
    "train.batch_size": 8,
    "eval.every_epochs": 2,
    "has_progress": False,
}


def load(**changes) -> Dataset:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return load_dataset(mexjax.load_config(CARD, SMALL | named))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return mexjax.run(mexjax.load_config(CARD, SMALL), folder)


def test_results_of_units_and_of_emotions(finished):
    results = finished.results
    assert results["task"] == "au" and results["classes"] == ["AU2", "AU4", "AU7", "AU12"]
    assert 0 <= results["metrics"]["last"]["f1"] <= 1
    found = results["zero_shot"]
    assert found["classes"] == ["negative", "positive", "surprise"]
    assert np.sum(found["confusion"]) == found["num_clips"] < results["num_clips"]
    assert {"uf1", "uar", "weighted_f1"} <= set(found)
    assert "Not a CLIP" in results["notices"][0]
    text = (finished.workdir / "report.md").read_text(encoding="utf-8")
    assert "Emotions, without emotion labels" in text and "Not a CLIP" in text
    for name in ("attention", "similarities", "features", "emotions", "units"):
        assert (finished.workdir / "figures" / f"{name}.png").stat().st_size > 5000


def test_what_is_recorded(finished):
    run = read_run(finished.workdir)
    kept = run.features
    count = len(run.clip)
    assert kept["emotion_scores"].shape == (count, 6) and kept["cosines"].shape == (count, 4, 2)
    assert kept["score_units"].tolist() == ["12", "7+12", "4", "7", "4+7", "2"]
    # Eq. 13 from the cosines: a sum over units of the text that is right for the combination.
    members = np.array(
        [[str(u) in t.split("+") for u in (2, 4, 7, 12)] for t in kept["score_units"]]
    )
    wanted = np.where(members[None], kept["cosines"][:, None, :, 1], kept["cosines"][:, None, :, 0])
    np.testing.assert_allclose(kept["emotion_scores"], wanted.sum(-1), atol=1e-5)
    assert kept["face"].shape == (4, 112, 112, 1) and kept["face"].std() > 20
    assert len({run.subject[row] for row in kept["face_row"]}) > 1
    np.testing.assert_allclose(kept["attention"].sum(-1), 1, atol=1e-3)


def test_the_report_is_rebuilt_from_files(finished):
    assert write_report(finished.workdir)["zero_shot"] == finished.results["zero_shot"]


def test_features_of_another_run_are_refused(finished, tmp_path):
    for name in ("config.json", "folds.json", "predictions.npz"):
        (tmp_path / name).write_bytes((finished.workdir / name).read_bytes())
    # Without digests, which would tell the change before it is looked at.
    info = json.loads((finished.workdir / "run.json").read_text())
    bare = {name: value for name, value in info.items() if name not in ("digests", "sha256")}
    (tmp_path / "run.json").write_text(json.dumps(bare))
    with np.load(finished.workdir / "features.npz") as file:
        kept = {name: file[name] for name in file.files}
    np.savez(tmp_path / "features.npz", **kept | {"emotion": kept["emotion"][1:]})
    with pytest.raises(DataError, match=r"'emotion' has shape .* from different runs"):
        read_run(tmp_path)
    np.savez(tmp_path / "features.npz", **kept | {"emotion": kept["emotion"] + 9})
    with pytest.raises(DataError, match="'emotion' must be below 3"):
        read_run(tmp_path)


def test_emotions_of_known_scores():
    features = {
        "emotion_scores": np.array([[3.0, 1, 2, 9], [1, 5, 2, 9], [1, 2, 5, 9], [0, 1, 0, 9]]),
        "score_emotion": np.array(["positive", "negative", "surprise", "boredom"]),
        "emotion": np.array([1, 0, 0, -1]),
        "emotion_classes": np.array(["negative", "positive", "surprise"]),
    }
    assert zero_shot.predict_emotion(features).tolist() == [1, 0, 2, 0]
    found = zero_shot.zero_shot_results(features, np.array(["a", "a", "b", "b"]), "combinations")
    assert found["num_clips"] == 3 and found["acc"] == pytest.approx(2 / 3)
    assert found["confusion"].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert found["per_class_f1"]["negative"] == pytest.approx(2 / 3)
    nobody = features | {"emotion": np.full(4, -1)}
    assert zero_shot.zero_shot_results(nobody, np.array(["a"] * 4), "combinations") is None


def test_images_of_flow_are_one_view():
    dataset = load()
    assert dataset.clips.shape == (36, 1, 28, 28, 3) and dataset.clips.dtype == np.uint8
    assert dataset.labels.shape == (36, 4)
    assert dataset.views["landmark_tokens"].shape == (36, 4, 6)
    again = load(data__magnify="phase", data__magnify_factor=2.0)
    assert (again.clips != dataset.clips).any()
    np.testing.assert_array_equal(
        again.views["landmark_tokens"], dataset.views["landmark_tokens"]
    )  # of the apex that is not magnified
    # With one scale for all clips, flow made twice as large shows twice as far from the middle.
    fixed = {"data__is_flow_scale_fixed": True, "data__magnify_factor": 2.0}
    scaled = load(data__magnify="flow_scale", **fixed)
    assert (scaled.clips != dataset.clips).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment__is_flipped": True}, r"augment.is_flipped changes .* not landmark_tokens"),
        ({"augment__shift_px": 2, "eval__is_flip_averaged": True}, "shift_px, eval.is_flip_averag"),
        ({"data__center": "clip_mean"}, "flow_image has one image, whose middle is no motion"),
    ],
)
def test_images_must_agree_with_the_other_views_of_a_clip(changes, message):
    with pytest.raises(ConfigError, match=message):
        load(**changes)


def test_controls_take_the_motion_or_the_labels():
    real, still = load(), load(data__control="static")
    assert (still.clips == np.array([128, 128, 0], np.uint8)).all()
    assert (real.clips != still.clips).any()
    shuffled = load(data__control="shuffled_labels")
    assert (shuffled.labels.sum(0) == real.labels.sum(0)).all()
    assert (shuffled.labels != real.labels).any()


def test_frames_that_the_view_does_not_have_are_refused():
    with pytest.raises(ConfigError, match=r"gives one image: set data\.num_frames=1, found 8"):
        load(data__num_frames=8)
    with pytest.raises(ConfigError, match=r"set data\.is_color=True"):
        load(data__is_color=False)
    with pytest.raises(ConfigError, match=r"flow_source_px=48 has no effect"):
        load(data__view="uniform")
    with pytest.raises(ConfigError, match="micro_au_clip takes flow_image"):
        load(data__view="uniform", data__flow_source_px=128)
    fdp = mexjax.load_config(ROOT / "configs" / "fdp.py", {"data.num_frames": 1})
    with pytest.raises(ConfigError, match="at least 2"):
        load_dataset(fdp)


@pytest.mark.parametrize("view, frames", [("uniform", 8), ("key_frames", 3)])
def test_other_views_can_be_magnified(view: str, frames: int):
    card = "fdp" if view == "uniform" else "tsfmicro"
    small = {
        "data.synthetic.num_clips": 10,
        "data.synthetic.num_subjects": 2,
        "data.image_size_px": 32,
        "protocol.classes": 5,
        "has_progress": False,
    }
    path = ROOT / "configs" / f"{card}.py"
    plain = load_dataset(mexjax.load_config(path, small)).clips
    larger = load_dataset(mexjax.load_config(path, small | {"data.magnify": "linear"})).clips
    np.testing.assert_array_equal(larger[:, 0], plain[:, 0])
    assert (larger[:, 1] != plain[:, 1]).any()
    if view == "key_frames":
        np.testing.assert_array_equal(larger[:, 2], plain[:, 2])
    assert plain.shape[1] == frames


def test_magnification_is_shown(tmp_path, capsys):
    out = tmp_path / "magnify"
    options = ["--clips=2", "--size-px=64", "--amplitude=0.5", f"--out={out}"]
    assert magnify.main([*options, "--methods=linear,phase"]) == 0
    pictures = list(out.glob("*.png"))
    assert pictures and all(path.stat().st_size > 5000 for path in pictures)
    printed = capsys.readouterr().out
    assert "phase" in printed and "linear" in printed
    assert command.main(["magnify", *options, "--methods=fase"]) == 2
    assert "phase" in capsys.readouterr().err


def test_every_variant_of_the_card_has_the_paper_s_numbers():
    paper = mexjax.load_config(f"{CARD}:paper", {"model.weights": "clip.safetensors"})
    train = paper.train
    assert (train.batch_size, train.num_epochs, train.milestones) == (8, 80, (40,))
    assert train.learning_rate == 0.01 and paper.model.tower_rate == 0.1 and paper.seed == 1
    assert (paper.model.alpha, paper.model.beta) == (0.6, 1.0)
    samm = mexjax.load_config(f"{CARD}:paper_samm")
    assert (samm.model.alpha, samm.model.beta) == (1.0, 0.6)
    assert samm.protocol.units == "micro_au_samm" and samm.data.magnify == "phase"
    text = json.dumps(mexjax.load_config(CARD).to_dict())
    assert '"trainable_from": 0' in text

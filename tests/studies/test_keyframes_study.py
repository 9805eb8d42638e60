"""The study of annotated against re-selected key frames: its arithmetic, its files, its errors."""

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
from protocol_helpers import BRIGHTNESS, clip_of

from mexjax import load_config
from mexjax.data import apex_spotting, keyframes, synthetic
from mexjax.data.synthetic.dataset import chosen_frames
from mexjax.errors import ConfigError
from mexjax.studies import command as study
from mexjax.studies import keyframes as subject
from mexjax.studies.annotated_clips import AnnotatedClip
from mexjax.train.study import load_dataset


def test_deviation_of_the_worked_example():
    example = AnnotatedClip(
        "d",
        "s",
        "c",
        200.0,
        clip_of(BRIGHTNESS),
        (0, 20, 50),
        tuple(range(len(BRIGHTNESS))),
        truth=(2, 18, 50),
    )
    row = subject.deviations([example], [keyframes.Rule()]).iloc[0]
    assert [row[f"new_{key}"] for key in subject.KEYS] == [1, 19, 47]
    percents = [row[f"D_{key}_percent"] for key in subject.KEYS]
    assert percents == pytest.approx([1.961, 1.961, 5.882], abs=5e-4)
    assert [row[f"D_{key}_ms"] for key in subject.KEYS] == [5, 5, 15]
    assert row["D_mean_ms"] == pytest.approx(8.333, abs=5e-4)
    assert [row[f"annotated_error_{key}_ms"] for key in subject.KEYS] == [10, 10, 0]
    assert [row[f"error_{key}_ms"] for key in subject.KEYS] == [5, 5, 15]


def test_the_command_writes_tables_and_pictures(tmp_path, capsys):
    out = tmp_path / "study"
    arguments = ["keyframes", "--clips=6", "--lambdas=0.1,0.3", f"--out={out}", "--strips=2"]
    assert study.main(arguments) == 0
    table = pd.read_csv(out / "clips.csv")
    assert len(table) == 12 and table["D_apex_ms"].max() > 0
    # Nothing moves further than lambda allows.
    reach = np.floor(table["lambda"] * (table["apex"] - table["onset"]) + 1e-9)
    assert ((table["new_apex"] - table["apex"]).abs() <= reach).all()
    summary = pd.read_csv(out / "summary.csv")
    mean = table[table["lambda"] == 0.3]["error_apex_ms"].mean()
    assert summary[summary["lambda"] == 0.3]["error_apex_ms"].item() == pytest.approx(mean)
    report = (out / "report.md").read_text()
    for name in ("deviation_percent", "deviation_ms", "error_ms", "strips"):
        assert f"{name}.png" in report
        assert cv2.imread(str(out / f"{name}.png")).std() > 5
    assert "annotated" in capsys.readouterr().out


def test_bad_input_ends_in_one_message(tmp_path, capsys):
    for arguments, wanted in [
        (["keyframe"], "keyframes"),
        (["keyframes", f"--root={tmp_path}"], "mexjax.prepare"),
        (["keyframes", "--preset=big", f"--out={tmp_path}"], "default"),
        (["keyframes", "--lambdas=0.1,x"], "numbers with commas"),
        (["keyframes", "--clips=-3"], "whole number"),
        (["keyframes", "--lambdas=7"], "0 to 1"),
    ]:
        assert study.main(arguments) == 2
        assert wanted in capsys.readouterr().err
    assert study.main(["keyframes", "--help"]) == 0
    assert "--lambdas" in capsys.readouterr().out
    assert study.main([]) == 2


@pytest.fixture(scope="module")
def config():
    card = load_config("configs/gamdss.py:tiny")
    card.data.synthetic.num_clips, card.data.synthetic.num_subjects = 12, 2
    for key, value in synthetic.PRESETS["keyframes"].items():
        card.data.synthetic[key] = value
    return card


def with_keys(config, **keys):
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.data.key_frames.update(keys)
    return changed


def test_training_sees_the_new_key_frames_and_evaluation_the_annotated_ones(config):
    plain = load_dataset(config)
    both = load_dataset(with_keys(config, choice="reselected", lambda_rise=0.3))
    everywhere = load_dataset(with_keys(config, choice="reselected", lambda_rise=0.3, splits="all"))
    assert plain.train_clips is None and "train_clips" not in plain.on_host()
    np.testing.assert_array_equal(both.clips, plain.clips)
    np.testing.assert_array_equal(both.train_clips, everywhere.clips)
    assert everywhere.train_clips is None
    assert (both.train_clips != both.clips).any()
    still = with_keys(config, choice="reselected")
    still.data.control = "static"
    for clips in (load_dataset(still).clips, load_dataset(still).train_clips):
        assert (clips == clips[:, :1]).all()
    for keys, wanted in [
        ({"choice": "best"}, "reselected"),
        ({"splits": "test"}, "train"),
        ({"choice": "reselected", "lambda_rise": 2.0}, "lambda_rise"),
    ]:
        with pytest.raises(ConfigError, match=wanted):
            load_dataset(with_keys(config, **keys))


def test_the_embedded_dataset_draws_only_what_a_rule_looks_at(config, monkeypatch):
    settings = synthetic.preset("keyframes", num_clips=6, num_subjects=2, seed=4)
    plan = synthetic.make_plan(settings)
    drawn = []
    render = synthetic.dataset.render_clip

    def watched(plan, index, frames, **options):
        drawn.extend(frames)
        return render(plan, index, frames, **options)

    monkeypatch.setattr(synthetic.dataset, "render_clip", watched)
    for window in keyframes.WINDOWS:
        rule = keyframes.Rule(window, 0.2, 0.2)
        for clip_index, item in enumerate(plan.clips):
            drawn.clear()
            found = chosen_frames(plan, clip_index, "reselected", rule)
            assert len(drawn) == len(set(drawn)) < item.timing.num_frames
            when = item.timing
            last = when.offset + keyframes.reach(0.2, when.apex, when.offset)
            whole = render(plan, clip_index, range(when.onset, last + 1))
            places = np.subtract((when.onset, when.apex, when.offset), when.onset).tolist()
            wanted = keyframes.reselect(whole, *places, rule)
            assert found == tuple(place + when.onset for place in wanted)
    true = chosen_frames(plan, 0, "true")
    assert true == (0, plan.clips[0].timing.rise, plan.clips[0].timing.num_frames - 1)


def test_fft_apex_is_where_blocks_change_fastest():
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(60, 190, (1, 24, 24)), 30, axis=0)
    for t, level in ((17, 20), (18, 60), (19, 20)):
        frames[t, 4:8, 4:8] += level
    assert apex_spotting.spot_apex(frames.astype(np.uint8), num_frames=5) in range(15, 22)
    # Light that changes all at once and slowly is no expression.
    slow = frames + np.linspace(0, 8, 30)[:, None, None]
    assert apex_spotting.spot_apex(slow.astype(np.uint8), num_frames=5) in range(15, 22)
    assert apex_spotting.spot_apex(frames[:3].astype(np.uint8), num_frames=5) == 1
    plan = synthetic.make_plan(synthetic.SyntheticConfig(num_clips=2, num_subjects=1))
    onset, apex, offset = chosen_frames(plan, 0, "fft_apex")
    when = dataclasses.astuple(plan.clips[0].timing)[2:]
    assert (onset, offset) == (when[0], when[2]) and onset < apex < offset


def test_reselection_comes_nearer_to_the_true_apex_until_lambda_is_too_large():
    plan = synthetic.make_plan(synthetic.preset("keyframes"))
    true = np.array([clip.timing.rise for clip in plan.clips])

    def error_ms(choice, share=0.0):
        rule = keyframes.Rule("eq2", share, 0.0, "same_light")
        found = [chosen_frames(plan, clip.index, choice, rule)[1] for clip in plan.clips]
        return 1000 * np.abs(np.array(found) - true).mean() / plan.config.fps

    fitting = error_ms("reselected", 0.2)
    assert fitting < 2 / 3 * error_ms("annotated")
    assert error_ms("reselected", 0.5) > 1.3 * fitting

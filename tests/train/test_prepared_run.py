"""From a release on disk to training: every layout, by the commands a user gives."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pytest
from prepared_helpers import NUM_CLIPS, arguments, manifest_of, record_of, release, run
from small import CARD, OVERRIDES, small_config

import mexjax
from mexjax import main
from mexjax.data.manifest import read_manifest, write_manifest
from mexjax.errors import DataError, MexjaxError
from mexjax.prepare.layouts import LAYOUTS
from mexjax.train import plan
from mexjax.train.programs import compile_programs
from mexjax.train.study import Study, load_dataset, make_study

ROWS, HELD_OUT = 12, 8  # as many as any release here has: all are filled up to one shape
# Most clips of 4DME show two emotions at once, and such clips are in no class.
CLIPS = {"fourd": 12}
KEYS = ["dataset", "subject", "clip", "onset", "apex", "offset", "emotion", "au", "aus"]
# The compiled programs by the shapes of their arguments; one for all layouts.
_COMPILED: dict[str, object] = {}


def config_of(out, **changes):
    return small_config(
        data__name="prepared",
        data__root=str(out),
        protocol__classes=3,
        train__num_epochs=0,
        train__num_steps=2,
        train__batch_size=ROWS,
        **changes,
    )


def filled(study: Study):
    """The study and its arrays in a shape that every layout has; what is added is never used."""
    rows = np.resize(study.plan.eval_idx, (len(study.plan.eval_idx), 1, HELD_OUT))
    study = dataclasses.replace(study, plan=study.plan.replace(eval_idx=rows))
    missing = ROWS - len(study.dataset.clips)
    data = {
        "clips": np.pad(study.dataset.clips, ((0, missing), *((0, 0),) * 4)),
        "labels": np.pad(study.dataset.labels, (0, missing)),
        "subjects": np.pad(study.dataset.subjects, (0, missing)),
    }
    return study, data


def train_two_steps(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Losses of two updates of the first fold, and its held-out logits f32[M, 3] after them."""
    study, data = filled(study)
    own = plan.take_folds(study.plan, slice(0, 1))
    shapes = str(jax.tree.map(np.shape, (own, data)))
    if shapes not in _COMPILED:
        _COMPILED[shapes] = compile_programs(study, data, per_device=1)
    compiled = _COMPILED[shapes]
    own, data = jax.device_put((own, data))
    carry = compiled.init(own, data)
    losses = []
    for _ in range(2):
        carry = compiled.train(carry, own, data)
        names = compiled.programs.log_names
        losses.append(np.asarray(carry.logs)[0, 0, names.index("loss")])
    found = compiled.evaluate(carry.states, np.int32(0), own, data)
    return np.array(losses), np.asarray(found["logits"])[0]


# One release with faces to find and one released cropped; all of them are the slow test.
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("casme2", "smic") else pytest.param(name, marks=pytest.mark.slow)
        for name in LAYOUTS
    ],
)
def test_from_release_to_training(name, tmp_path, capsys):
    layout = release(name, tmp_path / "release", num_clips=CLIPS.get(name, 10))
    out = tmp_path / "out"
    given = [f"--dataset={name}", f"--root={layout.root}", f"--spreadsheet={layout.spreadsheet}"]
    assert run(*given, "--check") == 0
    said = capsys.readouterr().out
    assert name in said and "clips of each emotion" in said
    source, faces = "landmarks", f"--landmarks={layout.landmarks}"
    if name in ("mmew", "smic"):  # released cropped
        source, faces = "precropped", "--faces=precropped"
    assert run(*given, f"--out={out}", faces, "--size_px=48", "--clips-per-shard=4") == 0

    table, expected = manifest_of(out), layout.expected
    pd.testing.assert_frame_equal(table[KEYS], expected[KEYS])
    assert table["num_missing_frames"].tolist() == expected["num_missing_frames"].tolist()
    stored = expected["n_frames"] - expected["num_missing_frames"]
    assert table["num_stored"].tolist() == stored.tolist()
    assert set(table["landmark_source"]) == {source}
    assert record_of(out)["num_clips"] == len(table) == CLIPS.get(name, 10)

    study = make_study(config_of(out))
    assert study.dataset.clips.shape[1:] == (8, 32, 32, 1)
    kept = set(study.dataset.clip_ids)
    assert kept <= {f"{s}/{c}" for s, c in zip(table["subject"], table["clip"], strict=True)}
    # Every clip shows a face: neither black nor flat, and not the same as another.
    assert (study.dataset.clips.std(axis=(1, 2, 3, 4)) > 10).all()
    assert len(np.unique(study.dataset.clips[:, 0].reshape(len(kept), -1), axis=0)) > 1
    losses, logits = train_two_steps(study)
    assert np.isfinite(losses).all() and losses[0] != losses[1]
    assert np.isfinite(logits).all() and logits.shape == (HELD_OUT, 3)


def test_all_layouts_were_one_program():
    if len(_COMPILED) == 0:
        pytest.skip("none of the layouts was trained in this process")
    assert len(_COMPILED) == 1, list(_COMPILED)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """CASME II and SMIC in one folder."""
    folder = tmp_path_factory.mktemp("prepared")
    layouts = [release(name, folder / name) for name in ("casme2", "smic")]
    given = [f"--root={layout.root}" for layout in layouts]
    given += ["--faces=precropped", "--size_px=48", f"--out={folder / 'out'}"]
    assert run("--dataset=casme2,smic", *given) == 0
    return folder / "out"


def test_the_recommended_command_runs(tmp_path, capsys):
    layout = release("casme2", tmp_path / "release")
    out = tmp_path / "out"
    assert run(*arguments("casme2", layout, out)) == 0
    said = capsys.readouterr().out
    command = said.split("python -m mexjax.main ")[1].split()
    assert command[1:] == ["--config.data.name=prepared", f"--config.data.root={out}"]
    options = [f"--config.{k}={v}" for k, v in OVERRIDES.items() if k != "train.num_epochs"]
    options += ["--config.train.num_epochs=1", f"--workdir={tmp_path / 'run'}"]
    assert main.main([f"--config={CARD}", *command[1:], *options]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert 0 <= results["metrics"]["last"]["acc"] <= 1
    assert set(predictions["clip"]) <= {
        f"{s}/{c}" for s, c in zip(layout.expected["subject"], layout.expected["clip"], strict=True)
    }


def test_prepared_is_listed():
    assert mexjax.list_datasets() == ["prepared", "synthetic", "synthetic_sets"]


def test_loading_samples_and_scales(prepared):
    table = manifest_of(prepared)
    wide = load_dataset(config_of(prepared))
    assert len(wide.clips) <= len(table) and wide.clips.dtype == np.uint8
    assert set(wide.table["dataset"]) == {"casme2", "smic"}
    again = load_dataset(config_of(prepared))
    np.testing.assert_array_equal(wide.clips, again.clips)
    other = load_dataset(
        config_of(prepared, data__num_frames=4, data__image_size_px=16, data__is_color=True)
    )
    assert other.clips.shape[1:] == (4, 16, 16, 3)
    # The first and the last frame are those of the clip whatever the number of frames.
    luma = other.clips[:, [0, -1]] @ np.array([0.299, 0.587, 0.114])
    small = wide.clips[..., 0][:, [0, -1]].astype(float)
    small = small.reshape(*small.shape[:2], 16, 2, 16, 2).mean(axis=(3, 5))
    assert np.abs(luma - small).mean() < 3


def test_datasets_are_chosen_by_name(prepared):
    both = load_dataset(config_of(prepared))
    one = load_dataset(config_of(prepared, data__datasets=("smic",)))
    assert set(one.table["dataset"]) == {"smic"} and len(one.clips) == NUM_CLIPS
    is_smic = (both.table["dataset"] == "smic").to_numpy()
    np.testing.assert_array_equal(one.clips, both.clips[is_smic])
    assert one.clip_ids == [name for name, own in zip(both.clip_ids, is_smic, strict=True) if own]


def test_controls_work_on_prepared_clips(prepared):
    plain = load_dataset(config_of(prepared))
    still = load_dataset(config_of(prepared, data__control="static"))
    assert (still.clips == plain.clips[:, :1]).all() and not (still.clips == plain.clips).all()
    shuffled = load_dataset(config_of(prepared, data__control="shuffled_labels"))
    assert sorted(shuffled.labels) == sorted(plain.labels)


def test_mistakes_end_in_one_message(prepared, tmp_path):
    changes = {
        r"needs the folder that python -m mexjax.prepare wrote": {"data__root": ""},
        r"There is no manifest .*nowhere": {"data__root": str(tmp_path / "nowhere")},
        r"Unknown dataset in data.datasets 'casme'. Did you mean 'casme2'\? Known: casme2, smic": {
            "data__datasets": ("casme",)
        },
        r"There is no 7-class map of smic": {"protocol__classes": 7},
        r"data.datasets=\('smic',\) is for prepared datasets": {
            "data__name": "synthetic",
            "data__root": "",
            "data__datasets": ("smic",),
        },
    }
    for message, change in changes.items():
        config = config_of(prepared).unlock()
        for key, value in change.items():
            node, leaf = key.split("__")
            config[node][leaf] = value
        with pytest.raises(MexjaxError, match=message) as caught:
            load_dataset(config)
        assert "\n" not in str(caught.value)


def test_folders_that_were_not_prepared(prepared, tmp_path):
    (tmp_path / "preparation.json").write_text("{}")
    with pytest.raises(DataError, match=r"was not finished.*Run the same"):
        load_dataset(config_of(tmp_path))
    table = read_manifest(prepared / "manifest.parquet")
    write_manifest(table.drop(columns="shard"), tmp_path / "manifest.parquet")
    with pytest.raises(DataError, match=r"manifest.parquet lacks the columns shard"):
        load_dataset(config_of(tmp_path))
    write_manifest(table, tmp_path / "manifest.parquet")
    with pytest.raises(DataError, match=r"Run the preparation again"):
        load_dataset(config_of(tmp_path))

"""A run folder tells other data from its own, by clip, and does not mind where they lie."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from prepared_helpers import release, run
from small import CARD, ROOT, small_config

import mexjax
from mexjax.config import flat, load_config
from mexjax.data.manifest import read_manifest, write_manifest
from mexjax.errors import WorkdirError
from mexjax.files import sealed
from mexjax.train import group, inputs
from mexjax.train.study import make_study
from mexjax.train.workdir import Workdir


class Killed(BaseException):
    """Stands for the process going away: nothing on the way catches it."""


def config_of(root, **changes):
    """Two groups of folds on a prepared dataset, of one step each."""
    changes = {"train__num_epochs": 0, "train__num_steps": 1, "train__batch_size": 12} | changes
    return small_config(data__name="prepared", data__root=str(root), protocol__classes=3, **changes)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    layout = release("casme2", folder / "casme2", num_clips=14)
    options = ["--faces=precropped", "--size_px=48", f"--out={folder / 'out'}"]
    assert run("--dataset=casme2", f"--root={layout.root}", *options) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def begun(prepared, tmp_path_factory):
    """A run that was killed after its first group of folds."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    train = group.GroupTrainer.run
    groups = []

    def fails(self):
        groups.append(1)
        if len(groups) == 2:
            raise Killed
        return train(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group.GroupTrainer, "run", fails)
        with pytest.raises(Killed):
            mexjax.run(config_of(prepared), folder)
    assert (folder / "groups" / "group_000.npz").is_file()
    return folder


@pytest.fixture(scope="module")
def finished(begun, prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(begun, folder)
    mexjax.run(config_of(prepared), folder)
    return folder


def trained_rows(table):
    """Rows of the manifest whose emotion is in one of the three classes, by their class."""
    words = {"happiness": "positive", "surprise": "surprise"}
    negative = dict.fromkeys(("disgust", "repression", "sadness", "fear"), "negative")
    classes = table["emotion"].map(words | negative)
    return classes.dropna()


def relabel(table):
    classes = trained_rows(table)
    row = classes.index[classes != "surprise"][0]
    table.loc[row, "emotion"] = "surprise"
    return table, f"{table['subject'][row]}/{table['clip'][row]}"


def without_first(table):
    row = trained_rows(table).index[0]
    name = f"{table['subject'][row]}/{table['clip'][row]}"
    return table.drop(index=row).reset_index(drop=True), name


def renamed(table):
    row = trained_rows(table).index[0]
    table.loc[row, "clip"] = "EP99_99"  # its record has the old name and cannot be loaded
    return table, f"{table['subject'][row]}/EP99_99 now"


def replaced(table):
    """One clip went and another came: it is not the same one under another name."""
    table, _ = renamed(table)
    row = table.index[table["clip"] == "EP99_99"][0]
    table.loc[row, "sha256"] = "0" * 64
    return table, f"clips that are new: {table['subject'][row]}/EP99_99"


def another_onset(table):
    row = trained_rows(table).index[0]
    table.loc[row, "onset"] += 2
    return table, f"{table['subject'][row]}/{table['clip'][row]}"


@pytest.mark.parametrize(
    ("change", "words", "of_finished"),
    [
        (relabel, "the label of ", "the emotion of "),
        (without_first, "clips that are gone: ", "clips that are gone: "),
        (renamed, None, "renamed: "),
        (replaced, None, "clips that are gone: "),
        (another_onset, "the frames of ", r"the annotation \(units or key frames\) of "),
    ],
)
def test_other_data_are_told_by_clip(
    change, words, of_finished, begun, finished, prepared, tmp_path
):
    """Both a run that goes on and one that is finished; nothing is written."""
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    table, name = change(read_manifest(data / "manifest.parquet"))
    write_manifest(table, data / "manifest.parquet")
    cases = [(begun, words), (finished, of_finished)]
    for source, text in [case for case in cases if case[1] is not None]:
        folder = tmp_path / source.parent.name
        shutil.copytree(source, folder)
        before = {path: path.read_bytes() for path in folder.rglob("*.json")}
        message = rf"holds a run on other data: .*{text}.*{name}.*--overwrite"
        with pytest.raises(WorkdirError, match=message):
            mexjax.run(config_of(data), folder)
        assert before == {path: path.read_bytes() for path in folder.rglob("*.json")}


@pytest.mark.slow
def test_a_killed_command_does_not_go_on_with_other_labels(prepared, tmp_path):
    """The real thing: SIGKILL between two groups of folds, then a corrected label."""
    data, workdir = tmp_path / "data", tmp_path / "run"
    shutil.copytree(prepared, data)

    def start(*more):
        values = flat(config_of(data, train__num_steps=3, folds__strategy="loop"))
        card = flat(load_config(CARD))
        changes = {key: value for key, value in values.items() if value != card.get(key)}
        options = [f"--config.{key}={value}" for key, value in changes.items()]
        words = [f"--config={CARD}", f"--workdir={workdir}", *options, *more]
        return subprocess.Popen(
            [sys.executable, "-m", "mexjax.main", *words],
            cwd=ROOT,
            env=dict(os.environ, JAX_PLATFORMS="cpu"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    first = start()
    deadline = time.monotonic() + 300
    while not any(workdir.glob("groups/*.npz")) and time.monotonic() < deadline:
        assert first.poll() is None, first.communicate()
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    table, name = relabel(read_manifest(data / "manifest.parquet"))
    write_manifest(table, data / "manifest.parquet")
    second = start()
    output = " ".join(second.communicate(timeout=300)[0].split())
    assert second.returncode == 2, output
    assert "holds a run on other data" in output and name in output
    anew = start("--overwrite")
    output, _ = anew.communicate(timeout=300)
    assert anew.returncode == 0, output


def test_the_place_of_the_data_may_change(begun, finished, prepared, tmp_path, monkeypatch):
    shutil.copytree(begun, tmp_path / "run")
    shutil.copytree(prepared, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert not mexjax.run(config_of("elsewhere"), tmp_path / "run").was_finished
    expected = (finished / "predictions.csv").read_bytes()
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == expected
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["root"] == "elsewhere"
    assert mexjax.run(config_of(tmp_path / "elsewhere"), tmp_path / "run").was_finished


def test_a_report_needs_no_data(finished, tmp_path, caplog):
    shutil.copytree(finished, tmp_path / "run")
    assert mexjax.run(config_of(tmp_path / "gone"), tmp_path / "run").was_finished
    assert "the data were not compared" in caplog.text


@pytest.mark.parametrize("damage", ["missing", "damaged", "flipped", "of another run"])
def test_a_damaged_list_of_the_data_is_told_from_its_digest(damage, begun, prepared, tmp_path):
    """The data that folds were trained on go on; others, or without the digest, are refused."""
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    file = folder / "data.json"
    content = file.read_bytes()
    other = json.loads(content) | {"recipe": 1, "classes": ["one", "two"]}
    contents = {
        "damaged": b'{"recipe": 1}',
        "flipped": content.replace(b'"recipe": 1', b'"recipe": 3'),
        "of another run": json.dumps(sealed(other)).encode(),
    }
    file.unlink()
    if damage in contents:
        file.write_bytes(contents[damage])
    message = r"data\.json.*is missing or damaged.*--overwrite"
    size = folder / "groups" / "size.json"
    text = size.read_text()
    marks = json.loads(text)
    for mark in ({"inputs": "0" * 64}, {}):
        values = {name: value for name, value in marks.items() if name != "inputs"} | mark
        size.write_text(json.dumps(sealed(values)))
        if mark or damage != "of another run":
            with pytest.raises(WorkdirError, match=message):
                mexjax.run(config_of(prepared), folder)
    size.write_text(text)
    with Workdir.open(folder, config_of(prepared), is_overwritten=False) as opened:
        inputs.check_inputs(opened, make_study(config_of(prepared)))
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "other"),
    [("data.json", "groups/size.json"), ("groups/size.json", "data.json")],
)
def test_a_sealed_file_in_the_place_of_another_is_a_damaged_one(
    name, other, begun, finished, prepared, tmp_path, caplog
):
    shutil.copytree(begun, tmp_path / "run")
    before = (begun / name).read_bytes()
    (tmp_path / "run" / name).write_bytes((begun / other).read_bytes())
    done = mexjax.run(config_of(prepared), tmp_path / "run")
    if name == "data.json":
        assert "data.json is missing or damaged: it is written again" in caplog.text
    assert (tmp_path / "run" / name).read_bytes() == before
    assert done.results["metrics"] == mexjax.write_report(finished)["metrics"]


def test_another_recipe_of_the_code_is_told(finished, prepared, monkeypatch):
    monkeypatch.setattr(inputs, "RECIPE", inputs.RECIPE + 1)
    with pytest.raises(WorkdirError, match=r"recipe 2, that one 1.*mexjax report"):
        mexjax.run(config_of(prepared), finished)


def test_pixels_and_views_of_embedded_clips(tmp_path):
    """The smallest change of a clip's arrays, or of the order of clips, is another run."""
    config = small_config()
    folder = Workdir.open(tmp_path / "run", config, is_overwritten=False)
    study = make_study(config)
    inputs.check_inputs(folder, study)
    folder.save_group_size(1, 1)
    (folder.groups / "group_000.npz").touch()
    inputs.check_inputs(folder, study)
    clips = study.dataset.clips.copy()
    clips[3, 1, 2, 2] ^= 1
    name = study.dataset.clip_ids[3]
    views = {"depth": np.zeros((len(clips), 2), np.float32)}
    for changes, text in (
        ({"clips": clips}, f"the frames of {name}"),
        ({"train_clips": clips}, "the frames of .* and 33 more"),
        ({"views": views}, "other views"),
    ):
        dataset = study.dataset.__class__(**{**vars(study.dataset), **changes})
        other = study.__class__(**{**vars(study), "dataset": dataset})
        with pytest.raises(WorkdirError, match=text):
            inputs.check_inputs(folder, other)


def test_other_weights_in_the_same_file_are_another_run(tmp_path, caplog):
    """Folds that are left would start from them; a file that was moved away is not compared."""
    config = small_config()
    file = tmp_path / "weights-00001-of-00002.safetensors"
    other = tmp_path / "weights-00002-of-00002.safetensors"
    file.write_bytes(b"one")
    other.write_bytes(b"two")
    study = make_study(config)
    named = config.copy_and_resolve_references()
    with named.unlocked():
        named.model.pretrained = str(file)
    study = study.__class__(**{**vars(study), "config": named})
    folder = Workdir.open(tmp_path / "run", config, is_overwritten=False)
    inputs.check_inputs(folder, study)
    folder.save_group_size(1, 1)
    (folder.groups / "group_000.npz").touch()
    inputs.check_inputs(folder, study)
    inputs.check_finished(folder, named)
    other.write_bytes(b"owt")  # the second part, of the same size
    for again in (
        lambda: inputs.check_inputs(folder, study),
        lambda: inputs.check_finished(folder, named),
    ):
        with pytest.raises(WorkdirError, match=r"file of model\.pretrained has another content"):
            again()
    file.unlink()
    caplog.clear()
    inputs.check_finished(folder, named)
    assert "The file of model.pretrained is not there" in caplog.text

"""A user's own videos, from folders or a table to a report with their own classes."""

from __future__ import annotations

import csv
import json
import shlex

import cv2
import numpy as np
import pytest
from prepared_helpers import run
from small import CARD, OVERRIDES, small_config

from mexjax import main
from mexjax.data.class_choice import describe_classes
from mexjax.errors import DataError
from mexjax.train.study import make_study

FAST = OVERRIDES | {"train.num_epochs": 1}
FAST = {key: value for key, value in FAST.items() if not key.startswith("data.synthetic")}
OPTIONS = [f"--config.{key}={value}" for key, value in FAST.items()]


def write_video(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 50.0, (48, 48))
    assert writer.isOpened()
    for shift in range(9):
        frame = cv2.resize(np.roll(image, shift, axis=1), (48, 48), interpolation=cv2.INTER_CUBIC)
        writer.write(frame)
    writer.release()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two videos of each of three emotions and three people: subject/emotion/clip."""
    root = tmp_path_factory.mktemp("own") / "clips"
    for s, subject in enumerate(("anna", "bob", "cy")):
        for e, emotion in enumerate(("Freude", "surprise", "[dégoût]")):
            for k in range(2):
                write_video(root / subject / emotion / f"v{k}_{e}.avi", 100 * s + 10 * e + k)
    return root


def prepared(name, root, out, *more):
    given = [f"--root={root}", f"--out={out}", "--faces=precropped", "--size_px=32", *more]
    assert run(f"--dataset={name}", *given) == 0
    return out


@pytest.fixture(scope="module")
def folder(clips, tmp_path_factory):
    return prepared("folder", clips, tmp_path_factory.mktemp("prepared") / "out")


def train(root, workdir, *more):
    given = ["--config.data.name=prepared", f"--config.data.root={root}", f"--workdir={workdir}"]
    return main.main([f"--config={CARD}", *given, *OPTIONS, *more])


def test_the_command_that_prepare_prints_trains(clips, tmp_path, capsys):
    out = prepared("folder", clips, tmp_path / "out")
    said = capsys.readouterr().out
    assert "The folders were read as subject/emotion/clip" in said
    assert "Classes, in this order: [dégoût] (6 clips), freude (6), surprise (6)." in said
    line = next(text for text in said.splitlines() if "mexjax.main" in text)
    command = shlex.split(line)[4:]
    assert command[-2:] == [f"--config.data.root={out}", "--config.protocol.classes=own"]
    folder = tmp_path / "run"
    shown = ["--config.report.has_figures=True", "--config.has_progress=True"]
    given = [f"--config={CARD}", *command, *OPTIONS, *shown, f"--workdir={folder}"]
    assert main.main(given) == 0
    said = capsys.readouterr().out
    assert "3 classes: [dégoût] (6 clips), freude (6), surprise (6)" in said
    assert "3 folds in 2 groups of 2 (folds.per_chunk=2, 3 folds per device)" in said
    results = json.loads((folder / "results.json").read_text())
    assert results["classes"] == ["[dégoût]", "freude", "surprise"]
    assert list(results["metrics"]["last"]["per_class"]) == results["classes"]
    assert np.array(results["metrics"]["last"]["confusion"]).sum(axis=1).tolist() == [6, 6, 6]
    assert results["num_subjects"] == results["num_folds"] == 3 and "notices" not in results
    report = (folder / "report.md").read_text()
    assert "Classes: [dégoût], freude, surprise." in report.replace("\\", "")
    assert (folder / "figures" / "confusion.png").is_file()
    assert json.loads((folder / "data.json").read_text())["classes"] == results["classes"]


def test_own_words_are_the_default_and_a_map_merges_them(folder, tmp_path, capsys):
    merge = tmp_path / "map.csv"
    merge.write_text("word,class\nFreude,good\nsurprise,other\n[dégoût],\n", encoding="utf-8")
    option = f"--config.protocol.class_map={merge}"
    assert train(folder, tmp_path / "run", option) == 0
    said = capsys.readouterr().out
    assert "2 classes: good (6 clips), other (6); 6 clips left out: 6 [dégoût]" in said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["classes"] == ["good", "other"] and results["num_clips"] == 12
    assert results["left_out"]["clips"] == {"[dégoût]": 6}
    # The place of the file does not matter, its lines do.
    other = merge.rename(tmp_path / "moved.csv")
    assert train(folder, tmp_path / "run", f"--config.protocol.class_map={other}") == 0
    other.write_text("Freude,good\nsurprise,other\n[dégoût],good\n", encoding="utf-8")
    assert train(folder, tmp_path / "run", f"--config.protocol.class_map={other}") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "other data: the class of [dégoût] (left out there, good now)" in said
    # A run that nobody told its classes takes the table's own.
    order = main.Order(str(CARD), [], None, False)
    config = small_config(data__name="prepared", data__root=str(folder))
    assert config.protocol.classes == 5
    with pytest.raises(DataError, match=r"Unknown emotion.*Set protocol\.classes=own"):
        make_study(config)
    given = {"data.name": "prepared", "data.root": str(folder)}
    order = main.Order(str(CARD), [f"{k}={v}" for k, v in given.items()], None, False)
    assert main._prepare(order)[0].protocol.classes == "own"
    assert "3 classes: [dégoût]" in capsys.readouterr().out
    order = main.Order(
        str(CARD), [*order.overrides, "protocol.classes=surprise,freude"], None, False
    )
    config, place = main._prepare(order)
    assert config.protocol.classes == "surprise,freude" and place.startswith("runs/fdp_tiny_folder")
    assert describe_classes(config).startswith("2 classes: surprise (6 clips), freude (6); 6 clips")


def test_a_table_of_videos_trains_in_its_order(clips, tmp_path, capsys):
    paths = sorted(clips.rglob("*.avi"), reverse=True)
    with (clips.parent / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["subject", "path", "emotion", "AU4", "AU12"])
        for i, path in enumerate(paths):
            names = path.relative_to(clips).parts
            emotion = "" if i == 0 else "rare" if i == 1 else names[1]
            rows.writerow([names[0], "/".join(names), emotion, i % 2, int(i % 3 == 0)])
    sheet = f"--spreadsheet={clips.parent / 'table.csv'}"
    out = prepared("csv", clips, tmp_path / "out", sheet)
    said = capsys.readouterr().out
    assert "surprise" in said and "left out, because they have no single emotion: 1" in said
    assert "Class rare: its one clip is of one subject, csv/cy" in said
    config = small_config(
        data__name="prepared", data__root=str(out), protocol__classes="own", train__batch_size=4
    )
    study = make_study(config)
    words = dict.fromkeys(study.dataset.table["emotion"])
    assert study.dataset.class_names == tuple(words) and len(words) == 4
    assert study.module.num_classes == 4 and study.dataset.left_out["num_clips"] == 1
    assert study.dataset.left_out["clips"] == {"without an emotion": 1}
    assert study.dataset.notices[0].startswith("Class rare: its one clip")
    units = small_config(data__name="prepared", data__root=str(out), protocol__task="emotion")
    with units.unlocked():
        units.protocol.task, units.protocol.units = "au", "4,12"
    assert describe_classes(units) == "2 action units: AU4 (9 clips), AU12 (6)"


def test_one_unknown_subject_is_told_with_the_remedy(clips, tmp_path, capsys):
    flat = tmp_path / "flat"
    for emotion in ("Freude", "surprise"):
        (flat / emotion).mkdir(parents=True)
        for name in ("v0_0.avi", "v1_0.avi"):
            source = clips / "anna" / "Freude" / name
            (flat / emotion / name).write_bytes(source.read_bytes())
    out = prepared("folder", flat, tmp_path / "out")
    said = capsys.readouterr().out
    assert "The folders were read as emotion/clip" in said and "mexjax.main" not in said
    assert "All clips are of one subject, folder/unknown" in said
    assert train(out, tmp_path / "run") == 2
    assert "--layout=subject/emotion/clip" in capsys.readouterr().err
    # The same folder with another layout is prepared anew where it has to be.
    prepared("folder", flat, out, "--layout=emotion/subject_clip")
    said = capsys.readouterr().out
    assert "4 clips of 2 subjects" in said and "mexjax.main" in said

"""The study of action units: what it starts from, and which clips it counts."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest

from mexjax.data.manifest import make_table, write_manifest
from mexjax.data.records import MANIFEST
from mexjax.errors import ConfigError, DataError, WorkdirError
from mexjax.studies import au

CELLS = {"casme2": ["4", "1+4", "0", "4 or 7", ""], "smic": ["", ""]}


def write(root: Path, cells: dict[str, list[str]]) -> None:
    rows = [
        {
            "dataset": name,
            "subject": f"{name}/{number}",
            "clip": f"c{number}",
            "onset": 1,
            "apex": 2,
            "offset": 9,
            "fps": 200.0,
            "n_frames": 9,
            "emotion": "surprise",
            "au": text,
            "aus": [part for part in text.split("+") if part.isdigit() and part != "0"],
            "aus_unsure": [],
            "landmark_source": "",
            "notes": "",
        }
        for name, texts in cells.items()
        for number, text in enumerate(texts)
    ]
    write_manifest(make_table(rows), root / MANIFEST)


def test_the_study_needs_a_run_or_a_prepared_folder(tmp_path):
    with pytest.raises(ConfigError, match="a finished run or a prepared folder"):
        au.study(out=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_clips_that_were_not_coded_are_left_out_with_a_line(tmp_path, capsys):
    write(tmp_path, CELLS)
    assert au.main([f"--root={tmp_path}", "--units=1,4"]) == 0
    assert "4 clips (casme2 2, smic 2)" in " ".join(capsys.readouterr().out.split())
    assert "4 clips (casme2 2, smic 2)" in (tmp_path / "au_study" / au.TEXT).read_text()
    results = au.study(root=tmp_path, units="1,4")
    # Of three coded clips one shows both units and one shows neither: r = 1/2. The clips that were
    # not coded would make it 0.645.
    assert results["correlation"]["all clips"][0][1] == pytest.approx(0.5)
    units = {"AU1": 1, "AU4": 2}
    assert results["counts"] == {"all clips": units, "casme2": units}
    assert {entry["dataset"]: entry["clips"] for entry in results["lengths"]} == {
        "casme2": 5,
        "smic": 2,
    }


def test_no_coded_clip_ends_in_one_message(tmp_path):
    write(tmp_path, {"smic": ["", ""]})
    with pytest.raises(DataError, match=r"No clip of .* has coded action units.*2 clips of smic"):
        au.study(root=tmp_path)


def test_features_that_are_damaged_or_of_another_model(tmp_path):
    run = types.SimpleNamespace(path=tmp_path, clip=np.array(["a/1"]))
    path = tmp_path / "features.npz"
    np.savez(path, cosines=np.zeros((1, 2, 2)))
    assert au.read_features(run) == {}
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:40] + b"?" + content[41:]):
        path.write_bytes(damaged)
        with pytest.raises(WorkdirError, match=r"features\.npz cannot be read"):
            au.read_features(run)

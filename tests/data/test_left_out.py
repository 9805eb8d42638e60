"""Clips that a protocol does not use: which they are, and how they are counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small import small_config

from mexjax.data import loading
from mexjax.data.dataset import Takes
from mexjax.errors import DataError
from mexjax.protocol.splits import make_folds
from mexjax.report.text import left_out_line

TAKES = Takes(model="a model", views=("uniform",), tasks=("emotion", "au"))


def table_of(datasets, cells, emotions=None):
    aus = [[c for c in cell.split("+") if c.isdecimal() and c != "0"] for cell in cells]
    return pd.DataFrame(
        {
            "dataset": datasets,
            "subject": [f"{name}/{i}" for i, name in enumerate(datasets)],
            "clip": [f"c{i}" for i in range(len(cells))],
            "emotion": emotions or ["surprise"] * len(cells),
            "au": cells,
            "aus": aus,
            "aus_unsure": [[] for _ in cells],
        }
    )


def load(monkeypatch, table, **changes):
    config = small_config(data__name="prepared", data__view="uniform", **changes)
    size, frames = config.data.image_size_px, config.data.num_frames
    clips = np.zeros((len(table), frames, size, size, 3 if config.data.is_color else 1), np.uint8)
    clips += np.arange(len(table), dtype=np.uint8)[:, None, None, None, None]
    monkeypatch.setitem(loading.SOURCES, "prepared", lambda *_: (table, clips))
    return loading.load(config, TAKES), config


def test_clips_without_coded_units_are_left_out(monkeypatch):
    datasets = ["casme2"] * 4 + ["smic"] * 2
    table = table_of(datasets, ["4+7", "", "4 or 7", "0", "", ""])
    dataset, config = load(
        monkeypatch, table, protocol__task="au", protocol__units="4,7,12", data__control="none"
    )
    assert dataset.table["clip"].tolist() == ["c0", "c3"]
    assert dataset.labels.tolist() == [[1, 1, 0], [0, 0, 0]] and dataset.labels.dtype == np.int32
    assert dataset.clips[:, 0, 0, 0, 0].tolist() == [0, 3]
    assert dataset.left_out == {
        **{"num_clips": 4, "num_clips_in_all": 6},
        "clips": {"casme2": 2, "smic": 2},
    }
    folds = make_folds(dataset.table, None, config.protocol)
    assert sorted(row for fold in folds for row in fold.test) == [0, 1]


def test_a_dataset_without_any_unit_is_refused(monkeypatch):
    table = table_of(["smic"] * 3, ["", "", ""])
    with pytest.raises(DataError, match=r"no clip whose action units were coded \(datasets: smic"):
        load(monkeypatch, table, protocol__task="au")


def test_an_embedded_clip_without_a_unit_is_coded(monkeypatch):
    table = table_of(["synthetic"] * 3, ["4", "", "7"])
    dataset, _ = load(monkeypatch, table, protocol__task="au", protocol__units="4,7")
    assert dataset.labels.tolist() == [[1, 0], [0, 0], [0, 1]] and dataset.left_out == {}


def test_emotions_that_no_class_has_are_counted(monkeypatch):
    emotions = ["sadness", "surprise", "fear", "fear", "others", "disgust+fear"]
    table = table_of(["casme2"] * 6, ["4"] * 6, emotions)
    dataset, _ = load(monkeypatch, table, protocol__classes=5)
    assert len(dataset.labels) == 2 and dataset.left_out["num_clips_in_all"] == 6
    counts = list(dataset.left_out["clips"].items())
    assert counts == [("fear", 2), ("disgust+fear", 1), ("sadness", 1)]


def test_units_that_are_no_labels_are_counted(monkeypatch):
    table = table_of(["casme2"] * 4, ["4+24", "24+43", "0", ""])
    table["aus_unsure"] = [["12"], ["12", "13"], [], []]
    changes = {"protocol__task": "au", "protocol__units": "4,7,12"}
    dataset, _ = load(monkeypatch, table, **changes)
    units = {"AU12?": 2, "AU24": 2, "AU13?": 1, "AU43": 1}
    assert dataset.left_out["units"] == units and dataset.left_out["num_clips"] == 1
    dataset, _ = load(monkeypatch, table, protocol__is_unsure_present=True, **changes)
    assert dataset.left_out["units"] == {"AU24": 2, "AU13?": 1, "AU43": 1}
    dataset, _ = load(monkeypatch, table.iloc[:3], **changes)
    assert dataset.left_out == {
        **{"num_clips": 0, "num_clips_in_all": 3, "clips": {}},
        "units": units,
    }


def test_units_that_are_no_labels_are_printed():
    left_out = {"num_clips": 0, "num_clips_in_all": 9, "clips": {}, "units": {"AU24": 3}}
    results = {"task": "au", "left_out": left_out}
    line = "action units that are coded and no label of the protocol: 3 AU24"
    assert left_out_line(results) == line
    left_out |= {"num_clips": 2, "clips": {"smic": 2}}
    assert left_out_line(results).endswith(f"were not coded: 2 smic; {line}")

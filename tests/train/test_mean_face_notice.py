"""A model of action units that reads landmarks of an average face says so, with the number."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from prepared_helpers import NUM_CLIPS, arguments, manifest_of, release, run
from small import ROOT

import mexjax
from mexjax.prepare.layouts import Layout
from mexjax.train.study import load_dataset

CARD = ROOT / "configs" / "micro_au_clip.py"
PREPARED = {
    "data.image_size_px": 28,
    "protocol.units": "micro_au_samm",
    "model.patch_px": 4,
    "model.image_width": 16,
    "model.image_depth": 1,
    "model.image_heads": 2,
    "model.text_width": 8,
    "model.embed_width": 16,
    "model.pooling_width": 8,
    "model.head_width": 8,
    "train.num_epochs": 1,
    "train.batch_size": 8,
    "eval.every_epochs": 1,
    "has_progress": False,
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Layout:
    return release("casme2", tmp_path_factory.mktemp("release") / "casme2", num_subjects=3)


def prepared(layout: Layout, out: Path, *more: str) -> dict[str, object]:
    assert run(*arguments("casme2", layout, out, *more)) == 0
    return PREPARED | {"data.name": "prepared", "data.root": str(out)}


def notices(changes: dict[str, object], card: Path = CARD) -> tuple[str, ...]:
    return load_dataset(mexjax.load_config(card, changes)).notices


def test_the_notice_counts_clips_by_way(layout, tmp_path):
    assert notices(prepared(layout, tmp_path / "measured")) == ()
    changes = prepared(layout, tmp_path / "whole", "--faces=precropped")
    (notice,) = notices(changes)
    assert notice.startswith(f"{NUM_CLIPS} of {NUM_CLIPS} clips have no landmarks of their own")
    assert f"({NUM_CLIPS} by precropped). The patches" in notice and "--landmarks=FILE" in notice
    # Emotions without patches only need a crop.
    emotion = {"data.name": "prepared", "data.root": changes["data.root"], "protocol.classes": 3}
    assert notices(emotion, CARD.with_name("fdp.py")) == ()


def test_boxes_of_a_user_are_no_landmarks(layout, tmp_path):
    rows = layout.expected
    clips = rows["subject"] + "/" + rows["clip"]
    boxes = pd.DataFrame({"clip": clips, "frame": "", "x": 4, "y": 4, "w": 56, "h": 56})
    boxes.to_csv(tmp_path / "boxes.csv", index=False)
    out = tmp_path / "boxes"
    (notice,) = notices(prepared(layout, out, f"--landmarks={tmp_path}/boxes.csv"))
    assert set(manifest_of(out)["landmark_source"]) == {"boxes"}
    assert f"({NUM_CLIPS} by boxes)" in notice


def test_a_run_says_it_before_training_and_in_its_report(layout, tmp_path, caplog):
    changes = prepared(layout, tmp_path / "whole", "--faces=precropped")
    done = mexjax.run(
        mexjax.load_config(CARD, changes | {"folds.only": ("casme2/01",)}), tmp_path / "run"
    )
    text = f"{NUM_CLIPS} of {NUM_CLIPS} clips have no landmarks of their own"
    assert text in caplog.text
    assert any(text in notice for notice in done.results["notices"])
    assert text in (done.workdir / "report.md").read_text(encoding="utf-8")

"""A study small enough for tests: five subjects, 36 clips of 32 px, a network of a few channels.

Its frame network is the stem and two patch embeddings, which compile in half of the time: a run
goes the same way with any network. `BLOCKS` gives it an aggregator of each kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import mexjax

ROOT = Path(__file__).resolve().parents[2]
CARD = ROOT / "configs" / "fdp.py"

OVERRIDES: dict[str, Any] = {
    "data.image_size_px": 32,
    "data.synthetic.num_subjects": 5,
    "data.synthetic.num_clips": 36,
    "model.stem_patch_px": 2,
    "model.stem_channels": (8,),
    "model.stem_strides": (1,),
    "model.num_local": (0, 0),
    "model.num_global": (0, 0),
    "model.local_channels": (16, 16),
    "model.global_channels": (16, 32),
    "model.head_dim": 8,
    "model.map_size_px": 16,
    "model.mer_width": 16,
    "model.encoder_channels": (8,),
    "model.decoder_channels": (8,),
    "train.num_epochs": 2,
    "train.batch_size": 8,
    "eval.every_epochs": 1,
    "checkpoint.min_seconds": 0.0,
    "folds.per_chunk": 2,
    "report.has_figures": False,
    "has_progress": False,
}
BLOCKS: dict[str, Any] = {"model__num_local": (1, 0), "model__num_global": (0, 1)}


def small_config(**changes: Any) -> ConfigDict:
    """The small study; `train__num_epochs=3` changes `train.num_epochs`."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return mexjax.load_config(CARD, OVERRIDES | named)

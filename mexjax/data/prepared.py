"""Prepared datasets: `data.name=prepared`, the folder that `python -m mexjax.prepare` wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax.data.dataset import Takes
from mexjax.data.view_keys import (
    as_clips,
    check_memory,
    flow_params,
    key_frame_rule,
    magnifier_params,
)
from mexjax.errors import ConfigError, DataError, unknown_name
from mexjax.progress import ClipProgress


def load_prepared(config: ConfigDict, choice: str, takes: Takes) -> tuple[pd.DataFrame, np.ndarray]:
    """The table and the clips u8[N,T,S,S,C] that `python -m mexjax.prepare` wrote, in one view.

    The view `uniform` has `num_frames` frames from onset to offset, `key_frames` has onset, apex
    and offset, and `flow_image` one image of the motion between onset and apex. It is computed once
    and kept below the prepared folder or in `data.cache`, so that the next run with the same
    parameters maps a file.

    Raises:
      ConfigError: no root, or `data.datasets` names one that is not in it.
      DataError: the folder was not prepared, or is damaged.
    """
    del takes
    data = config.data
    table = read_table(config)
    check_memory(config, len(table))
    if data.view == "flow_image":
        images = prepared_view(config, table, "flow_image", flow_params(config))
        return table, as_clips(images)
    params = {"size_px": data.image_size_px, "is_color": data.is_color, **magnifier_params(config)}
    if data.view == "uniform":
        params |= {"num_frames": data.num_frames, "rule": data.sampling}
    if data.view == "key_frames":
        params |= {"choice": choice}
        if choice == "reselected":
            params |= dataclasses.asdict(key_frame_rule(config))
    return table, prepared_view(config, table, data.view, params)


def read_table(config: ConfigDict) -> pd.DataFrame:
    """The rows of the prepared datasets that `data.datasets` asks for."""
    # These are imported here: they take a second, and the embedded dataset needs none of them.
    from mexjax.data.manifest import COLUMNS, read_manifest
    from mexjax.data.records import MANIFEST, RECORD

    data = config.data
    if not data.root:
        raise ConfigError(
            "data.name=prepared needs the folder that python -m mexjax.prepare wrote: add"
            " --config.data.root=FOLDER."
        )
    root = Path(data.root)
    if (root / RECORD).is_file() and not (root / MANIFEST).is_file():
        raise DataError(
            f"The preparation of {root} was not finished: there is no {MANIFEST}. Run the same"
            " python -m mexjax.prepare command again; it goes on from what is there."
        )
    table = read_manifest(root / MANIFEST, required=COLUMNS)
    names = list(dict.fromkeys(table["dataset"]))
    for name in data.datasets:
        if name not in names:
            raise ConfigError(unknown_name("dataset in data.datasets", str(name), names))
    if data.datasets:
        rows = np.flatnonzero(table["dataset"].isin(list(data.datasets)))
        table = table.take(rows).reset_index(drop=True)
    return table


def prepared_view(
    config: ConfigDict, table: pd.DataFrame, name: str, params: dict[str, Any]
) -> np.ndarray:
    """One view of every clip of a table, computed once and kept on disk."""
    from mexjax.data import views

    is_pair = name in ("flow_image", "landmark_tokens")
    if is_pair and config.data.control == "static":
        table = table.assign(apex=table["onset"])
    with ClipProgress("sampling clips", is_shown=config.has_progress, is_kept=False) as progress:
        root, cache = Path(config.data.root), config.data.cache
        return views.compute_view(root, table, name, params, cache=cache, progress=progress)


def prepared_views(
    config: ConfigDict, table: pd.DataFrame, params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Views of every clip of a table, by name, with their parameters.

    Raises:
      DataError: landmarks of several sources, see `data.may_mix_landmarks`.
    """
    if "landmark_tokens" in params:
        _check_landmarks(config, table)
    return {name: prepared_view(config, table, name, each) for name, each in params.items()}


def _check_landmarks(config: ConfigDict, table: pd.DataFrame) -> None:
    """Refuse landmarks of several sources: clips would differ by the source, not by the face."""
    counts = table["landmark_source"].value_counts()
    if len(counts) > 1 and not config.data.may_mix_landmarks:
        sources = ", ".join(f"{name} ({count} clips)" for name, count in counts.items())
        raise DataError(
            f"The landmarks of these clips come from several sources: {sources}. Prepare the"
            " dataset again with one that finds every face, or set data.may_mix_landmarks=True."
        )

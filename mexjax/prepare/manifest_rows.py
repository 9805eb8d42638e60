"""Rows of the manifest: clips that the readers found, joined with what is stored of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mexjax.data import records
from mexjax.data.manifest import READING
from mexjax.data.same_frames import SAME_FRAMES
from mexjax.prepare.shards import Shard

_MAX_EXAMPLES = 8
_MAX_NOTES = 3  # other clips with the same frames that the notes of one name


def make_manifest(
    table: pd.DataFrame, done: Sequence[tuple[Shard, dict[str, Any]]]
) -> pd.DataFrame:
    """Return the rows of `table` whose clips are in a shard, with the place of each."""
    stored = {
        clip["id"]: {**clip, "shard": shard.name}
        for shard, description in done
        for clip in description["clips"]
    }
    ids = [records.clip_id(row) for row in table.to_dict("records")]
    keep = [name in stored for name in ids]
    clips = [stored[name] for name in ids if name in stored]
    out = table.loc[keep].reset_index(drop=True)
    for column in ("landmark_source", "num_stored", "shard", "sha256"):
        out[column] = [clip[column] for clip in clips]
    others = _same_frames([name for name in ids if name in stored], clips)
    out["notes"] = [
        "; ".join(filter(None, [before, *clip["notes"], *(f"{SAME_FRAMES}{n}" for n in names)]))
        for before, clip, names in zip(out["notes"], clips, others, strict=True)
    ]
    return out


def _same_frames(names: Sequence[str], clips: Sequence[dict[str, Any]]) -> list[list[str]]:
    """List for each clip the others that were made from frames of the same content."""
    groups: dict[str, list[str]] = {}
    for name, clip in zip(names, clips, strict=True):
        groups.setdefault(clip.get("content") or name, []).append(name)
    alike = [groups[clip.get("content") or name] for name, clip in zip(names, clips, strict=True)]
    return [
        [other for other in others if other != name][:_MAX_NOTES]
        for name, others in zip(names, alike, strict=True)
    ]


def found_again(table: pd.DataFrame) -> np.ndarray:
    """Mark the clips whose frames are where the release was looked for this time: bool[N]."""
    return (table["frame_folder"] != "").to_numpy(bool)


def remember(table: pd.DataFrame, before: pd.DataFrame | None) -> pd.DataFrame:
    """Fill in what `before` has of the frames of stored clips that have left the release."""
    if before is None or found_again(table).all():
        return table
    rows = {records.clip_id(row): row for row in before.to_dict("records")}
    table = table.copy()
    for i in np.flatnonzero(~found_again(table)):
        row = rows.get(records.clip_id(table.iloc[i]))
        if row is not None:
            for column in READING:
                table.loc[i, column] = row[column]
    return table


def lines_of_removed(before: pd.DataFrame | None, table: pd.DataFrame) -> list[str]:
    """Say which clips were prepared before and are not in the release any more; one line or none.

    Args:
      before: the manifest of the preparation before, if there was one.
      table: all clips of the release as it is now.
    """
    if before is None:
        return []
    names = {records.clip_id(row) for row in table.to_dict("records")}
    gone = [
        name for row in before.to_dict("records") if (name := records.clip_id(row)) not in names
    ]
    if not gone:
        return []
    more = ", ..." if len(gone) > _MAX_EXAMPLES else ""
    return [
        f"Left out: {len(gone)} clips that were prepared before and are not in the release any"
        f" more: {', '.join(gone[:_MAX_EXAMPLES])}{more}."
    ]


def gives_same_sheet(before: pd.DataFrame | None, table: pd.DataFrame) -> bool:
    """Tell whether two manifests give the same contact sheet."""
    columns = ["subject", "clip", "onset", "apex", "sha256"]
    return before is not None and (
        before[columns].to_numpy().tolist() == table[columns].to_numpy().tolist()
    )

"""Releases of rendered faces, and preparing them as the command does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from mexjax.data import records
from mexjax.data.manifest import read_manifest
from mexjax.prepare import command as prepare
from mexjax.prepare.layouts import Layout, write_layout

NUM_CLIPS = 6


def release(name: str, folder: Path, *, resolution_px: int = 64, **more: object) -> Layout:
    """A small release, written under `folder`."""
    options = {"num_clips": NUM_CLIPS} | more
    return write_layout(name, folder, resolution_px=resolution_px, **options)


def copy_of(layout: Layout, folder: Path) -> Layout:
    """The same release elsewhere, to be damaged."""
    shutil.copytree(layout.root, folder)
    spreadsheet, landmarks = (
        folder / path.relative_to(layout.root) for path in (layout.spreadsheet, layout.landmarks)
    )
    return Layout(folder, spreadsheet, layout.expected, landmarks)


def arguments(name: str, layout: Layout, out: Path, *more: str) -> list[str]:
    """The command line that prepares a release, with the true landmarks, crops of 48 px."""
    given = [f"--dataset={name}", f"--root={layout.root}", f"--spreadsheet={layout.spreadsheet}"]
    given += [f"--out={out}", "--size_px=48", "--clips-per-shard=2"]
    if not any(text.startswith("--faces") for text in more):
        given.append(f"--landmarks={layout.landmarks}")
    return [*given, *more]


def run(*given: str) -> int:
    """The command in this process."""
    return prepare.main(given)


def manifest_of(out: Path) -> pd.DataFrame:
    """What was prepared."""
    return read_manifest(out / records.MANIFEST)


def record_of(out: Path) -> dict:
    """What `preparation.json` says."""
    return json.loads((out / records.RECORD).read_text(encoding="utf-8"))


def files(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each file of the shards: another one was written anew."""
    found = sorted((out / "frames").iterdir())
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def clip_folder(layout: Layout, row: pd.Series) -> Path:
    """The folder with the frames of a clip."""
    return layout.root / row["frame_folder"]


def first_image(folder: Path) -> Path:
    """The image with the lowest number."""
    return min(folder.iterdir(), key=lambda path: (len(path.stem), path.name))


def clips_of(out: Path) -> list[np.ndarray]:
    """The frames of every clip."""
    rows = manifest_of(out).to_dict("records")
    return [records.load_clip(out, row).frames for row in rows]

"""The files of a run folder agree with each other, and are the ones that training wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mexjax.config import flat
from mexjax.config.older import as_digested
from mexjax.errors import DataError
from mexjax.files import SEAL, canonical, digest, file_digest, is_damaged

# Keys that change the display and storage of a run, or the place of its data, not its numbers. The
# content of the class map is in data.json.
INDIFFERENT = ("has_progress", "cpu_heap", "checkpoint.", "report.", "data.root", "data.cache")
# Each run of a sweep has its values in the keys themselves.
INDIFFERENT += ("protocol.class_map", "gpu.graphs", "sweep.")
# Files whose digest run.json has; that of config.json is of the keys that numbers depend on.
DIGESTED = ("config.json", "folds.json", "predictions.npz", "sheet.npz", "features.npz")
# Entries of run.json, and the keys of config.json that say the same.
_SAME = {
    "model": "model.name",
    "preset": "model.preset",
    "dataset": "data.name",
    "task": "protocol.task",
    "control": "data.control",
    "protocol": "protocol.name",
    "seed": "seed",
}
# The advice where a file of a run is damaged.
ANEW = (
    "Put the file back from a copy, or start the same command again: it writes the record anew from"
    " groups/. Without these, delete run.json there first, and it trains again."
)


def config_digest(config: Mapping[str, Any]) -> str:
    """The SHA-256 of the keys of `config.json` that numbers depend on."""
    values = as_digested(flat(json.loads(json.dumps(config))))
    return digest(canonical({k: v for k, v in values.items() if not k.startswith(INDIFFERENT)}))


def check_agreement(
    folder: Path, config: Mapping[str, Any], info: Mapping[str, Any], folds: Mapping[str, Any]
) -> None:
    """Refuse files that contradict each other or that are not as training wrote them.

    Args:
      folder: of the run.
      config: content of config.json.
      info: content of run.json; its digests are optional.
      folds: content of folds.json, checked.

    Raises:
      DataError: with the file and the entry.
    """
    source, values = folder / "run.json", flat(config)
    for name, key in _SAME.items():
        if name in info and key in values and info[name] != values[key]:
            raise DataError(
                f"{source} says {name} {info[name]!r}, but config.json beside it says {key}"
                f" {values[key]!r}. The files are from different runs or were changed. {ANEW}"
            )
    for name in ("protocol", "classes"):
        if name in info and name in folds and info[name] != folds[name]:
            raise DataError(
                f"{source} says {name} {info[name]!r}, but folds.json beside it says"
                f" {folds[name]!r}. The files are from different runs or were changed. {ANEW}"
            )
    if is_damaged(info) or ("digests" in info and SEAL not in info):
        raise DataError(f"{source} is damaged or was changed: its digest does not fit. {ANEW}")
    digests = info.get("digests", {})
    if not isinstance(digests, Mapping):
        raise DataError(f"{source}: expected an object 'digests', found {digests!r}.")
    for name in DIGESTED:
        value = config_digest(config) if name == "config.json" else _file_digest(folder / name)
        if name in digests and value not in (None, digests[name]):
            raise DataError(
                f"{folder / name} is damaged or was changed after training: its SHA-256 is not the"
                f" one that run.json has. {ANEW}"
            )


def _file_digest(path: Path) -> str | None:
    """The SHA-256 of a file, or None if it cannot be read; its reader then says why."""
    try:
        return file_digest(path)
    except OSError:
        return None

"""The data that a run is trained on, written down, so that a later start can tell a difference.

`data.json` of a run folder has a short digest of each clip. The place of the data is not in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax.data.dataset import Dataset
from mexjax.data.loading import load_table
from mexjax.errors import WorkdirError
from mexjax.files import SEAL, canonical, digest, read_sealed, sealed
from mexjax.protocol.class_file import read_class_map
from mexjax.protocol.splits import folds_to_json
from mexjax.train.file_inputs import changed_files, file_digests
from mexjax.train.study import Study
from mexjax.train.workdir import Workdir

log = logging.getLogger(__name__)

FILE = "data.json"
_ENTRIES = ("recipe", "classes", "clips", "folds", "table")
# It rises when the same files and keys give other clips, labels or folds than before.
RECIPE = 1
# Columns of a prepared dataset's table that a run can depend on, beside the name of a clip.
ANNOTATION = ("emotion", "aus", "aus_unsure", "onset", "apex", "offset")
RECORD = ("sha256", "num_stored", "landmark_source")
_NUM_NAMES = 3  # clips that a message names
_NUM_DIGITS = 16  # of a clip's digest


def inputs_of(study: Study) -> dict[str, Any]:
    """The content of `data.json`: what the folds of a run are trained on, clip by clip."""
    dataset = study.dataset
    protocol = study.config.protocol.name
    files = file_digests(study.config)
    folds = folds_to_json(study.all_folds, dataset.clip_ids, protocol, dataset.class_names)
    return {
        "schema": 1,
        "recipe": RECIPE,
        "classes": list(dataset.class_names),
        "clips": {
            "clip": dataset.clip_ids,
            "label": _label_texts(dataset),
            "frames": _digests([dataset.clips, dataset.train_clips]),
            "views": _digests([dataset.views[name] for name in sorted(dataset.views)]),
        },
        "folds": digest(canonical(folds)),
        "table": _table_of(study.config),
        "class_map": _class_map(study.config),
        **({"files": files} if files else {}),
    }


def check_inputs(folder: Workdir, study: Study) -> str:
    """Refuses a run folder that was begun on other data, and else writes down the data.

    Returns:
      The digest of `data.json`.

    Raises:
      WorkdirError: the data differ (the message says in what), or nothing tells what the folds
        that are there were trained on.
    """
    content = inputs_of(study)
    now, mark = sealed(content), folder.inputs_mark()
    before = read_sealed(folder.path / FILE, *_ENTRIES)
    if not folder.holds_results():
        folder.save_json(FILE, now)
        return now[SEAL]
    if before is None or mark not in (None, before[SEAL]):
        if mark == now[SEAL]:
            log.warning("%s is missing or damaged: it is written again.", folder.path / FILE)
            folder.save_json(FILE, now)
            return now[SEAL]
        raise WorkdirError(
            f"{folder.path} has trained folds, but {FILE}, which tells their data, is missing or"
            f" damaged, and these data are not the ones. {_advice(folder, can_report=False)}"
        )
    differences = [*_recipe(before, content), *_clips(before["clips"], content["clips"])]
    if before["classes"] != content["classes"]:
        there, now = ", ".join(before["classes"]), ", ".join(content["classes"])
        differences.insert(0, f"the classes were {there} and are {now}")
    if not differences and before["folds"] != content["folds"]:
        differences = ["the folds have other clips"]
    differences += changed_files(before.get("files", {}), study.config)
    _refuse(folder, differences, can_report=False)
    return before[SEAL]


def check_finished(folder: Workdir, config: ConfigDict) -> None:
    """Refuses a finished run if the table of its prepared dataset is another one now.

    No clip is loaded: the table has the hashes of the records. Embedded datasets follow from the
    configuration and the recipe. Without the data nothing is compared.

    Raises:
      WorkdirError: the data differ; the message says in what.
    """
    before = read_sealed(folder.path / FILE, *_ENTRIES)
    if before is None:
        log.warning("%s has no readable %s: its data were not compared.", folder.path, FILE)
        return
    differences = _recipe(before, {"recipe": RECIPE})
    differences += _merging(before.get("class_map"), _class_map(config))
    differences += changed_files(before.get("files", {}), config)
    if config.data.name == "prepared":
        if not config.data.root or not Path(config.data.root).is_dir():
            log.warning(
                "There is no %s: the data were not compared.", config.data.root or "data.root"
            )
        else:
            differences += _rows(before["table"], _table_of(config))
    _refuse(folder, differences, can_report=True)


def _refuse(folder: Workdir, differences: Sequence[str], *, can_report: bool) -> None:
    if differences:
        raise WorkdirError(
            f"{folder.path} holds a run on other data: {'; '.join(differences)}."
            f" {_advice(folder, can_report=can_report)}"
        )


def _advice(folder: Workdir, *, can_report: bool) -> str:
    keep = f"mexjax report {folder.path} shows it as it is; else put" if can_report else "Put"
    return (
        f"{keep} the data back as they were, choose another folder, for example"
        f" --workdir={folder.path}_2, or start anew with --overwrite."
    )


def _label_texts(dataset: Dataset) -> list[str]:
    """The label of each clip in words, for messages and for comparison."""
    names = np.array(dataset.class_names)
    if dataset.task == "au":
        return [_units(names, row) for row in dataset.labels]
    return names[dataset.labels].tolist()


def _units(names: np.ndarray, row: np.ndarray) -> str:
    present = names[row == 1].tolist()
    unknown = [f"{name}?" for name in names[(row != 0) & (row != 1)]]
    return "+".join([*present, *unknown]) or "no unit"


def _digests(arrays: Sequence[np.ndarray | None]) -> list[str]:
    """A digest of each clip over some arrays [N, ...]; empty texts without any array."""
    present = [array for array in arrays if array is not None]
    if not present:
        return []
    head = canonical([[str(array.dtype), list(array.shape[1:])] for array in present]).encode()
    out = []
    for row in range(len(present[0])):
        state = hashlib.sha256(head)
        for array in present:
            state.update(np.ascontiguousarray(array[row]).view(np.uint8).data)
        out.append(state.hexdigest()[:_NUM_DIGITS])
    return out


def _table_of(config: ConfigDict) -> dict[str, list[str]] | None:
    """Every row of a prepared dataset's table: clip, digests of annotation and of record."""
    if config.data.name != "prepared":
        return None
    table = load_table(config)
    names = zip(table["subject"], table["clip"], strict=True)
    return {
        "clip": [f"{subject}/{clip}" for subject, clip in names],
        "emotion": table["emotion"].tolist(),
        "annotation": _row_digests(table, ANNOTATION),
        "record": _row_digests(table, RECORD),
    }


def _class_map(config: ConfigDict) -> list[list[str]] | None:
    """The lines of the file that merges emotion words, in its order; None without one."""
    path = config.protocol.get("class_map", "")
    return [list(line) for line in read_class_map(Path(path)).items()] if path else None


def _merging(before: list[list[str]] | None, now: list[list[str]] | None) -> list[str]:
    if before == now:
        return []
    old, new = dict(before or ()), dict(now or ())
    told = [
        f"{word} ({_class_of(word, old)} there, {_class_of(word, new)} now)"
        for word in {**old, **new}
        if old.get(word) != new.get(word)
    ]
    return _told("the class of", told) or ["protocol.class_map has another order"]


def _class_of(word: str, lines: dict[str, str]) -> str:
    """The class of a word in a class map, in words."""
    return (lines[word] or "left out") if word in lines else "in no map"


def _row_digests(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    lists = [table[name].tolist() for name in columns]
    texts = (json.dumps(row, default=_plain) for row in zip(*lists, strict=True))
    return [digest(text)[:_NUM_DIGITS] for text in texts]


def _plain(value: Any) -> Any:
    """A value of a table as JSON takes it."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _recipe(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    if before["recipe"] == now["recipe"]:
        return []
    return [f"this version of mexjax makes clips by recipe {RECIPE}, that one {before['recipe']}"]


def _rows(before: dict[str, list[str]] | None, now: dict[str, list[str]] | None) -> list[str]:
    """The differences of two tables of a prepared dataset."""
    if before is None or now is None:
        return ["the dataset was not a prepared one"]
    out, pairs = _names(before, now, "record")
    words = _changed(before, now, pairs, "emotion")
    emotions = {clip for clip, _, _ in words}
    out += _told("the emotion of", [f"{c} ({a} there, {b} now)" for c, a, b in words])
    notes = [c for c, _, _ in _changed(before, now, pairs, "annotation") if c not in emotions]
    out += _told("the annotation (units or key frames) of", notes)
    out += _told("the frames of", [c for c, _, _ in _changed(before, now, pairs, "record")])
    return out


def _clips(before: dict[str, list[str]], now: dict[str, list[str]]) -> list[str]:
    """The differences of the clips that were and would be trained on."""
    out, pairs = _names(before, now, "frames")
    labels = _changed(before, now, pairs, "label")
    out += _told("the label of", [f"{c} ({a} there, {b} now)" for c, a, b in labels])
    out += _told("the frames of", [c for c, _, _ in _changed(before, now, pairs, "frames")])
    if bool(before["views"]) != bool(now["views"]):
        return [*out, "the clips have other views"]
    if now["views"]:
        # Some views follow from the label, which was named already.
        others = {clip for clip, _, _ in labels}
        views = [c for c, _, _ in _changed(before, now, pairs, "views") if c not in others]
        out += _told("the views of", views)
    return out


def _names(
    before: dict[str, list[str]], now: dict[str, list[str]], content: str
) -> tuple[list[str], list[tuple[int, int]]]:
    """Clips that came, went or moved, in words, and the places of those that are in both.

    Args:
      before: the clips and their columns there.
      now: the same now.
      content: the column of digests by which a clip is known under another name.
    """
    places = {clip: row for row, clip in enumerate(now["clip"])}
    there = set(before["clip"])
    gone = [row for row, clip in enumerate(before["clip"]) if clip not in places]
    new = [row for row, clip in enumerate(now["clip"]) if clip not in there]
    contents: dict[str, list[int]] = {}
    for row in new if before[content] and now[content] else ():
        contents.setdefault(now[content][row], []).append(row)
    renamed = {
        row: same.pop(0)
        for row in gone
        if contents and (same := contents.get(before[content][row]))
    }
    out = _told(
        "renamed:", [f"{before['clip'][a]} is {now['clip'][b]} now" for a, b in renamed.items()]
    )
    out += _told("clips that are gone:", [before["clip"][r] for r in gone if r not in renamed])
    others = set(renamed.values())
    out += _told("clips that are new:", [now["clip"][r] for r in new if r not in others])
    if not out and before["clip"] != now["clip"]:
        out = ["the clips have another order"]
    pairs = [(row, places[clip]) for row, clip in enumerate(before["clip"]) if clip in places]
    return out, pairs


def _changed(
    before: dict[str, list[str]],
    now: dict[str, list[str]],
    pairs: Iterable[tuple[int, int]],
    column: str,
) -> list[tuple[str, str, str]]:
    """Clip, value there and value now of the clips whose values differ in a column."""
    old, new = before[column], now[column]
    return [(before["clip"][a], old[a], new[b]) for a, b in pairs if old[a] != new[b]]


def _told(words: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    rest = f" and {len(names) - _NUM_NAMES} more" if len(names) > _NUM_NAMES else ""
    return [f"{words} {', '.join(names[:_NUM_NAMES])}{rest}"]

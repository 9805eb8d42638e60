"""From the folders of releases to a prepared dataset: manifest, shards of face crops, summary.

Clips are prepared on all cores by grain, whose bounded, ordered buffer keeps memory flat in the
number of clips. By default the cores are threads of this process: reading, warping and compressing
is in OpenCV, which releases the interpreter's lock, and a thread starts at once, while a worker
process first imports everything anew (seconds). `num_workers` above 0 takes processes instead. They
pay where a face detector holds the lock, over some hundred clips.

A clip that cannot be prepared is reported and the others go on. A killed run leaves whole shards;
the same call goes on from them (see `mexjax.prepare.shards`).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from mexjax import signals
from mexjax.data import records
from mexjax.data.manifest import COLUMNS, read_manifest, write_manifest
from mexjax.data.records import MANIFEST, RECORD
from mexjax.data.same_frames import lines_of_same_frames
from mexjax.errors import DataError, WorkdirError
from mexjax.files import atomic, is_damaged, is_folder, read_regular, sealed
from mexjax.lock import FolderLock
from mexjax.prepare import release_depth, shards
from mexjax.prepare.contact_sheet import contact_sheet
from mexjax.prepare.cores import one_opencv_thread, parallel
from mexjax.prepare.cropping import Crop, Cropper, Failure, Job
from mexjax.prepare.depth import Depth
from mexjax.prepare.face_check import scattered
from mexjax.prepare.face_looks import DETECTORS, look_at_faces
from mexjax.prepare.manifest_rows import (
    found_again,
    gives_same_sheet,
    lines_of_removed,
    make_manifest,
    remember,
)
from mexjax.prepare.options import Found, Input, Options, Outcome
from mexjax.prepare.shards import Shard
from mexjax.prepare.sources import get_source
from mexjax.prepare.sources.joint import unite_releases
from mexjax.prepare.sources.losses import Risk
from mexjax.prepare.summary import summary

_FACE_FILE = "faces_sha256"  # a parameter: the digest of landmarks, or of a detector's files
SUMMARY, SHEET = "summary.md", "contact_sheet.png"

Progress = Callable[[int, int, int], None]  # clips done, clips in all, frames done


def read_inputs(inputs: Iterable[Input]) -> Found:
    """Read the annotation of every release; no image is opened.

    Raises:
      DataError: an unknown reader, a root or spreadsheet that is not there or cannot be read, the
        same clip twice, or no clip at all.
    """
    tables: list[pd.DataFrame] = []
    releases: list[Input] = []
    problems: list[str] = []
    for release in inputs:
        source = get_source(release.name, release.layout)
        if not is_folder(release.root):
            raise DataError(
                f"The root of {release.name} is not a folder: {release.root} (looked from"
                f" {Path.cwd()}). Give the folder of the release with --root."
            )
        reading = source.read(release.root, spreadsheet=release.spreadsheet)
        problems += reading.problems
        tables.append(reading.table)
        releases.append(release)
    tables, risks = unite_releases(tables)
    problems += risks
    jobs = [
        Job(release.name, release.root, row)
        for release, table in zip(releases, tables, strict=True)
        for row in table.to_dict("records")
    ]
    ids = [job.id for job in jobs]
    if not ids:
        raise DataError(
            f"No clip was found in {', '.join(str(release.root) for release in inputs)}."
            f" Check --dataset, --root and --spreadsheet.{_first(problems)}"
        )
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(
            f"Clip {twice[0]} was found twice ({len(twice)} such clips). Give every release once,"
            " and let clips of one subject have different names."
        )
    return Found(pd.concat(tables, ignore_index=True), tuple(jobs), tuple(problems))


def _first(problems: Sequence[str]) -> str:
    """Return the first of several remarks, for a message that nothing is left."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f" The first remark{more}: {problems[0]}" if problems else ""


def prepare(options: Options, *, progress: Progress | None = None) -> Outcome:
    """Prepare the releases of `options` into its folder, or go on with what is there.

    Raises:
      ConfigError: options that cannot be used.
      DataError: releases that cannot be read, or no clip that could be prepared.
      WorkdirError: the folder cannot be written, the disk is full, another process prepares into
        it, or it was prepared with other parameters.
    """
    start = time.monotonic()
    options.check()
    work = Cropper(options.settings)
    parameters = make_parameters(options, work)
    _refuse_other_parameters(options.out, parameters)
    reading = read_inputs(options.inputs)
    with shards.writing(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(options.out, "--out")
    try:
        _refuse_other_parameters(options.out, parameters)  # another process may have been faster
        return _fill(options, work, parameters, reading, start, progress)
    finally:
        lock.release()


def _fill(
    options: Options,
    work: Cropper,
    parameters: dict[str, Any],
    reading: Found,
    start: float,
    progress: Progress | None,
) -> Outcome:
    """Prepare what was read into the folder, which no other process writes."""
    plan = shards.plan_shards(options.out, reading.jobs, options.clips_per_shard)
    shards.remove_leftovers(options.out, plan)
    shards.write_json(options.out / RECORD, sealed(_record(options, parameters)))
    done, missing, redone = _sorted(plan, parameters, progress)
    work.depths = _depths(reading.jobs, done, is_read=bool(missing))
    redone += _take_outdated(done, missing, work.depths)
    missing.sort(key=plan.index)
    before = None
    with suppress(DataError):  # one that is absent or damaged is written anew
        before = read_manifest(options.out / MANIFEST, required=COLUMNS, is_remarked=False)
    redone += lines_of_removed(before, reading.table)
    if missing:  # the manifest of before describes a whole that is not there any more
        with shards.writing(options.out):
            (options.out / MANIFEST).unlink(missing_ok=True)
    num_kept = len(done)
    differing = _look(work, missing, reading.jobs, options.num_workers, progress)
    for shard, description in _make(work, missing, parameters, options.num_workers, progress):
        done.append((shard, description))
    failed = [Failure(**item) for _, description in done for item in description["failed"]]
    manifest = make_manifest(reading.table, done)
    copies = map(Risk, lines_of_same_frames(manifest, are_copies=True))
    problems = (*reading.problems, *release_depth.remarks(done), *copies)
    reading = dataclasses.replace(reading, problems=problems)
    is_there = found_again(manifest)
    manifest = remember(manifest, before)
    outcome = Outcome(
        found=reading,
        parameters=parameters,
        manifest=manifest,
        failed=tuple(failed),
        num_kept=num_kept,
        redone=tuple(redone),
        scattered=differing,
        num_frames=sum(clip["num_stored"] for _, new in done[num_kept:] for clip in new["clips"]),
        seconds=time.monotonic() - start,
    )
    shards.write_json(options.out / RECORD, sealed(_record(options, parameters, outcome)))
    if not len(manifest):
        raise DataError(
            f"None of the {len(failed)} clips could be prepared. The first, {failed[0].id}:"
            f" {failed[0].problem}"
        )
    shards.write_text(options.out / SUMMARY, summary(options, outcome))
    present = manifest.loc[is_there]
    is_drawn = (
        not missing and (options.out / SHEET).is_file() and gives_same_sheet(before, manifest)
    )
    # Where no frame is there, the release was put away, and the sheet of before is the right one.
    if len(present) and not is_drawn:
        crops = {clip["id"]: clip for _, description in done for clip in description["clips"]}
        sheet = contact_sheet(options.out, present, reading.jobs, work, crops=crops)
        with shards.writing(options.out), atomic(options.out / SHEET, "wb") as file:
            file.write(records.encode_frame(sheet).tobytes())
    with shards.writing(options.out):
        write_manifest(manifest, options.out / MANIFEST)  # last: with it the dataset is whole
    return outcome


def _sorted(
    plan: Sequence[Shard], parameters: dict[str, Any], progress: Progress | None
) -> tuple[list[release_depth.Made], list[Shard], list[str]]:
    """Sort shards into finished ones and others, with a line for each that is made again."""
    say = getattr(progress, "say", None)
    if say is not None and any(shard.path.is_file() for shard in plan):
        say("comparing the files of the release with those of before")
    done: list[release_depth.Made] = []
    missing, redone = [], []
    for shard, (description, why) in shards.all_finished(plan, parameters):
        if description is None:
            missing.append(shard)
            if why:
                redone.append(f"{shard.name} is made again: {why}.")
        else:
            done.append((shard, description))
    return done, missing, redone


def make_parameters(options: Options, cropper: Cropper) -> dict[str, Any]:
    """Collect what decides the content of a prepared dataset, besides the releases themselves.

    The place of a file does not matter, but its content does: landmarks and models give a hash.

    Raises:
      DataError: a file that the way of finding faces needs is not there.
    """
    finder, settings = cropper.first_finder(), options.settings
    # Other ways have none, so that what they prepared before there was a name is still theirs.
    detector = {"detector": finder.details["detector"]} if "detector" in finder.details else {}
    return detector | {
        "schema_version": records.SCHEMA_VERSION,
        "datasets": [release.name for release in options.inputs],
        "size_px": settings.size_px,
        "color": settings.color,
        "faces": finder.kind,
        _FACE_FILE: finder.details.get("sha256", ""),
        "clips_per_shard": options.clips_per_shard,
    }


def _look(
    work: Cropper,
    missing: Sequence[Shard],
    jobs: Sequence[Job],
    num_workers: int,
    progress: Progress | None,
) -> dict[str, float]:
    """Find the faces of all clips of the subjects that have a clip to be made, and compare them.

    Returns:
      see `face_check.scattered`.
    """
    if not missing or work.first_finder().kind not in DETECTORS:
        return {}
    subjects = {job.row["subject"] for shard in missing for job in shard.jobs}
    members = [job for job in jobs if job.row["subject"] in subjects]
    say = getattr(progress, "say", None)
    if say is not None:
        say("finding faces")

    def on_all_cores(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        if not items:
            return
        with closing(parallel(function, items, num_workers)) as results:
            for count, result in enumerate(results, 1):
                if progress is not None:
                    progress(count, len(items), 0)
                yield result

    with one_opencv_thread():
        sights = look_at_faces(work, members, on_all_cores)
    work.sights = {sight.id: sight for sight in sights}
    return scattered(sights)


def _make(
    work: Cropper,
    missing: Sequence[Shard],
    parameters: Mapping[str, Any],
    num_workers: int,
    progress: Progress | None,
) -> Iterator[tuple[Shard, dict[str, Any]]]:
    """Make shards, one after the other, and give the description of each."""
    jobs = [job for shard in missing for job in shard.jobs]
    if not jobs:
        return
    count = frames = 0

    def counted(items: Iterator[Crop | Failure]) -> Iterator[Crop | Failure]:
        nonlocal count, frames
        for item in items:
            count += 1
            frames += item.num_stored if isinstance(item, Crop) else 0
            if progress is not None:
                progress(count, len(jobs), frames)
            yield item

    with one_opencv_thread(), closing(parallel(work, jobs, num_workers)) as results:
        clips: Iterator[Crop | Failure] = results
        try:
            if num_workers:
                with signals.kept_from_children():  # the first clip starts the workers
                    clips = itertools.chain(list(itertools.islice(results, 1)), results)
            for shard in missing:
                items = counted(itertools.islice(clips, len(shard.jobs)))
                yield shard, shards.write_shard(shard, items, parameters)
        except KeyboardInterrupt:
            if num_workers and signals.is_command():
                signals.leave_at_once()  # to close the iterator takes as long as a worker's clip
            raise


def _depths(
    jobs: Sequence[Job], done: Sequence[release_depth.Made], *, is_read: bool
) -> dict[tuple[str, str], Depth]:
    """Return the range of samples of every release, read anew or as finished shards have it."""
    if not is_read:
        return release_depth.recorded_depths(done)
    with one_opencv_thread(), closing(parallel(release_depth.range_of_clip, jobs, 0)) as ranges:
        return release_depth.depths_of(jobs, ranges, done)


def _take_outdated(
    done: list[release_depth.Made],
    missing: list[Shard],
    depths: Mapping[tuple[str, str], Depth],
) -> list[str]:
    """Move shards that were made with another range of samples from `done` to `missing`."""
    old = [made for made in done if release_depth.outdated(made, depths)]
    for made in old:
        done.remove(made)
        missing.append(made[0])
    return [f"{shard.name} is made again: the release uses another range." for shard, _ in old]


def _refuse_other_parameters(out: Path, parameters: dict[str, Any]) -> None:
    saved = out / RECORD
    if not any((out / shards.FOLDER).glob("*.arrayrecord")):
        return  # nothing was made yet
    before = _saved_parameters(out)
    if before is None:
        raise WorkdirError(
            f"{out} holds shards, and {saved} does not say how they were made: it is missing or"
            " damaged, and so are their descriptions. Choose another --out, or delete the folder."
        )
    differing = [
        f"{key} is {before.get(key)!r} there and {parameters[key]!r} now"
        for key in sorted(parameters)
        if before.get(key) != parameters[key] and key != _FACE_FILE
    ]
    if not differing and before.get(_FACE_FILE) != parameters[_FACE_FILE]:
        differing = [
            f"the content of {'--landmarks' if parameters['faces'] == 'landmarks' else 'the files'}"
            " by which faces are found has changed"
        ]
    if differing:
        raise WorkdirError(
            f"{out} was prepared with other parameters: {'; '.join(differing)}. Choose another"
            f" folder, for example --out={out}_2, or delete this one."
        )


def _saved_parameters(out: Path) -> dict[str, Any] | None:
    """The parameters that a folder was prepared with; where its record is damaged, of a shard."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(read_regular(out / RECORD))
        if isinstance(content, dict) and not is_damaged(content):
            parameters = content.get("parameters")
            if isinstance(parameters, dict):
                return parameters
    descriptions = map(shards.description, sorted((out / shards.FOLDER).glob("*.json")))
    return next((each["parameters"] for each in descriptions if each is not None), None)


def _record(
    options: Options, parameters: dict[str, Any], outcome: Outcome | None = None
) -> dict[str, Any]:
    """Make the content of `preparation.json`."""
    record: dict[str, Any] = {
        "mexjax": importlib.metadata.version("mexjax"),
        "parameters": parameters,
        "inputs": [
            {
                "dataset": release.name,
                "root": str(release.root),
                "spreadsheet": str(release.spreadsheet or ""),
                **({"layout": release.layout} if release.layout else {}),
            }
            for release in options.inputs
        ],
        "is_finished": outcome is not None,
    }
    if outcome is not None:
        table = outcome.manifest
        record |= {
            "num_clips": len(table),
            "num_frames": int(table["num_stored"].to_numpy(int).sum()),
            "clips": {str(k): int(v) for k, v in table["dataset"].value_counts().items()},
            "landmark_sources": {
                str(k): int(v) for k, v in table["landmark_source"].value_counts().items()
            },
            "problems": list(outcome.found.problems),
            "failed": [dataclasses.asdict(item) for item in outcome.failed],
        }
    return record

"""Shards: files of a few clips each that appear whole, so that a killed preparation can go on.

A shard is finished when both `<dataset>-00000.arrayrecord` and its `.json` are there and the hash
in the second is that of the first. Both are renamed into place, the `.json` last.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mexjax.data import records
from mexjax.errors import WorkdirError
from mexjax.files import (
    TEMPORARIES,
    atomic,
    file_digest,
    is_damaged,
    read_regular,
    sealed,
    temporary,
)
from mexjax.prepare.cropping import Crop, Failure, Job
from mexjax.prepare.fingerprints import fingerprint, is_outdated

# A group holds one clip, so that it is read alone. PNG does not get smaller by compression.
WRITER_OPTIONS = "group_size:1,uncompressed"
FOLDER = "frames"
SEAL = "description_sha256"  # digest of the other entries of a description; `sha256` is the file's


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file that will be written, and the clips that belong in it.

    Attributes:
      path: the ArrayRecord file.
      jobs: its clips in order.
    """

    path: Path
    jobs: tuple[Job, ...]

    @property
    def name(self) -> str:
        """The path relative to the prepared dataset, as in the manifest."""
        return f"{FOLDER}/{self.path.name}"


def plan_shards(out: Path, jobs: Sequence[Job], clips_per_shard: int) -> list[Shard]:
    """Cut the clips of each dataset, in their order, into shards."""
    by_dataset: dict[str, list[Job]] = {}
    for job in jobs:
        by_dataset.setdefault(str(job.row["dataset"]), []).append(job)
    shards = []
    for dataset, members in by_dataset.items():
        for number, start in enumerate(range(0, len(members), clips_per_shard)):
            path = out / FOLDER / f"{dataset}-{number:05d}.arrayrecord"
            shards.append(Shard(path, tuple(members[start : start + clips_per_shard])))
    return shards


def write_shard(
    shard: Shard, items: Iterable[Crop | Failure], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the clips that succeed, each as soon as it comes; no file if none does.

    Returns:
      The description, as in the `.json`: schema_version, sha256 and num_bytes of the file,
      parameters, clips (in the order of the records), failed.

    Raises:
      WorkdirError: the disk is full or the folder cannot be written.
    """
    out, clips, failed = shard.path.parents[1], [], []
    with temporary(shard.path) as place:
        with writing(out):
            shard.path.parent.mkdir(parents=True, exist_ok=True)
            # The old description goes first: it must never lie beside a file it does not describe.
            records.index_path(shard.path).unlink(missing_ok=True)
            writer = ArrayRecordWriter(str(place), WRITER_OPTIONS)
        for item in items:
            if isinstance(item, Failure):
                failed.append(dataclasses.asdict(item))
                continue
            with writing(out):
                writer.write(item.record)
            clips.append(_describe(item))
        with writing(out):
            writer.close()
            _check_written(place, clips)
            with open(place, "rb") as file:
                os.fsync(file.fileno())
            about = {
                "schema_version": records.SCHEMA_VERSION,
                "sha256": file_digest(place),
                "num_bytes": place.stat().st_size,
                "parameters": dict(parameters),
                "clips": clips,
                "failed": failed,
            }
            if not clips:
                shard.path.unlink(missing_ok=True)
                return about
            os.replace(place, shard.path)
    write_json(records.index_path(shard.path), sealed(about, SEAL))
    return about


def all_finished(
    plan: Sequence[Shard], parameters: Mapping[str, Any]
) -> Iterator[tuple[Shard, tuple[dict[str, Any] | None, str]]]:
    """Yield each shard with what `finished` returns for it."""
    # Files are read whole for their digests, in which threads do not hold the interpreter's lock.
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield from zip(plan, pool.map(lambda each: finished(each, parameters), plan), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def finished(shard: Shard, parameters: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Return the description of a finished shard, or None and why it has to be made (again).

    A shard is made again if it is damaged, or if its clips, their annotation or the content of
    their files are not those it was made from (also for a clip that failed, because the fault may
    have been mended).
    Files that are not there any more change nothing: a release may be put away once it is prepared,
    and a disk that is not mounted must not cost what was made from it.
    """
    beside = records.index_path(shard.path)
    if not shard.path.is_file() or not beside.is_file():
        return None, ""
    about = description(beside)
    try:
        if about is None or file_digest(shard.path) != about["sha256"]:
            return None, "it is damaged"
        if about["parameters"] != dict(parameters):
            return None, "it was made with other parameters"
        clips = [*about["clips"], *about["failed"]]
        inputs = {clip["id"]: clip["inputs"] for clip in clips}
    except (OSError, KeyError, TypeError):
        return None, "it is damaged"
    if sorted(inputs) != sorted(job.id for job in shard.jobs):
        return None, "its list of clips has changed"
    for job in shard.jobs:
        now, before = fingerprint(job).inputs, str(inputs[job.id])
        if not now or now == before:
            continue
        if is_outdated(before):
            return None, "an older version made it, which did not compare the content of files"
        return None, f"the frames or the annotation of {job.id} have changed"
    return about, ""


def description(beside: Path) -> dict[str, Any] | None:
    """The description of a shard; None if it is missing or damaged."""
    try:
        content = json.loads(read_regular(beside))
    except (OSError, ValueError, RecursionError):
        return None
    # One of an older version has no digest; its entries must at least be there.
    is_whole = isinstance(content, dict) and not is_damaged(content, SEAL)
    return content if is_whole and isinstance(content.get("parameters"), dict) else None


def remove_leftovers(out: Path, shards: Sequence[Shard]) -> None:
    """Delete what dead processes left half-written, and shards that are no longer planned."""
    paths = {shard.path for shard in shards}
    folder = out / FOLDER
    with writing(out):
        for path in folder.glob(TEMPORARIES):
            pid = path.name.split(".")[-2]
            if not (pid.isdecimal() and psutil.pid_exists(int(pid))):
                path.unlink(missing_ok=True)
        for path in folder.glob("*.arrayrecord"):
            if path not in paths:
                remove(path)


def remove(path: Path) -> None:
    """Delete a shard and its description."""
    records.index_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that appears whole."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole."""
    with writing(path.parent), atomic(path) as file:
        file.write(text)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn every error of the system about a full or read-only disk into one message.

    Raises:
      WorkdirError: in place of OSError, and of the RuntimeError of the ArrayRecord library.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException = error
        while isinstance(cause, WorkdirError) and isinstance(cause.__cause__, OSError):
            cause = cause.__cause__
        why = getattr(cause, "strerror", None) or str(cause).partition(";")[0]
        if isinstance(cause, IsADirectoryError):
            why += f" ({cause.filename2 or cause.filename})"
        raise WorkdirError(
            f"Cannot write to {out}: {why}. Free space, or choose another --out; the same"
            " command goes on from the shards that are finished."
        ) from error


def _check_written(path: Path, clips: Sequence[Mapping[str, Any]]) -> None:
    """Read the file back: the writer works in the background and a full disk may pass it by."""
    reader = ArrayRecordReader(str(path), records.READER_OPTIONS)
    is_whole = reader.ok() and reader.num_records() == len(clips)
    for position, clip in enumerate(clips):
        if not is_whole or _sha256(reader.read([position])[0]) != clip["sha256"]:
            raise RuntimeError(f"{path.name} does not read back as it was written")
    reader.close()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _describe(crop: Crop) -> dict[str, Any]:
    return {
        "id": crop.id,
        "sha256": crop.sha256,
        "num_bytes": len(crop.record),
        "num_stored": crop.num_stored,
        "landmark_source": crop.landmark_source,
        "notes": list(crop.notes),
        "inputs": crop.inputs,
        "content": crop.content,
        "kinds": list(crop.kinds),
        "bits": crop.depth.bits,
        "white": crop.depth.white,
        "matrix": crop.matrix.tolist(),
        "matrix_before": None if crop.matrix_before is None else crop.matrix_before.tolist(),
    }

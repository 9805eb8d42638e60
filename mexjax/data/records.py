"""Prepared clips on disk: ArrayRecord files of safetensors, read at random.

A record is one clip: the bytes of a safetensors file (https://github.com/huggingface/safetensors:
eight bytes of length, a JSON header, raw arrays; nothing in it can run) with

    png              u8[*]        one PNG file a frame, one after the other
    png_sizes        i64[T]       bytes of each
    numbers          i64[T]       number of each frame as in the release
    landmarks        f32[K,68,2]  x, y in px of the crop
    landmark_frames  i64[K]       the frames that these belong to

and, as metadata, `clip`: JSON with the `id` of the clip and the `schema_version`. The annotation of
a clip (onset, apex, offset, fps) is in the manifest, not here. Beside every
`x.arrayrecord` lies `x.json` with the ids of its clips in the order of the records.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordReader

from mexjax.data.clip_frames import ClipFrames
from mexjax.errors import DataError
from mexjax.files import check_regular, read_regular

SCHEMA_VERSION = 1
MANIFEST, RECORD = "manifest.parquet", "preparation.json"  # files of a prepared folder
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # for access at random
MAX_SIDE_PX = 4096  # this program makes no larger crop
_ADVICE = "Delete the shard and its .json and run the preparation again: it makes that one anew."

# These settings write faces of 256 px a quarter faster than OpenCV's own, and a little smaller:
# sensor noise leaves no repetitions worth a search. Older versions choose the filter themselves.
_PNG_OPTIONS = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _PNG_OPTIONS += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG]

Row = Mapping[Any, Any]  # a row of the manifest


def clip_id(row: Row) -> str:
    """`subject/clip` of a manifest row: unique over all datasets."""
    return f"{row['subject']}/{row['clip']}"


def encode(clip: ClipFrames) -> bytes:
    """The record of a clip; equal clips give equal bytes."""
    pngs = [encode_frame(frame) for frame in clip.frames]
    return pack(clip.id, pngs, clip.numbers, clip.landmarks, clip.landmark_frames)


def encode_frame(frame: np.ndarray) -> np.ndarray:
    """u8[H, W, C] (RGB, or luma with C = 1) as the u8[*] of a PNG file."""
    image = frame if frame.shape[-1] == 1 else cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image, _PNG_OPTIONS)[1].reshape(-1)


def pack(
    name: str,
    pngs: Sequence[np.ndarray],
    numbers: Sequence[int] | np.ndarray,
    landmarks: np.ndarray,
    landmark_frames: Sequence[int] | np.ndarray,
) -> bytes:
    """The record of a clip whose frames are PNG files already.

    Args:
      name: id of the clip.
      pngs: T arrays u8[*].
      numbers: i64[T].
      landmarks: f[K, 68, 2] in px of the crop.
      landmark_frames: i64[K].
    """
    arrays = {
        "png": np.concatenate(pngs),
        "png_sizes": np.array([png.size for png in pngs], np.int64),
        "numbers": np.asarray(numbers, np.int64),
        "landmarks": np.ascontiguousarray(landmarks, np.float32),
        "landmark_frames": np.asarray(landmark_frames, np.int64),
    }
    # There is one entry, because several come out in any order, and equal clips must give equal
    # bytes.
    metadata = json.dumps({"id": name, "schema_version": SCHEMA_VERSION})
    return safetensors.numpy.save(arrays, {"clip": metadata})


def decode(data: bytes, row: Row, *, nearest: Sequence[int] | None = None) -> ClipFrames:
    """The clip in a record.

    Args:
      data: the record.
      row: its row of the manifest; a `sha256` in it must be that of `data`.
      nearest: frame numbers; decode only the frames nearest to them, each once, in time order.

    Raises:
      DataError: a damaged record, one of another clip or of another version, or no frame number.
    """
    name = clip_id(row)
    if row.get("sha256") and hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise _damaged(name, row, "its bytes are not those that the manifest has the hash of")
    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["clip"])
        stored_name, version = metadata["id"], int(metadata["schema_version"])
        arrays = safetensors.numpy.load(data)
        png, numbers = arrays["png"], arrays["numbers"]
        ends = np.cumsum(arrays["png_sizes"])
        landmarks, landmark_frames = arrays["landmarks"], arrays["landmark_frames"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(name, row, f"it is not a record of a clip ({error})") from error
    if version != SCHEMA_VERSION:
        raise DataError(
            f"The record of clip {name} has layout version {version}, this mexjax reads"
            f" {SCHEMA_VERSION}. Prepare the dataset again, into another folder."
        )
    if stored_name != name:
        raise _damaged(name, row, f"it holds clip {stored_name}")
    if not len(numbers) == len(ends) > 0 or ends[-1] != png.size or (np.diff(ends) <= 0).any():
        raise _damaged(name, row, "the sizes of its frames contradict each other")
    rows = np.arange(len(ends))
    if nearest is not None:
        rows = np.unique([np.abs(numbers - number).argmin() for number in nearest])
    starts = np.concatenate([[0], ends[:-1]])
    frames: np.ndarray | None = None
    for place, i in enumerate(rows):
        frame = _decode_frame(png[starts[i] : ends[i]])
        if frame is None or (frames is not None and frame.shape != frames.shape[1:]):
            raise _damaged(name, row, f"its frame {i} is no image like the others")
        if frames is None:
            frames = np.empty((len(rows), *frame.shape), np.uint8)
        frames[place] = frame
    if frames is None:
        raise DataError(f"No frame of clip {name} was asked for. Give at least one frame number.")
    return ClipFrames(
        id=name,
        frames=frames,
        numbers=numbers[rows],
        onset=int(row["onset"]),
        apex=int(row["apex"]),
        offset=int(row["offset"]),
        fps=float(row["fps"]),
        landmarks=landmarks,
        landmark_frames=landmark_frames,
    )


def load_clip(root: str | Path, row: Row, *, nearest: Sequence[int] | None = None) -> ClipFrames:
    """Read one clip of a prepared dataset.

    Args:
      root: folder of the dataset.
      row: its row of the manifest, as a Series or a dict.
      nearest: frame numbers; decode only the frames nearest to them, see `decode`.

    Raises:
      DataError: the shard is missing or damaged, or does not hold the clip.
    """
    path, position, _ = _locate(Path(root), row)
    try:
        check_regular(path)  # the reader would wait for the writer of a FIFO
        reader = ArrayRecordReader(str(path), READER_OPTIONS)
        data = reader.read([position])[0]
        reader.close()  # a reader that failed cannot be closed, only dropped
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise _damaged(clip_id(row), row, str(error)) from error
    return decode(data, row, nearest=nearest)


def index_path(shard: Path) -> Path:
    """The description beside a shard."""
    return shard.with_suffix(".json")


def _locate(root: Path, row: Row) -> tuple[Path, int, int]:
    """Path of the shard with the clip, its position there, and the number of clips there."""
    name, root = clip_id(row), root.resolve()
    try:
        path = (root / str(row["shard"])).resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise DataError(
            f"Clip {name} should be in {root / str(row['shard'])}, which cannot be read. {_ADVICE}"
        ) from error
    if not row["shard"] or not path.is_relative_to(root):
        raise DataError(
            f"Clip {name} names the shard {row['shard']!r}, which is not a file under {root}."
            " Prepare the dataset again: python -m mexjax.prepare."
        )
    beside = index_path(path)
    try:
        positions = _positions(path, beside, beside.stat().st_mtime_ns, path.stat().st_size)
    except OSError as error:
        raise DataError(
            f"Clip {name} should be in {path}, and {error.filename} cannot be read"
            f" ({error.strerror}). Run the preparation again: it makes what is missing."
        ) from error
    if name not in positions:
        raise _damaged(name, row, f"{beside.name} does not list it")
    return path, positions[name], len(positions)


@functools.lru_cache(maxsize=4096)
def _positions(path: Path, beside: Path, mtime_ns: int, size: int) -> dict[str, int]:
    """Id of each clip of a shard -> its position; the last two arguments tell versions apart."""
    try:
        ids = [clip["id"] for clip in json.loads(read_regular(beside))["clips"]]
        return {name: position for position, name in enumerate(ids)}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{beside} does not describe a shard ({error}). {_ADVICE}") from error


def _decode_frame(png: np.ndarray) -> np.ndarray | None:
    """u8[H, W, C], or None if it is no PNG image of one or three 8-bit channels."""
    header = png[:24].tobytes()
    if header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 24:
        return None
    sides = (int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big"))
    if not 0 < min(sides) <= max(sides) <= MAX_SIDE_PX:
        return None
    image = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8:
        return None
    if image.ndim == 2:
        return image[..., None]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.shape[2] == 3 else None


def _damaged(name: str, row: Row, why: str) -> DataError:
    return DataError(
        f"The record of clip {name} in {row.get('shard', '')} is damaged: {why}. {_ADVICE}"
    )

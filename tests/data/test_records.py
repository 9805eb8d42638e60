"""Records: what is written is read; what is damaged is told."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from mexjax.data import records
from mexjax.data.clip_frames import ClipFrames
from mexjax.errors import DataError
from mexjax.prepare import shards
from mexjax.prepare.cropping import Crop, Failure, Job

PARAMETERS = {"size_px": 24}


def make_clip(index: int, *, num_frames: int = 5, channels: int = 1, size: int = 24) -> ClipFrames:
    rng = np.random.default_rng(index)
    onset = 10 * index
    return ClipFrames(
        id=f"casme2/{index % 3:02d}/EP{index:02d}",
        frames=rng.integers(0, 256, (num_frames, size, size, channels), np.uint8),
        numbers=np.sort(rng.choice(np.arange(onset, onset + 9), num_frames, replace=False)),
        onset=onset,
        apex=onset + 4,
        offset=onset + 8,
        fps=200.0,
        landmarks=rng.uniform(0, size, (2, 68, 2)).astype(np.float32),
        landmark_frames=np.array([onset, onset + 4]),
    )


def make_row(clip: ClipFrames, **more: object) -> dict:
    subject, _, name = clip.id.rpartition("/")
    fields = ("onset", "apex", "offset", "fps")
    return {"subject": subject, "clip": name, **{f: getattr(clip, f) for f in fields}, **more}


def write(root, clips, *, per_shard=3) -> pd.DataFrame:
    """The clips as shards; their manifest."""
    rows = []
    for start in range(0, len(clips), per_shard):
        part = clips[start : start + per_shard]
        path = root / "frames" / f"casme2-{start:05d}.arrayrecord"
        jobs = tuple(Job("casme2", root, make_row(clip)) for clip in part)
        shard = shards.Shard(path, jobs)
        crops = []
        for clip in part:
            data = records.encode(clip)
            digest = hashlib.sha256(data).hexdigest()
            crops.append(
                Crop(
                    clip.id, data, digest, len(clip.frames), "landmarks", (), "x", "y", np.eye(2, 3)
                )
            )
            rows.append(make_row(clip, shard=shard.name, sha256=digest))
        assert len(shards.write_shard(shard, crops, PARAMETERS)["clips"]) == len(part)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    clips = [make_clip(i) for i in range(11)]
    return root, clips, write(root, clips)


def same(a: ClipFrames, b: ClipFrames) -> None:
    for field in dataclasses.fields(ClipFrames):
        x, y = getattr(a, field.name), getattr(b, field.name)
        np.testing.assert_array_equal(x, y)
        if isinstance(y, np.ndarray):
            assert x.dtype == y.dtype, field.name


@pytest.mark.parametrize("channels", [1, 3])
def test_a_record_gives_the_clip_back(channels):
    clip = make_clip(4, channels=channels)
    data = records.encode(clip)
    assert data == records.encode(clip)
    same(records.decode(data, make_row(clip)), clip)


def test_every_clip_is_found_by_its_row(prepared):
    root, clips, manifest = prepared
    for i in (10, 0, 7, 3):
        same(records.load_clip(root, manifest.iloc[i]), clips[i])
    # A manifest that was filtered or sorted still finds its clips.
    shuffled = manifest.sample(frac=1, random_state=0)
    same(records.load_clip(root, shuffled.iloc[2]), clips[int(shuffled.index[2])])


def test_single_frames_are_found_by_number(prepared):
    root, clips, manifest = prepared
    clip = clips[5]
    numbers = clip.numbers
    wanted = (numbers[-1] + 9, numbers[0] - 1, numbers[2], numbers[2])
    found = records.load_clip(root, manifest.iloc[5], nearest=wanted)
    assert found.numbers.tolist() == [numbers[0], numbers[2], numbers[-1]]
    np.testing.assert_array_equal(found.frames, clip.frames[[0, 2, -1]])
    with pytest.raises(DataError, match=f"No frame of clip {clip.id} was asked for"):
        records.load_clip(root, manifest.iloc[5], nearest=())


def test_a_record_must_be_that_of_its_row():
    clip = make_clip(1)
    data = records.encode(clip)
    row = make_row(clip, sha256="0" * 64, shard="frames/casme2-00000.arrayrecord")
    with pytest.raises(DataError, match=r"casme2/01/EP01 in frames/casme2-0.*hash.*run the prep"):
        records.decode(data, row)
    with pytest.raises(DataError, match="it holds clip casme2/01/EP01"):
        records.decode(data, make_row(make_clip(2)))


def edited(data: bytes, **changes: object) -> bytes:
    """The same record with other arrays or metadata."""
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["clip"])
    arrays = dict(safetensors.numpy.load(data))
    for key, value in changes.items():
        (metadata if key in metadata else arrays)[key] = value
    return safetensors.numpy.save(arrays, {"clip": json.dumps(metadata)})


def with_size(png: bytes, width: int, height: int) -> np.ndarray:
    return np.frombuffer(png[:16] + struct.pack(">II", width, height) + png[24:], np.uint8)


def test_hostile_and_damaged_records():
    clip = make_clip(1, num_frames=1)
    row, data = make_row(clip), records.encode(clip)
    png = records.encode_frame(clip.frames[0]).tobytes()
    sizes = np.array([len(png)])
    bad = {
        "it is not a record of a clip": [b"", data[:100], b"\xff" * 64, b"\x00" * 64],
        "layout version 7": [edited(data, schema_version=7)],
        "contradict each other": [
            edited(data, png_sizes=sizes - 1),
            edited(data, numbers=np.arange(2)),
            edited(data, png_sizes=np.array([len(png) + 5, -5]), numbers=np.arange(2)),
        ],
        "its frame 0 is no image": [
            edited(data, png=with_size(png, 1_000_000, 1_000_000)),
            edited(data, png=np.zeros(len(png), np.uint8)),
        ],
    }
    for message, records_ in bad.items():
        for hostile in records_:
            with pytest.raises(DataError, match=message):
                records.decode(hostile, row)
    other = records.encode_frame(clip.frames[0][:12, :12])
    two = edited(
        data,
        png=np.concatenate([np.frombuffer(png, np.uint8), other]),
        png_sizes=np.array([len(png), other.size]),
        numbers=np.arange(2),
    )
    with pytest.raises(DataError, match="its frame 1 is no image like the others"):
        records.decode(two, row)


def test_paths_in_a_manifest_stay_under_its_root(prepared, tmp_path):
    root, _, manifest = prepared
    row = manifest.iloc[0].to_dict()
    (tmp_path / "frames").mkdir()
    for shard in ("../x.arrayrecord", "/etc/passwd", ""):
        with pytest.raises(DataError, match=r"which is not a file under"):
            records.load_clip(root, row | {"shard": shard})
    with pytest.raises(DataError, match=r"cannot be read.*Run the preparation again"):
        records.load_clip(tmp_path, row)


def test_a_damaged_shard_names_the_clip(tmp_path):
    clips = [make_clip(i, size=64) for i in range(3)]
    manifest = write(tmp_path, clips)
    path = tmp_path / manifest["shard"][0]
    whole = path.read_bytes()
    record = records.encode(clips[1])
    at = whole.index(record[-400:]) + 200  # in the landmarks or pixels of clip 1
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(DataError, match=r"record of clip casme2/01/EP01.*is damaged"):
        records.load_clip(tmp_path, manifest.iloc[1])
    same(records.load_clip(tmp_path, manifest.iloc[2]), clips[2])
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged"):
        records.load_clip(tmp_path, manifest.iloc[0])
    index = records.index_path(path)
    for text in ("{}", '{"clips": [{"id": [null]}]}'):
        index.write_text(text)
        with pytest.raises(DataError, match=r"does not describe a shard.*Delete the shard"):
            records.load_clip(tmp_path, manifest.iloc[0])


def test_a_shard_without_its_failed_clips(tmp_path):
    clip = make_clip(0)
    data = records.encode(clip)
    crop = Crop(
        clip.id, data, hashlib.sha256(data).hexdigest(), 5, "landmarks", (), "x", "", np.eye(2, 3)
    )
    job = Job("casme2", tmp_path, make_row(clip))
    shard = shards.Shard(tmp_path / "frames" / "casme2-00000.arrayrecord", (job, job))
    written = shards.write_shard(shard, [Failure("casme2/01/EP09", "broken"), crop], PARAMETERS)
    assert [c["id"] for c in written["clips"]] == [clip.id]
    same(records.load_clip(tmp_path, make_row(clip, shard=shard.name)), clip)
    assert not shards.write_shard(shard, [Failure("casme2/01/EP09", "broken")], PARAMETERS)["clips"]
    assert not list((tmp_path / "frames").iterdir())


def test_a_shard_that_is_a_link_to_itself_is_damaged(tmp_path):
    table = write(tmp_path, [make_clip(0)])
    shard = tmp_path / table["shard"][0]
    shard.unlink()
    shard.symlink_to(shard.name)
    with pytest.raises(DataError, match=r"should be in .*cannot be read\. Delete the shard"):
        records.load_clip(tmp_path, table.iloc[0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_a_shard_that_is_a_fifo_is_not_waited_for(tmp_path):
    table = write(tmp_path, [make_clip(0)])
    shard = tmp_path / table["shard"][0]
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(DataError, match="no regular file"):
        records.load_clip(tmp_path, table.iloc[0])

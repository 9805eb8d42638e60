"""Checkpoints of a group: what is damaged is never restored, and nothing hides another error."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mexjax import processes
from mexjax.errors import (
    CheckpointError,
    DivergedError,
    WorkdirError,
)
from mexjax.train import checkpoint
from mexjax.train.checkpoint import GroupCheckpoints


# After a read that fails, other reads of orbax end when its event loop is closed already.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_in_a_checkpoint_falls_back_to_the_older_one(tmp_path, caplog):
    """Any bit of any file: the state is the one that was saved, or the one before."""
    rng = np.random.default_rng(0)
    tree = {"a": rng.normal(size=(16, 16)).astype(np.float32), "b": np.ones(3, np.int32)}
    saved = GroupCheckpoints(tmp_path / "saved")
    for position in (1, 2):
        saved.save(position, {"a": tree["a"] * position, "b": tree["b"]})
    saved.close()
    files = [p.relative_to(tmp_path / "saved") for p in (tmp_path / "saved" / "2").rglob("*")]
    files = sorted(p for p in files if (tmp_path / "saved" / p).is_file())
    fallbacks = 0
    for number in range(16):
        folder = tmp_path / f"copy_{number}"
        shutil.copytree(tmp_path / "saved", folder)
        file = folder / files[number % len(files)]
        content = bytearray(file.read_bytes())
        if not content:
            continue
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        checkpoints = GroupCheckpoints(folder)
        position, restored = checkpoints.restore(tree)
        checkpoints.close()
        np.testing.assert_array_equal(restored["a"], tree["a"] * position)
        np.testing.assert_array_equal(restored["b"], tree["b"])
        fallbacks += position == 1
    time.sleep(0.2)  # for the reads that end late
    assert fallbacks > 0 and "cannot be read" in caplog.text


def test_arrays_that_are_not_those_saved_are_refused(tmp_path, monkeypatch):
    """A change that the storage does not tell, as of one written in the wrong place."""
    checkpoints = GroupCheckpoints(tmp_path / "group")
    tree = {"a": np.arange(4.0)}
    checkpoints.save(1, tree)
    checkpoints.wait()
    monkeypatch.setattr(checkpoint, "_digest", lambda flat: np.zeros(32, np.uint8))
    with pytest.raises(CheckpointError, match="its arrays are not those that were saved"):
        checkpoints.restore(tree)
    checkpoints.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_a_fifo_in_a_checkpoint_is_not_waited_for(tmp_path):
    checkpoints = GroupCheckpoints(tmp_path / "group")
    tree = {"a": np.arange(4.0)}
    for position in (1, 2):
        checkpoints.save(position, {"a": tree["a"] * position})
    checkpoints.wait()
    victim = max((tmp_path / "group" / "2").rglob("d/*"))
    victim.unlink()
    os.mkfifo(victim)
    position, restored = checkpoints.restore(tree)
    assert position == 1 and restored["a"].tolist() == tree["a"].tolist()
    checkpoints.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["default", "default/_METADATA", "_CHECKPOINT_METADATA", "."])
def test_a_checkpoint_without_a_part_falls_back_to_the_older_one(name, tmp_path):
    checkpoints = GroupCheckpoints(tmp_path / "group")
    tree = {"a": np.arange(4.0)}
    for position in (1, 2):
        checkpoints.save(position, {"a": tree["a"] * position})
    checkpoints.close()
    path = tmp_path / "group" / "2" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with GroupCheckpoints(tmp_path / "group") as checkpoints:
        position, restored = checkpoints.restore(tree)
        np.testing.assert_array_equal(restored["a"], tree["a"] * position)
        checkpoints.save(3, tree)
        checkpoints.wait()
        assert checkpoints.restore(tree)[0] == 3


def test_damaged_checkpoints_leave_no_tracebacks_on_the_terminal(tmp_path, monkeypatch, caplog):
    """Errors of threads and coroutines of orbax are told in one line, and others as ever."""
    passed = []
    monkeypatch.setattr(sys, "unraisablehook", passed.append)
    checkpoint._leave_errors_to_us.cache_clear()
    checkpoints = GroupCheckpoints(tmp_path / "group")
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    tree = {f"a{seed}": jax.random.normal(jax.random.key(seed), 999) for seed in range(8)}
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree)
    for position in (1, 2):
        checkpoints.save(position, tree)
    checkpoints.close()
    for path in (tmp_path / "group" / "2" / "default" / "d").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    with GroupCheckpoints(tmp_path / "group") as checkpoints:
        assert checkpoints.restore(like)[0] == 1
    gc.collect()
    time.sleep(0.2)  # for the reads that end late
    assert not passed and "Traceback" not in caplog.text
    assert "step 2: " in caplog.text and len(caplog.messages[-1]) < 400
    other = types.SimpleNamespace(exc_value=ValueError("another"), exc_traceback=None)
    sys.unraisablehook(other)
    assert passed == [other]


def test_a_file_in_the_place_of_checkpoints_is_told(tmp_path):
    (tmp_path / "group").touch()
    with pytest.raises(WorkdirError, match=r"Cannot keep checkpoints in .*Move what is in the way"):
        GroupCheckpoints(tmp_path / "group")


def test_checkpoints_that_cannot_be_written_hide_no_other_error(tmp_path):
    checkpoints = GroupCheckpoints(tmp_path / "group")

    def fails(*_, **__):
        raise ValueError("Failed to write: No space left on device [os_error_code='28']")

    checkpoints._manager.close = fails
    with pytest.raises(WorkdirError, match=r"group: No space left on device\. Free space"):
        checkpoints.close()
    with pytest.raises(DivergedError), checkpoints:
        raise DivergedError("first")
    checkpoints.remove()
    assert not (tmp_path / "group").exists()


def test_corrupt_checkpoints(tmp_path):
    checkpoints = GroupCheckpoints(tmp_path / "group")
    tree = {"a": np.arange(4.0), "b": np.ones(3, np.int32)}
    for position in (1, 2):
        checkpoints.save(position, {"a": tree["a"] * position, "b": tree["b"]})
    checkpoints.close()

    def damage(position):
        for path in (tmp_path / "group" / str(position)).rglob("*"):
            if path.is_file():
                path.write_bytes(b"damaged")

    damage(2)
    checkpoints = GroupCheckpoints(tmp_path / "group")
    position, found = checkpoints.restore(tree)
    assert position == 1
    np.testing.assert_array_equal(found["a"], tree["a"])
    # The damaged one is gone, so that training on from step 1 can save at step 2 again.
    checkpoints.save(2, tree)
    checkpoints.wait()
    assert checkpoints.restore(tree)[0] == 2
    checkpoints.close()

    damage(1)
    damage(2)
    checkpoints = GroupCheckpoints(tmp_path / "group")
    with pytest.raises(CheckpointError, match=r"No checkpoint in .*group can be read.*Delete that"):
        checkpoints.restore(tree)
    checkpoints.close()


def test_a_file_of_one_process_among_several_is_read_by_one_alone(tmp_path, monkeypatch):
    tree = {"step": jnp.int32(7), "w": jnp.linspace(0, 1, 6).reshape(2, 3), "log": np.arange(3.0)}
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = {
        "step": jax.ShapeDtypeStruct((), jnp.int32, sharding=place),
        "w": jax.ShapeDtypeStruct((2, 3), jnp.float32, sharding=place),
        "log": np.zeros(3),
    }
    monkeypatch.setattr(processes, "count", lambda: 2)
    with GroupCheckpoints(tmp_path) as checkpoints:
        for position in (3, 6, 9):
            checkpoints.save(position, tree | {"step": jnp.int32(position)})
    assert {path.name for path in tmp_path.iterdir()} == {"6.safetensors", "9.safetensors"}
    monkeypatch.undo()
    content = bytearray((tmp_path / "9.safetensors").read_bytes())
    content[-1] ^= 1
    for damage, position in ((b"", 9), (bytes(content), 6)):
        if damage:
            (tmp_path / "9.safetensors").write_bytes(damage)
        with GroupCheckpoints(tmp_path) as checkpoints:
            found, restored = checkpoints.restore(like)
        assert found == position == int(restored["step"])
        np.testing.assert_array_equal(restored["w"], tree["w"])
        assert isinstance(restored["log"], np.ndarray) and restored["w"].sharding == place
    assert [path.name for path in tmp_path.iterdir()] == ["6.safetensors"]

"""Files that appear whole, and nothing beside them."""

from __future__ import annotations

import os

import pytest

from mexjax.errors import WorkdirError
from mexjax.files import (
    TEMPORARIES,
    atomic,
    file_digest,
    read_regular,
    read_sealed,
    replacing,
    temporary,
)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    with atomic(path) as file:
        file.write("whole")
        file.flush()
        assert not path.exists()
        assert [p.name for p in tmp_path.glob(TEMPORARIES)] == [f".a.txt.{os.getpid()}.tmp"]
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_was_there_stays_when_writing_fails(error, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic(path, "wb") as file:
        file.write(b"ne")
        raise error
    with pytest.raises(error), replacing(path) as place:
        place.write_bytes(b"ne")
        raise error
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_the_system_says_becomes_one_error(tmp_path):
    message = r"Cannot write .*a\.txt: No such file"
    with pytest.raises(WorkdirError, match=message), atomic(tmp_path / "nowhere" / "a.txt"):
        pass
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass  # nothing was written


def test_a_library_may_write_the_file(tmp_path):
    with replacing(tmp_path / "a") as place:
        place.write_bytes(b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    with temporary(tmp_path / "b") as place:
        place.write_bytes(b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_what_is_no_file_is_refused_at_once(tmp_path):
    fifo = tmp_path / "data.json"
    os.mkfifo(fifo)
    for read in (read_regular, file_digest):
        for path, words in ((fifo, "no regular"), ("/dev/zero", "no regular"), (tmp_path, "Is a")):
            with pytest.raises(OSError, match=words):
                read(path)
    assert read_sealed(fifo) is None

"""Clips whose names are no UTF-8 or have a meaning elsewhere, and MediaPipe in a notebook."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from small import ROOT

from mexjax.errors import ConfigError
from mexjax.prepare.command import main
from mexjax.prepare.cropping import Settings
from mexjax.prepare.options import Input, Options
from mexjax.prepare.sources import get_source


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name in (b"[x]", b"bad\xff", b"$a_1$"):
        folder = os.path.join(os.fsencode(tmp_path), b"release", b"happiness", name)
        try:
            os.makedirs(folder)
        except OSError:
            pytest.skip("a disk that takes UTF-8 alone")
        for number in range(9):
            image = rng.integers(0, 255, (64, 64), np.uint8)
            with open(os.path.join(folder, b"%03d.png" % number), "wb") as file:
                file.write(cv2.imencode(".png", image)[1].tobytes())
    return tmp_path / "release"


def test_a_name_that_is_no_utf8_is_written_with_its_bytes(root, capsys):
    reading = get_source("folder").read(root)
    assert sorted(reading.table["clip"]) == ["$a_1$", "[x]", "bad%FF"]
    assert main(["--dataset=folder", f"--root={root}", "--check"]) == 0
    assert "bad%FF" in capsys.readouterr().out


def test_a_place_that_is_no_utf8_is_refused_before_the_work(root):
    out = root.parent / os.fsdecode(b"out\xff")
    options = Options((Input("folder", root, None),), out, Settings(), 16, 0)
    with pytest.raises(ConfigError, match="out%FF has bytes in its name that are no UTF-8"):
        options.check()


@pytest.mark.parametrize("backend", ["no_such_backend", "module://nowhere.backend_inline"])
def test_mediapipe_is_imported_with_any_backend(backend, tmp_path):
    """It imports pyplot; the file here is no model, which is said after the import."""
    pytest.importorskip("mediapipe")
    (tmp_path / "model.task").write_bytes(b"no model")
    code = (
        "import sys, pathlib\nfrom mexjax.prepare.mediapipe_faces import MediaPipeFinder\n"
        "try:\n    MediaPipeFinder(pathlib.Path(sys.argv[1]))\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.task")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "DataError\n", done.stderr

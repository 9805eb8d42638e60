"""The command: looking, trying, writing the embedded data as a release, and its messages."""

from __future__ import annotations

import os
import re
import shutil

import pandas as pd
import pytest
from prepared_helpers import (
    NUM_CLIPS,
    arguments,
    clip_folder,
    copy_of,
    manifest_of,
    release,
    run,
)

from mexjax.errors import DataError
from mexjax.lock import FolderLock
from mexjax.prepare import pipeline
from mexjax.prepare.cropping import Cropper, Settings
from mexjax.prepare.inspection import UNPUBLISHED, emotion_table, with_published
from mexjax.prepare.options import Input, Options
from mexjax.prepare.sources.counts import published


@pytest.fixture(scope="module")
def casme2(tmp_path_factory):
    return release("casme2", tmp_path_factory.mktemp("casme2"))


@pytest.fixture
def own_release(casme2, tmp_path):
    """A copy that a test may damage."""
    return copy_of(casme2, tmp_path / "release")


def test_no_clip_at_all(own_release, tmp_path, capsys):
    for image in own_release.root.rglob("*.jpg"):
        image.write_bytes(b"")
    assert run(*arguments("casme2", own_release, tmp_path / "out")) == 2
    assert "None of the 6 clips could be prepared. The first, casme2/" in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.parquet").exists()


def test_a_second_command_in_the_same_folder_is_refused(casme2, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    first = FolderLock(out, "--out")
    assert run(*arguments("casme2", casme2, out)) == 2
    message = f"{out} is in use by process {os.getpid()} on "
    error = capsys.readouterr().err
    assert message in error and f"--out={out}_2" in " ".join(error.split())
    assert [path.name for path in out.iterdir()] == [".lock"]
    first.release()
    assert run(*arguments("casme2", casme2, out)) == 0
    FolderLock(out).release()  # the command has let it go


def test_an_unexpected_error_is_of_its_clip_alone(casme2, tmp_path, monkeypatch, capsys):
    crop, victim = Cropper.crop, casme2.expected["clip"][0]

    def fails(self, job):
        if job.row["clip"] == victim:
            raise RuntimeError("a library\nsays no")
        return crop(self, job)

    monkeypatch.setattr(Cropper, "crop", fails)
    assert run(*arguments("casme2", casme2, tmp_path / "out")) == 1
    assert "RuntimeError: a library says no" in capsys.readouterr().out


def test_check_counts_and_writes_nothing(own_release, tmp_path, capsys):
    before = sorted(own_release.root.rglob("*"))
    given = ["--dataset=casme2", f"--root={own_release.root}"]
    given.append(f"--spreadsheet={own_release.spreadsheet}")
    assert run(*given, "--check") == 0
    said = capsys.readouterr().out
    assert "256 or 255 or 247" in " ".join(said.split())
    assert "casme2: 6 clips, published" in said
    for emotion, count in own_release.expected["emotion"].value_counts().items():
        assert any({emotion, str(count)} <= set(line.split()) for line in said.splitlines())
    assert sorted(own_release.root.rglob("*")) == before
    shutil.rmtree(clip_folder(own_release, own_release.expected.iloc[1]))
    assert run(*given, "--check") == 1
    assert "1 clip without any frames cannot be prepared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "emotions", "subjects"),
    [
        ("casme", UNPUBLISHED, "19"),
        ("casme_sq", UNPUBLISHED, UNPUBLISHED),
        ("fourd", UNPUBLISHED, UNPUBLISHED),
        ("casme2", "63", "26"),
        ("mmew", "72", UNPUBLISHED),
    ],
)
def test_every_cell_of_the_published_counts_is_filled(name, emotions, subjects):
    table = pd.DataFrame({"dataset": [name], "clips": [1], "subjects": [1], "emotion": ["disgust"]})
    known = published()["datasets"][name]
    words = emotion_table(table, known.get("emotions", {}))
    assert words.set_index("emotion")["published"]["disgust"] == emotions
    assert (words["published"] != "").all()
    wide = with_published(table)
    assert wide["published subjects"].tolist() == [subjects]
    assert wide["published clips"].tolist() == [" or ".join(map(str, known["clips"]))]
    assert with_published(table.assign(dataset="csv")).columns.tolist() == table.columns.tolist()


def test_an_emotion_that_is_not_published_counts_none():
    table = pd.DataFrame({"emotion": ["fear", "joy"]})
    words = emotion_table(table, {"fear": 8}).set_index("emotion")["published"]
    assert words.to_dict() == {"fear": "8", "joy": "0"}


def test_dry_run_tries_and_writes_nothing(casme2, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*arguments("casme2", casme2, out, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert f"casme2: {NUM_CLIPS} clips" in said and "3 shards" in said
    assert "face by landmarks" in said and "Nothing was written" in said
    assert not out.exists()


def test_the_embedded_data_as_a_release(tmp_path, capsys):
    out = tmp_path / "release"
    assert run("--dataset=synthetic", "--layout=smic", f"--out={out}") == 0
    said = capsys.readouterr().out
    command = said.split("python -m mexjax.prepare ")[1].split()
    prepared = tmp_path / "prepared"
    given = [text for text in command if not text.startswith("--out")]
    assert run(*given, f"--out={prepared}", "--size_px=32") == 0
    assert len(manifest_of(prepared)) == 8
    assert "  smic: 8 clips, published 164." in capsys.readouterr().out  # the remarks, too
    assert run("--dataset=synthetic", "--layout=smic", f"--out={out}") == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--dataset=casme22"], r"Unknown dataset 'casme22'\. Did you mean 'casme2'"),
        (["--dataset=casme2,samm"], r"2 datasets \(casme2, samm\) and 1 roots"),
        (["--dataset=casme2", "--root=b"], r"1 datasets \(casme2\) and 2 roots"),
        (["--dataset=casme2", "--spreadsheet=a", "--spreadsheet=b"], r"1 datasets and 2 spreadsh"),
        (["--dataset=casme2", "--size_px=4"], r"--size_px must be from 16 to 2048, found 4"),
        (["--dataset=casme2", "--clips-per-shard=0"], r"--clips-per-shard must be 1 or more"),
        (["--dataset=casme2", "--workers=-1"], r"--workers must be 0 or more"),
        (["--dataset=casme2", "--landmarks=none.csv"], r"There is no file none\.csv"),
        (["--dataset=casme2", "--layout=casme2"], r"--layout goes with --dataset=synthetic"),
        (["--dataset=synthetic"], r"--dataset=synthetic --layout=NAME.*casme2"),
        (["--dataset=synthetic", "--layout=casme9"], r"Unknown layout 'casme9'"),
    ],
)
def test_mistakes_end_in_one_message(given, message, tmp_path, capsys):
    root = tmp_path / "release"
    root.mkdir()
    assert run(f"--root={root}", f"--out={tmp_path / 'out'}", *given) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("Error: ") and re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_mistakes_with_folders(casme2, tmp_path, capsys):
    given = ["--dataset=casme2", f"--root={casme2.root}"]
    for more, message in (
        ([], "Where to? Give --out=FOLDER"),
        ([f"--out={casme2.root}/prepared"], "is inside the release"),
        ([f"--out={tmp_path}/file/out"], "Cannot write to"),
    ):
        (tmp_path / "file").write_text("not a folder")
        assert run(*given, "--faces=precropped", *more) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert run("--dataset=casme2", f"--root={tmp_path}/nowhere", f"--out={tmp_path}/out") == 2
    assert "nowhere" in capsys.readouterr().err


def test_one_clip_twice_is_told(casme2, tmp_path):
    twice = (Input("casme2", casme2.root, casme2.spreadsheet),) * 2
    options = Options(twice, tmp_path / "out", Settings(faces="precropped"))
    with pytest.raises(DataError, match=r"was found twice \(6 such clips\)"):
        pipeline.prepare(options)


def test_help_names_every_option(capsys):
    assert run("--help") == 0
    said = capsys.readouterr().out
    for option in ("--dataset", "--landmarker-model", "--check", "--dry-run", "--workers"):
        assert option in said

"""Messages are one line, quote no more than a line, and reach any terminal."""

from __future__ import annotations

import pickle

import pytest
from small import small_config

import mexjax
from mexjax import errors, main
from mexjax.config import find_card, load_config
from mexjax.errors import MexjaxError, one_line, quoted, unknown_name
from mexjax.report.files import read_run

KINDS = [MexjaxError, *MexjaxError.__subclasses__()]
LONG = "x" * 100_000
BAD = ["a\nb", "a\x1b[2Jb", "a\x00b", "a\udcffb", "a\u202eb", "a\rb", "\x9b31m"]
MOST = 1600  # characters of a message, whatever is refused


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [*BAD, LONG, f"found {LONG!r}, sorry", "word " * 10_000])
def test_every_kind_of_error(kind, text):
    error = kind(f"Expected 1, found {text}. Take 1.")
    message = str(error)
    assert len(message) <= MOST and message.isprintable()
    assert message.startswith("Expected 1, found ")
    assert message.endswith("Take 1.")
    message.encode()
    copy = pickle.loads(pickle.dumps(error))  # as from a worker process
    assert type(copy) is kind and str(copy) == message


def test_short_messages_stay_as_they_are():
    text = "Subject's clip 'EP01_01' of Müller's /data/名前 has 3 frames; expected ±4 [x] {y}."
    assert str(MexjaxError(text)) == one_line(text) == text


def test_quotations():
    assert quoted("a'b") == repr("a'b") and quoted(3) == "3"
    assert quoted("a\x1b\n") == r"'a\x1b\n'"
    assert len(quoted(LONG)) == errors.QUOTED and quoted(LONG).startswith("'xxx")
    assert "..." in quoted([0] * 10_000) and len(quoted([0] * 10_000)) == errors.QUOTED


def test_lookups_of_many_names():
    text = unknown_name("subject", LONG, [f"subject_{number:03d}" for number in range(283)])
    assert "and 243 more" in text and len(text) < 1000
    assert "Did you mean 'loso'" in unknown_name("protocol", "losso", ["loso", "kfold"])


@pytest.mark.parametrize("text", [*BAD, LONG, f"/{LONG}", "a/" * 5000])
def test_whatever_is_given_the_message_is_short(text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = [
        lambda: load_config(text),
        lambda: load_config(f"fdp:{text}"),
        lambda: find_card(text),
        lambda: read_run(text),
        lambda: mexjax.write_report(text),
        lambda: load_config("fdp", [f"{text}=1"]),
        lambda: load_config("fdp", [text]),
        lambda: load_config("fdp", {"train.num_epochs": text}),
        lambda: load_config("fdp", {"train.milestones": (text,)}),
    ]
    calls += [
        lambda key=key: mexjax.run(small_config(**{key: text}), tmp_path / "run")
        for key in ("protocol__name", "model__name", "train__optimizer", "precision", "data__name")
    ]
    for call in calls:
        with pytest.raises(MexjaxError) as caught:
            call()
        message = str(caught.value)
        assert len(message) <= MOST and message.isprintable() and "\n" not in message
    for arguments in (
        [f"--config={text}"],
        ["--config=fdp", f"--{text}"],
        [text],
        ["report", text],
        ["prepare", f"--dataset={text}", "--root=."],
        ["prepare", "--dataset=csv", f"--root={text}", "--out=o"],
        ["study", text],
        ["study", "magnify", f"--root={text}"],
        ["study", "magnify", f"--methods={text}"],
    ):
        assert main.main(arguments) == 2, arguments
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and len(lines[0]) <= MOST and lines[0].isprintable()


@pytest.mark.parametrize("text", ["a\x00b", "x" * 300])
def test_folders_that_no_disk_takes(text, tmp_path):
    with pytest.raises(MexjaxError):
        mexjax.run(small_config(), tmp_path / text)

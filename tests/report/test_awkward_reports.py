"""Reports of awkward names, and of folders that cannot be written."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import warnings

import numpy as np
import pytest
import test_report
from rich.console import Console
from test_report import make_run

from mexjax import files
from mexjax.report import figures
from mexjax.report.command import main
from mexjax.report.compare import compare, print_comparison
from mexjax.report.text import print_results
from mexjax.report.write import ReportError, write_report

DATASET = "[x]$a_1$|<b>*"
CLASSES = ("[/happy]", r"$\frac$", "_:smile:_|`{}%")


@pytest.fixture
def awkward(tmp_path, monkeypatch):
    monkeypatch.setattr(test_report, "CLASSES", CLASSES)
    return make_run(tmp_path / "[run]", datasets=(DATASET, "other"), has_figures=True)


def test_names_are_names_everywhere(awkward, capsys):
    assert main([str(awkward)]) == 0
    printed = capsys.readouterr().out
    assert f"fdp (tiny) on {DATASET}" in printed
    assert f"{DATASET}/01" in printed and "[run]" in printed
    # A console that reads markup, as a user of the library may give, reads none in names.
    console = Console(file=io.StringIO(), width=200)
    results = write_report(awkward)
    print_results(results, console=console)
    assert f"{DATASET}/01" in console.file.getvalue()
    text = (awkward / "report.md").read_text()
    assert text.startswith(r"# fdp (tiny) on \[x\]\$a_1\$\|\<b\>\*, loso")
    assert r"| \[/happy\] |" in text and r"| \_:smile:\_\|\`{}% |" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for table in re.findall(r"(?:^\| .*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    assert rows and "<b>" not in text


def test_a_comparison_of_awkward_names(awkward, tmp_path, monkeypatch):
    other = make_run(tmp_path / ":smile:[/b]", datasets=(DATASET, "other"), seed=1, config={"a": 1})
    console = Console(file=io.StringIO(), width=250)
    print_comparison(compare([awkward, other]), console=console)
    assert ":smile:[/b]" in console.file.getvalue() and "[run]" in console.file.getvalue()


@pytest.mark.parametrize("name", ["$x$", r"$\frac$", "$", "_hidden", "a_1 $b^2$", "名前", "\\$"])
def test_pictures_draw_names_as_they_are(name, tmp_path):
    figure = figures.confusion_figure(np.eye(2, dtype=int), [name, "b"], name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save_figure(figure, tmp_path / "a.png")
    labels = figure.axes[0].get_xticklabels()
    assert labels[0].get_text() == name and not labels[0].get_parse_math()
    assert figures.legend_label(name).strip() == name
    assert not figures.legend_label(name).startswith("_")


def test_a_formula_takes_no_other_room_than_its_letters(tmp_path):
    """The width of the text tells how it was drawn: a formula has no dollars."""
    widths = []
    for name in ("$xx$", "SxxS"):
        figure = figures.confusion_figure(np.eye(2, dtype=int), ["a", "b"], name)
        figures.save_figure(figure, tmp_path / "a.png")
        title = figure.axes[0]._left_title
        widths.append(title.get_window_extent(figure.canvas.get_renderer()).width)
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("place", ["figures", "files"])
def test_a_folder_that_cannot_be_written(place, number, tmp_path, monkeypatch, capsys):
    """The numbers are printed all the same, of every run, and their comparison."""
    runs = [make_run(tmp_path / f"run_{seed}", seed=seed, has_figures=True) for seed in (0, 1)]
    results = write_report(runs[0])
    before = {path: path.read_bytes() for path in runs[0].rglob("*") if path.is_file()}
    shutil.rmtree(runs[1] / "figures", ignore_errors=True)

    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    if place == "files":
        monkeypatch.setattr(files.os, "fsync", fails)
    else:
        monkeypatch.setattr(type(tmp_path), "mkdir", fails)
    with pytest.raises(ReportError, match=re.escape(os.strerror(number))) as caught:
        write_report(runs[0])
    assert json.loads(json.dumps(caught.value.results)) == json.loads(json.dumps(results))
    assert main([str(run) for run in runs]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("accuracy") >= 2 and "standard deviation over seeds" in captured.out
    assert "Written" not in captured.out
    errors = captured.err.splitlines()
    assert len(errors) == 2 and all("give its name to mexjax report" in line for line in errors)
    assert {path: path.read_bytes() for path in runs[0].rglob("*") if path.is_file()} == before


def test_a_home_in_the_name_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_run(tmp_path / "run")
    make_run(tmp_path / "other", seed=1)
    assert write_report("~/run")["seed"] == 0
    assert len(compare(["~/run", "~/other"])["groups"][0]["seeds"]) == 2

"""The command line: help, lists, spellings, hints, exit statuses, errors without a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from small import CARD, ROOT

import mexjax
from mexjax import cli, main
from mexjax.config import load_config
from mexjax.data import keyframes
from mexjax.errors import ConfigError, DataError, Interrupted
from mexjax.prepare import command as prepare
from mexjax.prepare.cropping import COLORS
from mexjax.prepare.faces import KINDS
from mexjax.prepare.sources import SOURCES
from mexjax.studies import ac4au_tables, command, options

HELP = [
    ["--help"],
    ["train", "--help"],
    ["--version"],
    ["--list"],
    ["prepare", "--help"],
    ["report", "--help"],
    ["compile", "--help"],
    ["study", "--help"],
    *(["study", name, "--help"] for name in command.STUDIES),
]


def said(capsys) -> str:
    """What was printed to both streams, in one line."""
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def python(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    """A Python process in the checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, **kwargs
    )


def test_help_and_lists_import_no_jax():
    """One process for all of them: it fails at the first one that imports JAX."""
    code = (
        "import sys\n"
        "from mexjax.main import main\n"
        f"for words in {HELP!r}:\n"
        "    assert main(words) == 0, words\n"
        "    slow = {'jax', 'matplotlib', 'grain', 'cv2', 'pandas'} & set(sys.modules)\n"
        "    assert not slow, (words, slow)\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_help_names_cards_variants_and_examples(capsys):
    assert main.main(["--help"]) == 0
    text = said(capsys)
    for word in ("prepare", "study", "fdp", "paper_14m", "--overwrite", "docs/configuration.md"):
        assert word in text
    assert main.main(["prepare", "--help"]) == 0
    text = said(capsys)
    assert all(name in text for name in SOURCES) and "CASME II" in text
    assert "clips of one file on disk" in text


def test_list_shows_what_there_is(capsys):
    assert main.main(["--list"]) == 0
    text = said(capsys)
    for name in (*mexjax.list_models(), *SOURCES, *command.STUDIES, "synthetic_sets"):
        assert name in text
    assert "paper_14m the same without global aggregators" in text


def test_names_that_help_knows_are_those_of_the_readers():
    assert set(prepare.DATASETS) == set(SOURCES)
    for name, title in prepare.DATASETS.items():
        assert title == SOURCES[name].title or title == "SMIC" or title.startswith("your own"), name
    assert (prepare.FACES, prepare.COLORS) == (KINDS, COLORS)
    assert options.PARSERS.keys() == command.STUDIES.keys()
    assert tuple(ac4au_tables.TABLES) == options.TABLES
    assert (options.WINDOWS, options.DIFFERENCES) == (keyframes.WINDOWS, keyframes.DIFFERENCES)


def test_version(capsys):
    assert main.main(["--version"]) == 0
    assert said(capsys) == f"mexjax {mexjax.__version__}"


@pytest.mark.parametrize("module", ["mexjax", "mexjax.main"])
def test_modules_are_the_command(module):
    done = python("-m", module, "--config=fdp", "--train.num_epochs=1")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "Did you mean --config.train.num_epochs=1?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Which recipe card? For example mexjax --config=fdp"),
        (["fdp:paper"], "Did you mean --config=fdp:paper?"),
        (["prepar"], "Unknown command 'prepar'. Did you mean 'prepare'?"),
        (["--config=fdp", "surplus"], "Not understood: surplus."),
        (["--config=fdp", "--overwrit"], "Did you mean --overwrite?"),
        (["--helpfull"], "Did you mean --help?"),
        (["--config=fdp", "--train.num_epochs", "1"], "Did you mean --config.train.num_epochs 1?"),
        (["--config=fdp", "--seed=1"], "Did you mean --config.seed=1?"),
        (["--config=fdp", "--config.seed"], "--config.seed has no value"),
        (["--config=fdp", "--config.seed", "--overwrite"], "--config.seed has no value"),
        (["--config=fdp", "--config.seed=0,1,2"], "seed takes a value of type int"),
        (["--config=configs/common.py"], "Unknown recipe card 'common'"),
        (["--config=fdp", "--config.folds.strategy=pmap"], "Did you mean 'vmap'?"),
        (["report"], "The following arguments are required: workdir. See mexjax report --help."),
        (["report", "nowhere"], "No run folder at"),
        (["report", "a", "--al"], "Not understood: --al."),
        (["study", "magnif"], "Unknown study 'magnif'. Did you mean 'magnify'?"),
        (["study", "magnify", "--root=nowhere"], "nowhere"),
        (["study", "au", "--root=nowhere"], "nowhere"),
        (["study", "keyframes", "--window=inwards"], "invalid choice: 'inwards'"),
        (["study", "ac4au_tables", "--out=o", "--tables", "gama"], "Did you mean 'gamma'?"),
        (["prepare"], "The following arguments are required: --dataset"),
        (["prepare", "--dataset=casme22"], "1 datasets (casme22) and 0 roots"),
    ],
)
def test_mistakes_end_in_one_message(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.main(arguments) == 2
    text = said(capsys)
    assert text.startswith("Error: ") and message in text, text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["CASME2", "CASME II", "casmeii", "casme2", " casme2 "])
def test_prepare_takes_every_known_spelling(name, tmp_path, capsys):
    assert main.main(["prepare", f"--dataset={name}", f"--root={tmp_path}", "--check"]) == 2
    text = said(capsys)
    assert "Unknown dataset" not in text and "CASME II" in text


def test_a_value_may_follow_a_blank():
    overrides, others = cli.split_overrides(
        [
            "--config=fdp",
            "--config.seed",
            "-1",
            "--config.a.b=1 2",
            "--overwrite",
            "--config.c",
            "x",
        ]
    )
    assert overrides == ["seed=-1", "a.b=1 2", "c=x"]
    assert others == ["--config=fdp", "--overwrite"]
    with pytest.raises(ConfigError, match=r"--config\.c has no value"):
        cli.split_overrides(["--config.c"])


def test_train_is_the_default_command(tmp_path, capsys):
    """The value is wrong, so that both ways end soon, with one message and no folder."""
    given = [f"--config={CARD}", f"--workdir={tmp_path}/run", "--config.seed", "-1"]
    for words in ([], ["train"]):
        assert main.main([*words, *given]) == 2
        assert "seed must be at least 0, found -1" in said(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("card", "overrides", "folder"),
    [
        ("fdp", (), "runs/fdp_tiny"),
        ("configs/fdp.py:paper", (), "runs/fdp_paper"),
        ("fdp", ("seed=0", "has_progress=False", "checkpoint.every_epochs=3"), "runs/fdp_tiny"),
        ("fdp", ("seed=1", "model.preset=official"), "runs/fdp_official_seed1"),
        ("fdp", ("data.name=synthetic_sets", "seed=2"), "runs/fdp_tiny_synthetic_sets_seed2"),
        ("fdp", ("protocol.name=kfold_by_subject",), "runs/fdp_tiny_kfold_by_subject"),
    ],
)
def test_the_default_folder_names_what_is_not_the_cards(card, overrides, folder):
    config = load_config(card, overrides)
    assert main.Order(card, overrides, None, False).folder(config) == folder
    assert main.Order(card, overrides, "here", False).folder(config) == "here"


def test_default_folders_of_other_keys_differ():
    """The values count and not their spelling."""
    names = []
    for text in ("0.5", "5e-1", "0.25"):
        overrides = (f"train.learning_rate={text}",)
        names.append(
            main.Order("fdp", overrides, None, False).folder(load_config("fdp", overrides))
        )
    assert names[0] == names[1] != names[2]
    assert all(re.fullmatch("runs/fdp_tiny_[0-9a-f]{6}", name) for name in names)


def test_magnify_writes_a_folder(tmp_path, capsys):
    out = tmp_path / "deep" / "magnified"
    given = ["--clips=1", "--size-px=64", "--methods=linear", f"--out={out}"]
    assert main.main(["study", "magnify", *given]) == 0
    assert (out / "magnify.png").read_bytes().startswith(b"\x89PNG")
    assert "measured displacement" in said(capsys)


def raises(error: BaseException):
    """A command that fails."""

    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (DataError("two\nlines"), 2, "Error: two lines"),
        (FileNotFoundError(2, "No such file", "a.csv"), 2, "Error: a.csv: No such file."),
        (KeyboardInterrupt(), 130, "stopped here"),
        (Interrupted("saved", "SIGTERM"), 143, "saved"),
        (Interrupted("saved", "SIGINT"), 130, "saved"),
        (SystemExit(0), 0, ""),
        (SystemExit(3), 3, ""),
    ],
)
def test_errors_and_their_statuses(error, status, text, capsys):
    assert cli.run_command(raises(error), when_stopped="stopped here") == status
    assert said(capsys) == text


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run_command(raises(ZeroDivisionError()))


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -c 'from mexjax.main import main; import sys\n"
        '[main(["--list"]) for _ in range(40)]; sys.exit(0)\' | head -1',
        shell=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("Cards") and done.stderr == ""


@pytest.mark.parametrize("name", ["ac4au_tables", "au", "keyframes", "magnify", "command"])
def test_studies_print_no_errors_of_their_own(name):
    source = (ROOT / "mexjax" / "studies" / f"{name}.py").read_text()
    assert not re.search(r"except .*MexjaxError|Console\(stderr", source)

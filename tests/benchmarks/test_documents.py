"""Documents say what the results say, and name only commands, cards and files that exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small import ROOT

import mexjax

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = {"train", "prepare", "report", "compile", "study"}
WIDTH = 100


def text_of(document: Path) -> str:
    """The whole text of a document."""
    return document.read_text(encoding="utf-8")


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def document(request) -> Path:
    """Each document in turn."""
    return request.param


def test_tables_come_from_the_committed_files():
    script = ROOT / "benchmarks" / "tables.py"
    check = [sys.executable, str(script), "--check"]
    run = subprocess.run(check, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_every_committed_result_is_shown_by_a_document():
    shown = "".join(map(text_of, DOCUMENTS))
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert file.name in shown, f"{file.name} is superseded: delete it"


@pytest.mark.parametrize(("name", "most"), [("README.md", 150), ("CHANGELOG.md", 40)])
def test_the_front_pages_stay_short(name, most):
    assert len(text_of(ROOT / name).splitlines()) <= most


def test_lines_fit_the_screen(document):
    for line in text_of(document).splitlines():
        assert len(line) <= WIDTH or line.startswith("|"), line


def test_every_local_link_exists(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(document)):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_anchor_is_a_heading(document):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text_of(document)):
        page = document.parent / target if target else document
        headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
        slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert anchor in slugs, f"{target}#{anchor}"


def test_every_script_exists(document):
    for script in re.findall(r"\b((?:benchmarks|launch)/\w+\.(?:py|sh))\b", text_of(document)):
        assert (ROOT / script).is_file(), script


def test_every_module_that_is_run_exists(document):
    for module in re.findall(r"python -m (mexjax[\w.]*)", text_of(document)):
        spec = importlib.util.find_spec(module.rstrip("."))
        assert spec is not None, module
        if spec.submodule_search_locations:
            main = f"{module}.__main__"
            assert importlib.util.find_spec(main) is not None, main


def test_every_subcommand_is_one_of_the_command(document):
    blocks = re.findall(r"```.*?```|`[^`\n]+`", text_of(document), re.DOTALL)
    for command in re.findall(r"(?:^|`)mexjax ([a-z]\w*)", "\n".join(blocks), re.MULTILINE):
        assert command in COMMANDS


def test_every_card_and_key_of_a_command_loads(document):
    text = text_of(document).replace("\\\n", " ")
    for card, rest in re.findall(r"--config=([\w/.:]+)([^\n`#]*)", text):
        name, _, variant = card.partition(":")
        path = name if "/" in name else f"configs/{name}.py"
        overrides = re.findall(r"--config\.([\w.]+=\S+)", rest)
        mexjax.load_config(ROOT / (f"{path}:{variant}" if variant else path), overrides)


def test_every_path_in_the_text_exists(document):
    for path in re.findall(r"`((?:mexjax|configs|tests|docs)/[\w/.]+)`", text_of(document)):
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), path


def test_every_path_inside_the_package_exists(document):
    rooms = "|".join(path.name for path in (ROOT / "mexjax").iterdir() if path.is_dir())
    for path in re.findall(rf"(?<![\w/.])((?:{rooms})/\w+\.(?:py|json))", text_of(document)):
        assert (ROOT / "mexjax" / path).exists(), path


def test_every_name_of_the_package_exists(document):
    for name in re.findall(r"\bmexjax\.([a-z]\w+)\(", text_of(document)):
        assert hasattr(mexjax, name), name


def test_no_sentence_begins_with_of(document):
    prose = re.sub(r"```.*?```", "", text_of(document), flags=re.DOTALL)
    assert not re.search(r"(?:^|\n\n|[.:;] |\| |\n- )Of ", prose)

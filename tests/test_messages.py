"""Options and keys that messages name exist."""

from __future__ import annotations

import ast
import re

import pytest
from small import ROOT

from mexjax import main
from mexjax.config import KEYS
from mexjax.data.synthetic import SyntheticConfig
from mexjax.models import get_model, list_models
from mexjax.prepare import command as prepare
from mexjax.report import command as report
from mexjax.studies import compile_command
from mexjax.studies import options as studies
from mexjax.studies.command import STUDIES

ROOMS = (
    *("prepare", "data", "protocol", "config", "train", "report", "studies", "models"),
    *("interop", "nn", "ops", "cpu", ""),
)
HOLE = "\0"  # stands for a value that an f-string fills in
OPTION = re.compile(r"(?<![\w-])--[A-Za-z][\w.\0-]*")
SECTIONS = sorted({name.partition(".")[0] for name in KEYS if "." in name} - {"model"})
KEY = re.compile(
    rf"(?<![\w./-])(?:{'|'.join(SECTIONS)}|model)\.[a-z_\0]+(?:\.[a-z_\0]+)*(?![\w(/])"
)
# These look like keys and are files of a run, or modules.
FILES = re.compile(r"\.(json|npy|npz|pkl|py|md|csv|parquet|txt|safetensors)$")
# Options of pip, of git and of mexjax.data.synthetic, and a key that a run's file may have.
ELSEWHERE = {"--no-deps", "--always", "--dirty", "--abbrev", "--kind", "data.digest"}


def texts_of(source: str) -> list[str]:
    """String literals that are not docstrings; f-strings have a hole for each value."""
    tree = ast.parse(source)
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else HOLE for p in node.values]
            out.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            out += [node.value] if id(node) not in skipped else []
    return out


def known_keys() -> set[str]:
    names = set(KEYS) | {f"data.synthetic.{field}" for field in SyntheticConfig.__annotations__}
    for model in list_models():
        for options in get_model(model).presets.values():
            names |= {f"model.{field}" for field in vars(options)}
    return names


def known_options() -> set[str]:
    parsers = [prepare.parser(), main.parser(), report.parser(), compile_command.parser()]
    parsers += [getattr(studies, name)() for name in STUDIES]
    return {text for parser in parsers for a in parser._actions for text in a.option_strings}


def problems_in(texts: list[str], options: set[str], keys: set[str]) -> list[str]:
    """Names of options and keys that do not exist; a name with a hole may be any that fits."""

    def exists(name: str, names: set[str]) -> bool:
        pattern = re.compile("".join(".*" if c == HOLE else re.escape(c) for c in name))
        return any(pattern.fullmatch(each) for each in names)

    out = []
    for text in texts:
        for match in OPTION.finditer(text):
            name = match[0].rstrip(".-")
            if name.startswith("--config."):
                key = name.removeprefix("--config.")
                if key != "KEY" and not exists(key, keys):
                    out.append(name)
            elif not exists(option := name.partition(".")[0], options):  # a sentence ends there
                out.append(option)
        for match in KEY.finditer(text):
            name = match[0].rstrip(".")
            name = name.removeprefix("sweep.values.")  # any other key stands behind it
            is_section = any(key.startswith(f"{name}.") for key in keys)
            if not (FILES.search(name) or is_section or exists(name, keys)):
                out.append(name)
    return [name for name in out if name not in ELSEWHERE]


def test_the_search_finds_names_that_do_not_exist():
    source = """
def f(x):
    "Docstrings may say --anything."
    raise DataError(f"Bad {x}. Set --no-such={x}, --config.data.rooot or protocol.claszes=3.")
    raise DataError("Set --root, --config.data.root, protocol.classes or model.weights.")
"""
    assert problems_in(texts_of(source), known_options(), known_keys()) == [
        *("--no-such", "--config.data.rooot", "protocol.claszes"),
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_messages_name_what_exists(room):
    folder = ROOT / "mexjax" / room
    options, keys = known_options(), known_keys()
    problems = {}
    for path in sorted(folder.rglob("*.py") if room else folder.glob("*.py")):
        if names := problems_in(texts_of(path.read_text(encoding="utf-8")), options, keys):
            problems[str(path.relative_to(ROOT))] = names
    assert problems == {}

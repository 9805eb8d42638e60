"""Recipe cards: where they are, what their docstrings say, and their configuration.

A card is a Python file with `get_config(variant: str) -> ConfigDict`. The cards of the package are
in `configs/` of a checkout and in `mexjax/configs/` of an installed wheel; any other file can be
one.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import os
import re
import tokenize
import traceback
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path

from ml_collections import ConfigDict

from mexjax.errors import ConfigError, MexjaxError, beginning, quoted, unknown_name
from mexjax.files import is_file

_LONGEST = 200  # characters of a card's own error in a message
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Card:
    """The contents of a card's docstring; the card is not run for it.

    Attributes:
      name: name of the file, without `.py`.
      path: path of the file.
      title: first line of the docstring.
      variants: name and meaning of each line below `Variants:`.
    """

    name: str
    path: Path
    title: str
    variants: dict[str, str]


def cards_folder() -> Path:
    """The folder of the cards that come with the package."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def list_cards() -> dict[str, Card]:
    """Cards of the package by name, sorted."""
    paths = sorted(cards_folder().glob("*.py"))
    return {path.stem: _read_card(path) for path in paths if not path.stem.startswith("_")}


def find_card(name: str) -> Path:
    """The file of a card.

    Args:
      name: path of a file; or, where there is no such file, a card of the package as `fdp`,
        `fdp.py` or `configs/fdp.py`.

    Raises:
      ConfigError: neither; the message lists the cards of the package.
    """
    path = Path(os.path.expanduser(name))
    try:
        is_there, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise ConfigError(
            f"Cannot read the recipe card {beginning(name)}: {error.strerror}."
        ) from error
    if is_there:
        return path
    if len(path.parts) == 1 or (len(path.parts) == 2 and path.parts[0] == "configs"):
        inside = cards_folder() / f"{path.name.removesuffix('.py')}.py"
        if is_file(inside) and not inside.stem.startswith("_"):
            return inside
    if is_folder:
        cards = sorted(inside.name for inside in path.glob("[!_]*.py"))[:3]
        raise ConfigError(
            f"{name} is a folder; expected a recipe card, which is a Python file"
            + (f", such as {', '.join(cards)} in it." if cards else ".")
        )
    text = unknown_name("recipe card", path.name.removesuffix(".py"), list_cards())
    raise ConfigError(
        f"{text} There is no file {quoted(name)} either (looked from {Path.cwd()}). Give the name"
        " of a card of the package, for example fdp or fdp:paper, or the path of your own card."
    )


def run_card(file: Path, variant: str) -> ConfigDict:
    """Run a card for one variant; the empty one is its default.

    Raises:
      ConfigError: a file that is no Python text, has no `get_config`, fails, or gives no
        ConfigDict; and what the card itself refuses.
    """
    loader = SourceFileLoader(f"_mexjax_card_{file.stem}", str(file))
    module = types.ModuleType(loader.name)
    module.__file__ = str(file)
    try:
        source = file.read_bytes()
        source.decode(tokenize.detect_encoding(io.BytesIO(source).readline)[0])
        # Bytecode is not kept: Python takes it for that of a file changed within the same second.
        exec(loader.source_to_code(source, str(file)), module.__dict__)
        if not callable(getattr(module, "get_config", None)):
            raise ConfigError(f"{file} defines no get_config(variant), so it is not a recipe card.")
        config = module.get_config(variant)
    except MexjaxError:
        raise
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"The recipe card {file} is no text in {error.encoding.upper()} (line {line}): expected"
            " a Python file."
        ) from error
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        kind = type(error).__name__
        raise ConfigError(
            f"The recipe card {file} fails: {kind}{': ' if text else ''}{text}"
            f"{_place(file, error)}."
        ) from error
    if not isinstance(config, ConfigDict) or "model" not in config:
        raise ConfigError(
            f"get_config of {file} gives no configuration; a card begins with"
            " mexjax.models.card.start(name, variant)."
        )
    return config


def _place(file: Path, error: BaseException) -> str:
    """The line of the card that an error comes from, as text."""
    if isinstance(error, SyntaxError) and error.lineno:
        return ""  # its text has the line
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == file]
    return f" (line {lines[-1]})" if lines else ""


def _read_card(path: Path) -> Card:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    variants: dict[str, str] = {}
    _, _, section = text.partition("Variants:\n")
    for line in section.partition("\n\n")[0].splitlines():
        if match := re.fullmatch(r"  (\w+) {2,}(\S.*)", line):
            variants[match[1]] = match[2]
        elif variants:
            variants[list(variants)[-1]] += f" {line.strip()}"
    return Card(path.stem, path, text.partition("\n")[0].rstrip("."), variants)

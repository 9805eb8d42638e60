"""Ways to spoil a file or a value of JSON."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

NONSENSE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**9), 0.5, -0.0, 1e308, 1e-320),
    *(float("nan"), float("inf"), [], {}, [[]], [None], {"a": {}}, [1, "x", None], "x" * 3000),
    *"| |x|0|nan|\x00|a\nb|[/x]|é\u0301\u200b|\ud800|../../x|/dev/zero".split("|"),
)


def spoil(path: Path, chance: random.Random, others: list[Path]) -> str:
    """Spoil a file, and say how.

    Args:
      path: the file.
      chance: random numbers.
      others: files that may take its place.
    """
    is_json = path.suffix == ".json" or path.name.startswith(".")
    ways: list[tuple[int, Callable[[], str]]] = [
        (8, lambda: spoil_bytes(path, chance)),
        (2, lambda: replace(path, chance, others)),
    ]
    if is_json:
        ways.append((14, lambda: spoil_json(path, chance)))
    return chance.choices([way for _, way in ways], [weight for weight, _ in ways])[0]()


def spoil_bytes(path: Path, chance: random.Random) -> str:
    """Change, add or remove bytes."""
    data = bytearray(path.read_bytes())
    way = chance.choice(["flip"] * 6 + ["cut"] * 3 + ["zeros", "insert", "remove", "twice", "end"])
    at = chance.randrange(len(data)) if data else 0
    size = chance.choice([1, 2, 7, 64, 512, 4096])
    if way == "flip" and data:
        places = [chance.randrange(len(data)) for _ in range(chance.choice([1, 1, 1, 2, 8]))]
        for place in places:
            data[place] ^= 1 << chance.randrange(8)
        words = f"bits of the bytes {places} flipped"
    elif way == "cut":
        at = chance.choice([0, at, at, max(len(data) - size, 0)])
        del data[at:]
        words = f"cut at byte {at}"
    elif way == "zeros":
        data[at : at + size] = bytes(len(data[at : at + size]))
        words = f"{size} zeros from byte {at}"
    elif way == "insert":
        data[at:at] = chance.randbytes(size)
        words = f"{size} bytes inserted at {at}"
    elif way == "remove":
        del data[at : at + size]
        words = f"{size} bytes removed at {at}"
    elif way == "twice":
        data += bytes(data)
        words = "written twice"
    else:
        data += chance.choice([b"\n", b"\0", b"x", chance.randbytes(size)])
        words = "something added at the end"
    rewrite(path, bytes(data))
    return f"{path.name}: {words}"


def rewrite(path: Path, data: bytes) -> None:
    """Write a file under its name, without touching another name of the same file."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def replace(path: Path, chance: random.Random, others: list[Path]) -> str:
    """Put something else in the place of a file."""
    way = chance.choice(["absent", "absent", "folder", "loop", "nowhere", "other", "other", "fifo"])
    is_folder = path.is_dir() and not path.is_symlink()
    if way == "other":
        others = [other for other in others if other != path]
        same = [other for other in others if other.suffix == path.suffix]
        other = chance.choice(same or others)
        shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)
        shutil.copyfile(other, path)
        return f"{path.name}: {other.name} in its place"
    shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)
    if way == "folder":
        path.mkdir()
    elif way == "loop":
        path.symlink_to(path.name)
    elif way == "nowhere":
        path.symlink_to("nowhere/at/all")
    elif way == "fifo":
        os.mkfifo(path)
    return f"{path.name}: {way}"


def spoil_json(path: Path, chance: random.Random) -> str:
    """Put a value of another type, or none, somewhere into a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return spoil_bytes(path, chance)
    places = list(_places(content))
    if not places:
        rewrite(path, json.dumps(chance.choice(NONSENSE)).encode())
        return f"{path.name}: another value for all"
    # Places near the top are few and matter most.
    if chance.random() < 0.4:
        places = [place for place in places if len(place[1]) == 1]
    node, keys = chance.choice(places)
    key = keys[-1]
    way = chance.choice(["value"] * 6 + ["remove", "rename", "twice", "empty"])
    if way == "value":
        node[key] = chance.choice(NONSENSE)
    elif way == "remove":
        del node[key]
    elif way == "rename" and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    elif way == "twice" and isinstance(node, list):
        node.append(node[key])
    else:
        node[key] = type(node[key])()
    value = repr(node.get(key, "")) if isinstance(node, dict) else "..."
    rewrite(path, json.dumps(content).encode())
    return f"{path.name}: {way} at {'/'.join(map(str, keys))[:80]}, now {value[:60]}"


def _places(node: Any, keys: tuple[Any, ...] = ()) -> Any:
    """Every entry of a JSON value: its holder and the keys that lead to it."""
    items = node.items() if isinstance(node, dict) else ()
    for key, value in items or (enumerate(node) if isinstance(node, list) else ()):
        yield node, (*keys, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*keys, key))

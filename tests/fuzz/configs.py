"""Configurations: nonsense in any keys of any card, up to everything that is checked before work.

The study is made whole, but its clips are drawn without a face, in no time. The network of some
studies is built in shapes alone.
"""

from __future__ import annotations

import functools
import json
import math
import random
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax.config import KEYS, check_values, flat, list_cards, load_config
from mexjax.data.synthetic import Plan
from mexjax.main import Order
from mexjax.models import get_model, list_models
from mexjax.train.numerics import dtype_of
from mexjax.train.study import Study, make_study

from .damage import NONSENSE
from .harness import SUCCESS, Case, Kind, SilentError

SMALL = {"data.synthetic.num_clips": 24, "data.synthetic.num_subjects": 4}
SHARE_BUILT = 0.04  # of the configurations that are accepted
FREE_BYTES = 2**28  # as if the machine had so much memory left
NUMBERS = (0, 1, -1, 2, 3, 7, 64, 1000, 10**6, 10**7, 2**31, 2**32, 2**63, 10**30, 0.5, 1.5)
NUMBERS += (-0.5, 1e-9, 1e9, 1e38, 1e308, math.nan, math.inf, -math.inf, 0.999999, -1e-300)
TEXTS = (
    *"|".join(
        [
            "| |none|nan|1e999|-1|0|1|1.0|0x10|1_000|٣|½|True|true|no|None|[]|()|(1,)|1,2|1,,2",
            "(1, (2, 3))|a=b|~|~x/y|é|e\u0301|\u200b|[/x]|[bold]|\x00|a\nb|/dev/null|\ud800|1e5|-",
            "{'a': 1}|__import__('os')|1 if 1 else 2|'1'",
        ]
    ).split("|"),
    *("(" * 500, "9" * 400, "x" * 5000),
)


class Configs(Kind):
    """Cards with one to four changed keys, sometimes of another card or of none."""

    def case(self, chance: random.Random, folder: Path) -> Case:
        del folder
        card = chance.choice(cards())
        known = known_values(card)
        keys = [chance.choice(list(known)) for _ in range(chance.choice([1, 1, 2, 2, 3, 4]))]
        if chance.random() < 0.4:  # a neighbour, which contradicts more often
            room = keys[0].rpartition(".")[0]
            keys.append(chance.choice([key for key in known if key.rpartition(".")[0] == room]))
        if chance.random() < 0.08:
            keys.append(stranger(chance))
        pairs: dict[str, Any] = {key: value(chance, key, known.get(key)) for key in keys}
        if chance.random() < 0.03:
            card = odd_card(chance, card)
        is_text = chance.random() < 0.5
        if is_text:
            pairs = {key: as_text(item) for key, item in pairs.items()}
        is_built = chance.random() < SHARE_BUILT
        words = f"{card} {'texts' if is_text else 'values'} {short(pairs)}"
        return Case(words, lambda: act(card, pairs, is_text=is_text, is_built=is_built))


class Networks(Kind):
    """Cards whose paper has one or two other options, near those it had; the network is built."""

    limit_s = 60.0

    def case(self, chance: random.Random, folder: Path) -> Case:
        del folder
        card = chance.choice([f"{name}:tiny" for name in list_models()] * 3 + list(cards()))
        known = {key: old for key, old in known_values(card).items() if key.startswith("model.")}
        others = ["data.image_size_px", "data.num_frames", "augment.crop_px", "protocol.classes"]
        keys = chance.sample([*known, *others], chance.choice([1, 1, 2, 3]))
        known |= {key: known_values(card)[key] for key in others}
        pairs = {key: near(chance, card, key, known[key]) for key in keys}
        return Case(
            f"{card} values {short(pairs)}",
            lambda: act(card, pairs, is_text=False, is_built=True),
        )


def near(chance: random.Random, card: str, key: str, old: Any) -> Any:
    """A value like the one that a key has, or that it has in another preset of the paper."""
    if chance.random() < 0.4:
        presets = get_model(card.partition(":")[0]).presets.values()
        values = [getattr(options, key.rpartition(".")[2], old) for options in presets]
        return chance.choice(values)
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return chance.choice([old + 1, old - 1, old * 2, old // 2, old // 3, 0, 1, 3, 5])
    if isinstance(old, float):
        return chance.choice([old * 2, old / 2, 0.0, 0.3, 1.0])
    if isinstance(old, tuple) and old:
        items = list(old)
        at = chance.randrange(len(items))
        items[at] = near(chance, card, "", items[at])
        ways = [items, items, items, old[1:], (*old, old[-1]), old[::-1], [items[at]] * len(items)]
        return tuple(chance.choice(ways))
    return old


def act(card: str, pairs: dict[str, Any], *, is_text: bool, is_built: bool) -> str:
    """Load, check, lay out and perhaps build."""
    small = {key: item for key, item in SMALL.items() if key not in pairs}
    if is_text:
        changes: Any = [f"{key}={item}" for key, item in (small | pairs).items()]
    else:
        changes = small | pairs
    config = load_config(card, changes)
    check_values(config)
    get_model(config.model.name).options(config.model, dtype_of(config))
    check_kept(config, card, pairs, is_text=is_text)
    if is_text:
        check_folder(Order(card, changes, None, False).folder(config))
    with (
        mock.patch("mexjax.data.view_keys.free_bytes", lambda: FREE_BYTES),
        mock.patch("mexjax.train.plan.free_bytes", lambda: FREE_BYTES),
        mock.patch("mexjax.data.synthetic.dataset.render_clip", draw),
        mock.patch("mexjax.data.synthetic.clip_views.render_clip", draw),
    ):
        study = make_study(config)
    check_study(study)
    if is_built:
        build(study)
    return SUCCESS


def check_kept(config: ConfigDict, card: str, pairs: dict[str, Any], *, is_text: bool) -> None:
    """Every value is finite, of the type of its key, and the one that was given."""
    values, known = flat(config), known_values(card)
    try:
        text = json.dumps(config.to_dict(), allow_nan=False)
    except ValueError as error:
        raise SilentError(f"config.json would hold what JSON has not: {error}") from error
    again = flat(ConfigDict(json.loads(text)))
    for key, item in values.items():
        plain = list(item) if isinstance(item, tuple) else item
        if again[key] != plain and not isinstance(item, dict):
            raise SilentError(f"{key} is {item!r}, and {again[key]!r} when it is read back")
    for key, given in pairs.items():
        if key not in known or key == "model.preset" or key.startswith("report.paper_results"):
            continue
        old, new = known[key], values.get(key)
        is_either = key == "protocol.classes" and isinstance(new, int | str)
        if type(new) is not type(old) and not is_either:
            raise SilentError(f"{key} was {old!r} and is {new!r}")
        is_number = isinstance(new, float | int) and not isinstance(given, str)
        if is_number and not is_text and new != given:
            raise SilentError(f"{key} is {new!r}, and {given!r} was given")


def check_folder(name: str) -> None:
    """The default folder of a run is one that every system can make."""
    parts = Path(name).parts
    if len(parts) != 2 or not name.isprintable() or any(len(p.encode()) > 255 for p in parts):
        raise SilentError(f"the folder {name[:100]!r} of {len(name)} characters")


def check_study(study: Study) -> None:
    """Each fold trains on some clips and holds out others."""
    for fold in study.folds:
        if not len(fold.train) or not len(fold.test) or set(fold.train) & set(fold.test):
            raise SilentError(f"fold {fold.name} trains on {fold.train}, holds out {fold.test}")
    if not study.plan.valid.any(axis=1).all():
        raise SilentError("a fold has no step")


def build(study: Study) -> None:
    """Initialise the network in shapes alone."""
    data = study.dataset.on_host()
    row = np.zeros(1, np.int32)

    def forward(data: Any) -> Any:
        batch = study.batches.plain_batch(data, row)
        return study.module.init(jax.random.key(0), batch, train=False)

    jax.eval_shape(forward, data)


def draw(plan: Plan, index: int, numbers: Any, **kwargs: Any) -> np.ndarray:
    """In the place of `render_clip`: u8[T, S, S, C] of the shape that it would give."""
    size = kwargs.get("resolution_px") or plan.config.resolution_px
    is_color = kwargs.get("is_color")
    is_color = plan.config.is_color if is_color is None else is_color
    frames = np.asarray(list(numbers), np.int64)
    shape = (len(frames), size, size, 3 if is_color else 1)
    levels = ((frames * 7 + index) % 251).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], shape).copy()


@functools.cache
def cards() -> tuple[str, ...]:
    """Every card with every variant."""
    return tuple(
        f"{card.name}:{variant}" for card in list_cards().values() for variant in card.variants
    )


@functools.cache
def known_values(card: str) -> dict[str, Any]:
    """The keys of a card with their values."""
    return flat(load_config(card))


def odd_card(chance: random.Random, card: str) -> str:
    """A name that is no card, perhaps with the variant of one."""
    name, _, variant = card.partition(":")
    names = [name[:-1], name.upper(), f" {name}", f"configs/{name}", f"{name}.py.py", "", "/", ".."]
    names += ["x" * 300, "\x00", "README.md", "/dev/null", "~nobody/x", "mexjax", *TEXTS]
    return f"{chance.choice(names)}:{chance.choice([variant, '', ':', 'x' * 400, 'tiny '])}"


def stranger(chance: random.Random) -> str:
    """A key that the card may not have."""
    others = [key for card in list_models() for key in known_values(f"{card}:tiny")]
    key = chance.choice(others)
    ways = [key, key[:-1], f"{key}s", key.upper(), key.rpartition(".")[0], f"{key}.x", "x" * 3000]
    return chance.choice([*ways, *"|.|=|é.é|model|data|data.synthetic|[/x]|\x00".split("|")])


def value(chance: random.Random, key: str, old: Any) -> Any:
    """A value for a key that has the value `old`: of its type or of another, sensible or not."""
    choices = KEYS[key].choices if key in KEYS else ()
    if choices and chance.random() < 0.6:
        pick = chance.choice(choices)
        return (pick,) * chance.choice([1, 1, 2]) if isinstance(old, tuple) else pick
    if chance.random() < 0.1:
        return chance.choice([*NONSENSE, *TEXTS])
    if isinstance(old, bool):
        return chance.choice([True, False, True, False, 1, 0, "true", None])
    if isinstance(old, int | float):
        near = [old * 2, old / 2, old + 1, old - 1, -old, int(old) // 3, int(old) // 2, old * 1.25]
        number = chance.choice(NUMBERS if chance.random() < 0.3 else near)
        is_whole = isinstance(old, int) and math.isfinite(number) and chance.random() < 0.8
        return int(number) if is_whole else number
    if isinstance(old, tuple):
        items = list(old) or [1]
        item = value(chance, "", chance.choice(items))
        ways = [(), (item,), (*old, item), old[1:], tuple(reversed(old)), [*old], item, (old,)]
        return chance.choice([*ways, (item,) * len(items), tuple(items) * 200])
    return chance.choice(TEXTS)


def as_text(item: Any) -> str:
    """A value as it stands on a command line."""
    return ",".join(map(str, item)) if isinstance(item, tuple | list) else str(item)


def short(pairs: dict[str, Any]) -> str:
    """Pairs as text of a line."""
    return ", ".join(f"{key[:60]!r}: {repr(item)[:60]}" for key, item in pairs.items())

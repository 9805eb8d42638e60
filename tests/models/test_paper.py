"""The interface of a paper, and the reader of its options."""

from __future__ import annotations

import dataclasses
import tomllib
from typing import Literal

import pytest
from papers import options_of
from small import ROOT

from mexjax.errors import ConfigError
from mexjax.models import MODELS, get_model, list_models
from mexjax.models.options import read_options
from mexjax.models.paper import Paper


@dataclasses.dataclass(frozen=True)
class Options:
    """One option of each kind."""

    kind: Literal["a", "b"] = "a"
    width: int = 4
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    is_on: bool = True


PRESETS = {"paper": Options(), "tiny": Options(width=1)}


def test_a_misspelt_member_is_an_error_when_the_class_is_made():
    with pytest.raises(TypeError, match=r"'rate_factors'. Did you mean 'rate_factor'"):
        type("Wrong", (Paper,), {"rate_factors": lambda self, path, options: 1.0})
    helper = type("Right", (Paper,), {"_helper": 1, "rate_factor": lambda *_: 2.0})
    assert helper().rate_factor(("params",), None) == 2.0


@pytest.mark.parametrize("name", list_models())
def test_a_paper_is_found_by_its_name_and_has_the_presets_of_its_card(name):
    paper = get_model(name)
    assert paper.name == name and {"paper", "tiny"} <= set(paper.presets)
    assert len({type(preset) for preset in paper.presets.values()}) == 1
    assert options_of(name, {"preset": "tiny"}) == paper.presets["tiny"]


def test_the_contract_of_the_papers_names_them_all():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (modules,) = (each["modules"] for each in contracts if each["type"] == "independence")
    assert modules == [f"mexjax.models.{name}" for name in sorted(MODELS)]


def test_options_begin_with_their_preset():
    assert read_options("x", PRESETS, {"preset": "tiny", "sizes": [3]}) == Options(
        width=1, sizes=(3,)
    )
    assert read_options("x", PRESETS, {"name": "x", "rate": 1}).rate == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "tinny"}, r"Unknown preset of x 'tinny'. Did you mean 'tiny'"),
        ({"widht": 3}, r"Unknown key of model x 'widht'. Did you mean 'width'"),
        ({"kind": "c"}, r"Unknown model.kind 'c'"),
        ({"width": 2.5}, r"model.width takes a value of type int; found 2.5"),
        ({"width": True}, r"model.width takes a value of type int; found True"),
        ({"is_on": 1}, r"model.is_on takes a value of type bool; found 1"),
        ({"rate": float("nan")}, r"model.rate must be a finite number, found nan"),
        ({"sizes": 3}, r"model.sizes takes several values; found 3"),
        ({"sizes": ("a",)}, r"model.sizes takes a value of type int; found 'a'"),
    ],
)
def test_options_of_another_kind_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        read_options("x", PRESETS, given)

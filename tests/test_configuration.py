"""Recipe cards, overrides, and what is said when they do not fit."""

from __future__ import annotations

import pytest
from small import CARD, ROOT

import mexjax
from mexjax.config import flat
from mexjax.errors import ConfigError

STABLE_KEYS = """seed model.name model.preset data.name data.root data.control data.center
protocol.name protocol.classes train.num_epochs train.num_steps train.batch_size folds.strategy
folds.per_chunk folds.only eval.every_epochs checkpoint.every_epochs dtype""".split()


@pytest.mark.parametrize("variant", ["", ":tiny", ":paper", ":paper_14m", ":official"])
def test_every_variant_has_the_stable_keys(variant):
    config = mexjax.load_config(f"{CARD}{variant}")
    assert set(STABLE_KEYS) <= set(flat(config))
    assert config.model.preset == (variant[1:] or "tiny")


def test_text_overrides_take_the_type_of_the_key():
    overrides = [
        "train.batch_size=7",
        "train.learning_rate=1",
        "augment.is_flipped=false",
        "folds.only=synthetic/01,synthetic/02",
        "data.center=none",
        "model.stem_channels=(4, 8)",
    ]
    config = mexjax.load_config(CARD, overrides)
    assert config.train.batch_size == 7
    assert config.train.learning_rate == 1.0 and isinstance(config.train.learning_rate, float)
    assert config.augment.is_flipped is False
    assert config.folds.only == ("synthetic/01", "synthetic/02")
    assert config.data.center == "none"
    assert config.model.stem_channels == (4, 8)


def test_overriding_the_preset_selects_the_variant():
    assert mexjax.load_config(CARD, ["model.preset=official"]).train.num_steps == 501


def test_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match=r"train\.batchsize.*Did you mean 'train\.batch_size'"):
        mexjax.load_config(CARD, ["train.batchsize=3"])


@pytest.mark.parametrize(
    "override", ["train.batch_size=many", "train.batch_size=1.5", "augment.is_flipped=perhaps"]
)
def test_wrong_type_says_what_is_wanted(override):
    with pytest.raises(ConfigError, match=r"takes a value of type (int|bool).*found"):
        mexjax.load_config(CARD, [override])


def test_missing_card_lists_those_there(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=r"No recipe card at 'configs/fpd\.py'.*configs/fdp\.py"):
        mexjax.load_config("configs/fpd.py")


def test_unknown_variant_lists_the_variants():
    with pytest.raises(ConfigError, match=r"'papper'.*Did you mean 'paper'.*official"):
        mexjax.load_config(f"{CARD}:papper")


def test_file_that_is_no_card(tmp_path):
    other = tmp_path / "other.py"
    other.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="defines no get_config"):
        mexjax.load_config(other)


def test_configuration_is_locked():
    config = mexjax.load_config(CARD)
    with pytest.raises((AttributeError, KeyError)):
        config.train.batchsize = 3


def test_every_common_key_has_a_comment():
    """`configs/common.py` is the reference of the keys: a line without a comment is a hole."""
    source = (ROOT / "configs" / "common.py").read_text().splitlines()
    assigned = [i for i, line in enumerate(source) if line.startswith("    ") and " = " in line]
    bare = [
        source[i]
        for i in assigned
        if "#" not in source[i]
        and not source[i - 1].strip().startswith("#")
        and "ConfigDict" not in source[i]
        and "synthetic" not in source[i]
    ]
    assert bare == []

"""Keys, recipe cards, overrides, and what is said when they do not fit."""

from __future__ import annotations

import configuration
import pytest
from small import CARD, ROOT

import mexjax
from mexjax.config import KEYS, check_values, flat, list_cards
from mexjax.data import keyframes, loading, sampling, view_frames
from mexjax.data.synthetic import CAMERAS
from mexjax.errors import ConfigError
from mexjax.models import get_model, list_models
from mexjax.models.card import start
from mexjax.nn import magnet
from mexjax.ops import conv, flow
from mexjax.protocol import scoring, splits
from mexjax.train import augment, fold_axis, optim, plan

STABLE_KEYS = """seed model.name model.preset data.name data.root data.control data.center
protocol.name protocol.classes train.num_epochs train.num_steps train.batch_size folds.strategy
folds.per_chunk folds.only eval.every_epochs checkpoint.every_epochs dtype""".split()
VARIANTS = [f"{card.name}:{variant}" for card in list_cards().values() for variant in card.variants]

# A card of a user, which takes another card and changes it.
OWN_CARD = """
import mexjax

def get_config(variant=""):
    config = mexjax.load_config("fdp:" + (variant or "tiny"))
    config.train.batch_size = 5
    return config
"""


@pytest.mark.parametrize("variant", ["", ":tiny", ":paper", ":paper_14m", ":official"])
def test_every_variant_has_the_stable_keys(variant):
    config = mexjax.load_config(f"{CARD}{variant}")
    assert set(STABLE_KEYS) <= set(flat(config))
    assert config.model.preset == (variant[1:] or "tiny")


@pytest.mark.parametrize("card", VARIANTS)
def test_every_listed_variant_is_a_configuration_that_can_run(card):
    config = mexjax.load_config(card)
    check_values(config)
    assert config.model.name == card.partition(":")[0]


def test_every_preset_is_listed():
    """The docstrings of the cards name all presets of their papers; --list shows them."""
    for card in list_cards().values():
        presets = get_model(card.name).presets
        assert set(presets) <= set(card.variants), card.name
        assert card.title and all(card.variants.values())


def test_cards_by_name_and_by_path_are_the_same(monkeypatch, tmp_path):
    by_path = mexjax.load_config(CARD, ["seed=3"])
    monkeypatch.chdir(tmp_path)
    for name in ("fdp", "fdp:tiny", "fdp.py", "configs/fdp.py", "configs/fdp.py:tiny"):
        assert mexjax.load_config(name, {"seed": 3}).to_dict() == by_path.to_dict()
    monkeypatch.chdir(ROOT)
    assert mexjax.load_config("configs/fdp.py", {"seed": 3}).to_dict() == by_path.to_dict()


def test_a_card_may_inherit_another_one(tmp_path):
    card = tmp_path / "mine.py"
    card.write_text(OWN_CARD)
    config = mexjax.load_config(f"{card}:official", ["train.num_steps=7"])
    assert (config.train.batch_size, config.train.num_steps) == (5, 7)
    assert config.model.preset == "official"


def test_start_gives_every_key_and_the_options_of_the_preset():
    config = start("fdp", "paper_14m")
    assert set(KEYS) - {"report.paper_results"} <= set(flat(config))
    assert config.model.num_global == (0, 0, 0, 0) and "dtype" not in config.model
    assert "num_clips" in config.data.synthetic and "num_frames" not in config.data.synthetic
    with pytest.raises(ConfigError, match=r"Unknown model 'fpd'\. Did you mean 'fdp'"):
        start("fpd")


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


def test_missing_card_names_the_nearest():
    for name in ("fpd", "configs/fpd.py", "elsewhere/fpd.py"):
        with pytest.raises(ConfigError, match=r"'fpd'\. Did you mean 'fdp'\? Known: ac4au, fdp,"):
            mexjax.load_config(name)


def test_unknown_variant_lists_the_variants():
    with pytest.raises(ConfigError, match=r"'papper'.*Did you mean 'paper'.*official"):
        mexjax.load_config(f"{CARD}:papper")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "defines no get_config"),
        ("def get_config(:\n", r"fails: SyntaxError: .*line 1"),
        ("\nimport nothing_like_it\n", r"fails: ModuleNotFoundError: .*line 2"),
        ("def get_config():\n    pass\n", r"fails: TypeError: get_config\(\) takes 0 positional"),
        ("def get_config(variant):\n    return 1 / 0\n", r"ZeroDivisionError: .*\(line 2\)"),
        ("def get_config(variant):\n    return {}\n", "gives no configuration"),
        (
            "from ml_collections import ConfigDict\n\n"
            "def get_config(variant):\n    return ConfigDict({'model': {'name': ''}})\n",
            "names no model",
        ),
    ],
)
def test_a_file_that_is_no_card_ends_in_one_message(text, message, tmp_path):
    card = tmp_path / "other.py"
    card.write_text(text)
    with pytest.raises(ConfigError, match=message):
        mexjax.load_config(card)


def test_configuration_is_locked():
    config = mexjax.load_config(CARD)
    with pytest.raises((AttributeError, KeyError)):
        config.train.batchsize = 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("folds.strategy=pmap", r"Unknown folds\.strategy 'pmap'\. Did you mean 'vmap'"),
        ("data.collection.sets=casme,casme9", r"Unknown data\.collection\.sets 'casme9'"),
        ("conv=nativ", r"Unknown convolution lowering 'nativ'\. Did you mean 'native'"),
        ("train.learning_rate=-1", r"train\.learning_rate must be at least 0, found -1"),
        ("train.learning_rate=1e999", r"train\.learning_rate must be a finite number, found inf"),
        ("train.momentum=1.5", r"train\.momentum must be at most 1, found 1\.5"),
        ("train.milestones=-2", r"train\.milestones must be at least 0"),
        ("train.num_epochs=0", r"Give one of train\.num_epochs and train\.num_steps"),
        ("augment.crop_px=128", r"augment\.crop_px=128 is larger than the images"),
        ("data.split_scale=train", r"Set one of the two to none"),
    ],
)
def test_values_are_checked_by_the_table(override, message):
    with pytest.raises(ConfigError, match=message):
        check_values(mexjax.load_config(CARD, [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("folds.strategy=pmap", r"Did you mean 'vmap'"),
        ("model.backbone=lfg", r"Unknown model\.backbone 'lfg'\. Did you mean 'lgf'"),
    ],
)
def test_values_are_checked_before_the_folder_is_opened(override, message, tmp_path):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(ConfigError, match=message):
        mexjax.run(mexjax.load_config(CARD, [override]), tmp_path / "run")


def test_a_configuration_without_a_key_is_refused():
    config = mexjax.load_config(CARD).unlock()
    del config.cpu_heap
    with pytest.raises(ConfigError, match=r"has no cpu_heap.*card\.start"):
        check_values(config)


def test_the_table_agrees_with_those_who_know_the_choices():
    choices = {name: set(key.choices) for name, key in KEYS.items() if key.choices}
    papers = [get_model(name) for name in list_models()]
    assert choices == {
        "dtype": {"float32", "bfloat16"},
        "data.name": set(loading.SOURCES),
        "data.sampling": set(sampling.RULES),
        "data.view": {view for paper in papers for view in paper.views},
        "data.key_frames.choice": {choice for known in loading.CHOICES for choice in known},
        "data.key_frames.splits": set(loading.SPLITS),
        "data.key_frames.window": set(keyframes.WINDOWS),
        "data.key_frames.difference": set(keyframes.DIFFERENCES),
        "data.control": set(loading.CONTROLS),
        "data.center": set(augment.CENTERS),
        "data.magnify": set(view_frames.METHODS),
        "data.magnify_gain": set(magnet.GAINS),
        "data.flow_method": set(flow.METHODS),
        "data.flow_style": set(flow.STYLES),
        "data.split_scale": set(plan.SPLIT_SCALES),
        "data.collection.sets": set(CAMERAS),
        "protocol.name": set(splits.PROTOCOLS),
        "protocol.task": set(scoring.TASKS),
        "train.optimizer": {"adam", "adamw", "sgd"},
        "train.schedule": {"constant", "cosine", "one_cycle", "epoch_decay", "milestones"},
        "folds.strategy": set(fold_axis.STRATEGIES),
    }
    assert "auto" not in conv.LOWERINGS
    for name, key in KEYS.items():
        assert key.meaning.endswith("."), name
        values = key.default if isinstance(key.default, tuple) else (key.default,)
        assert not key.choices or set(values) <= choices[name], name


@pytest.mark.parametrize("key", ["optimizer", "schedule"])
def test_training_makes_every_optimizer_and_schedule_of_the_table(key):
    for name in KEYS[f"train.{key}"].choices:
        config = mexjax.load_config(CARD, {f"train.{key}": name})
        assert optim.make_optimizer(config.train) is not None


def test_the_page_of_keys_is_what_the_code_says(monkeypatch, tmp_path, capsys):
    assert configuration.main(["--check"]) == 0
    page = configuration.PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in KEYS)
    assert (
        "| `data.synthetic.rise_cv` | `0.25` | standard deviation of the logarithm of the rise."
        in page
    )
    monkeypatch.setattr(configuration, "PAGE", ROOT / "docs" / "none.md")
    assert configuration.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().out
    monkeypatch.setattr(configuration, "PAGE", tmp_path / "page.md")
    assert configuration.main([]) == 0 and (tmp_path / "page.md").read_text() == page


def test_options_are_read_with_their_comments(tmp_path):
    source = tmp_path / "options.py"
    source.write_text(
        "@dataclasses.dataclass(frozen=True)\n"
        "class Options:\n"
        "    # Width of the stem;\n"
        "    # in channels.\n"
        "    width: int = 3\n"
        "    depth: int = 2\n"
        "\n"
        '    head: Literal["gap", "flat"] = "gap"  # What ends the network.\n'
        "    bare: tuple[int, ...] = ()\n"
        "\n"
        "class Other:\n"
        "    no: int = 1\n"
    )
    assert configuration.read_fields(source) == [
        configuration.Field("width", "3", "Width of the stem; in channels."),
        configuration.Field("depth", "2", "Width of the stem; in channels."),
        configuration.Field("head", "'gap'", "What ends the network. One of `gap`, `flat`."),
        configuration.Field("bare", "()", "What ends the network."),
    ]

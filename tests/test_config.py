"""Keys, recipe cards, overrides, and what is said when they do not fit."""

from __future__ import annotations

import os
import re

import configuration
import pytest
from small import CARD, ROOT

import mexjax
from mexjax.config import KEYS, check_values, flat, list_cards
from mexjax.data import keyframes, loading, sampling, view_frames, view_keys
from mexjax.data.synthetic import CAMERAS
from mexjax.errors import ConfigError
from mexjax.gpu import compiling
from mexjax.models import get_model, list_models
from mexjax.models.card import start
from mexjax.nn import magnet
from mexjax.ops import conv, flow
from mexjax.protocol import scoring, splits
from mexjax.train import augment, fold_axis, optim, plan
from mexjax.train.numerics import dtype_of
from mexjax.train.study import make_study

STABLE_KEYS = """seed model.name model.preset data.name data.root data.control data.center
protocol.name protocol.classes train.num_epochs train.num_steps train.batch_size folds.strategy
folds.per_chunk folds.only eval.every_epochs checkpoint.every_epochs precision""".split()
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
    assert set(KEYS) - {"report.paper_results", "sweep.values"} <= set(flat(config))
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


def _nonsense(key, value):
    more = {"data.magnify": "x" * 5000} if "magnify" in key else {}
    return mexjax.load_config("ac4au:paper" if "results" in key else "fdp", more | {key: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("augment.gain_std", 10**400, r"type float .*found a number|found 1000"),
        ("augment.gain_std", "9" * 400, "takes a value of type float"),
        ("data.synthetic.class_counts", [None], r"class_counts takes whole numbers, found None"),
        ("data.synthetic.au_counts", ((),), r"au_counts takes whole numbers, found \(\)"),
        ("model.stem_channels", (4, True), r"stem_channels takes whole numbers, found True"),
        ("train.milestones", (0.5,), r"milestones takes whole numbers, found 0\.5"),
        ("train.batch_size", "x" * 5000, "takes a value of type int"),
        ("folds.strategy", "x" * 5000, "Unknown folds"),
        ("data.magnify_factor", 4.0, "has no effect with data.magnify=xxx"),
        ("report.paper_results.prepared_12.AU4", float("nan"), "must be a finite number"),
        ("x" * 5000, 1, "Unknown configuration key"),
        ("model.preset", "x" * 5000, "Unknown variant"),
    ],
)
def test_nonsense_ends_in_one_short_message(key, value, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_values(_nonsense(key, value))
    assert len(str(error.value)) < 900


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.num_frames": 4096, "data.image_size_px": 1024},
            r"180 clips of 4096 frames of 1024",
        ),
        (
            {"data.name": "synthetic_sets", "data.num_frames": 4096},
            r"clips of 4096 frames of 64 px",
        ),
        (
            {"train.num_epochs": 10**6},
            r"order of samples of 5 folds, 1000000 epochs and \d+ batches",
        ),
        ({"train.batch_size": 10**6}, r"24 epochs and 1 batches of 1000000 clips"),
    ],
)
def test_amounts_that_memory_does_not_hold_are_refused(changes, message, monkeypatch):
    for module in (view_keys, plan):
        monkeypatch.setattr(module, "free_bytes", lambda: 2**28)
    few = {"data.synthetic.num_clips": 20, "data.synthetic.num_subjects": 5}
    small = few | {"data.image_size_px": 16} if "order" in message or "batches" in message else {}
    with pytest.raises(ConfigError, match=f"{message}.*GiB are free. Lower"):
        make_study(mexjax.load_config("fdp", small | changes))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.synthetic.name", "\ud800", "name must be a word without slashes"),
        ("data.synthetic.name", "a/b", "name must be a word without slashes"),
        ("data.synthetic.name", "", "name must be a word without slashes"),
        ("data.datasets", ("x" * 5000,), r"data\.datasets=\('xxx.* is for prepared"),
    ],
)
def test_names_without_sense_are_refused(key, value, message):
    with pytest.raises(ConfigError, match=message) as error:
        make_study(mexjax.load_config("fdp", {key: value}))
    assert len(str(error.value)) < 900


def test_names_of_folds_stay_texts():
    overrides = {"folds.only": (1, float("inf"))}
    assert mexjax.load_config("fdp", overrides).folds.only == ("1", "inf")
    texts = ["folds.only=01,1e5", "data.name=prepared", "data.datasets='casme2', \"1_0\""]
    config = mexjax.load_config("fdp", texts)
    assert config.folds.only == ("01", "1e5") and config.data.datasets == ("casme2", "1_0")


def test_missing_card_names_the_nearest():
    for name in ("fpd", "configs/fpd.py", "elsewhere/fpd.py"):
        with pytest.raises(ConfigError, match=r"'fpd'\. Did you mean 'fdp'\? Known: ac4au, fdp,"):
            mexjax.load_config(name)
    for name in ("x" * 300, "x/" * 3000, "\x00", "fdp\n"):
        with pytest.raises(ConfigError, match=r"(Unknown|Cannot read the) recipe card") as error:
            mexjax.load_config(name)
        assert len(str(error.value)) < 700


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = 1\ny = '\xe9'\n", r"no text in UTF-8 \(line 2\)"),
        (b"\x00\x01", "null bytes"),
        (b"# coding: nothing\n", "unknown encoding"),
        (b"import sys\nsys.exit(3)\n", r"fails: SystemExit: 3 \(line 2\)"),
        (b"\nif True:\n\tx = 1\n        y = 2\n", "line 4"),
        (b"x = 1\n\nraise ValueError('a\\nb' + 9999 * 'c')\n", r"ValueError: a bc+\.\.\. \(line 3"),
        (b"def get_config(variant):\n    return get_config(variant)\n", r"Recursion.*\(line 2\)"),
        (b"get_config = 3\n", "defines no get_config"),
        (b"", "defines no get_config"),
    ],
)
def test_a_damaged_card_ends_in_one_line_with_its_place(content, message, tmp_path):
    card = tmp_path / "other.py"
    card.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        mexjax.load_config(card)
    assert "\n" not in str(error.value)
    assert str(card) in str(error.value)
    assert len(str(error.value)) < 600


def test_a_card_that_is_a_folder_is_named_as_one(tmp_path):
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(ConfigError, match=r"is a folder; expected a recipe card.*mine\.py"):
        mexjax.load_config(tmp_path)


def test_a_name_of_a_card_that_is_too_long_is_cut():
    with pytest.raises(ConfigError, match="File name too long") as error:
        mexjax.load_config("w" * 5000)
    assert len(str(error.value)) < 200


def test_a_card_that_was_just_changed_is_read_anew(tmp_path):
    card = tmp_path / "mine.py"
    for steps in (3, 4):
        card.write_text(OWN_CARD.replace("batch_size = 5", f"batch_size = {steps}"))
        os.utime(card, (1, 1))
        assert mexjax.load_config(card).train.batch_size == steps


def test_configuration_is_locked():
    config = mexjax.load_config(CARD)
    with pytest.raises((AttributeError, KeyError)):
        config.train.batchsize = 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("folds.strategy=pmap", r"Unknown folds\.strategy 'pmap'\. Did you mean 'vmap'"),
        (
            "data.name=synthetic_sets data.collection.sets=casme,casme9",
            r"Unknown data\.collection\.sets 'casme9'",
        ),
        ("conv=nativ", r"Unknown convolution lowering 'nativ'\. Did you mean 'native'"),
        ("train.learning_rate=-1", r"train\.learning_rate must be above 0, found -1"),
        ("train.learning_rate=1e999", r"train\.learning_rate must be a finite number, found inf"),
        ("train.beta1=1.5", r"train\.beta1 must be below 1, found 1\.5"),
        ("train.grad_clip_norm=-2", r"train\.grad_clip_norm must be at least 0"),
        ("train.num_epochs=0", r"Give one of train\.num_epochs and train\.num_steps"),
        ("augment.crop_px=128", r"augment\.crop_px=128 is larger than the images"),
        ("data.split_scale=train", r"Set one of the two to none"),
    ],
)
def test_values_are_checked_by_the_table(override, message):
    with pytest.raises(ConfigError, match=message):
        check_values(mexjax.load_config(CARD, override.split()))


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
        "precision": {"tf32", "highest", "bfloat16"},
        "gpu.graphs": set(compiling.GRAPHS),
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


# A card or paper, changes that have no effect, and the key that makes each of them act.
VOID = [
    ("fdp:official", "model.lambda_r=0.5", "model.use_rank_scorer=True"),
    ("fdp:official", "model.rank_slope=2.0", "model.use_rank_scorer=True"),
    ("fdp:paper", "model.backbone=resnet18 model.num_global=2,1,1,1", "model.backbone=lgf"),
    ("fdp:paper", "model.vit_patch_px=8", "model.backbone=vit_base"),
    ("fdp", "model.dynamic_image_network=none model.lambda_d=2.0", "encoder_decoder or segnet"),
    ("fdp", "model.dynamic_image_network=segnet model.leaky_slope=0.1", "encoder_decoder"),
    ("fdp", "model.use_mer_head=False model.mer_width=8", "model.use_mer_head=True"),
    ("gamdss", "model.backbone=resnet18 model.head_width=64", "model.backbone=rmt"),
    ("gamdss", "model.backbone_size=published", "another model.backbone than rmt"),
    ("gamdss", "model.phases=rise model.lambda_fall=0.5", "model.phases=full"),
    ("gamdss", "model.phases=fall model.inference=rise", "model.phases=full"),
    ("gamdss", "model.phases=rise model.fall_place_frame=onset", "model.phases=full or fall"),
    ("tsfmicro", "model.t_to_s_place=before_blocks", "model.fusion=t_to_s"),
    ("tsfmicro", "model.s_only_frame=apex", "model.fusion=s_only"),
    ("tsfmicro", "model.fusion=t_only model.vit_depth=3", "model.fusion=late or"),
    ("micro_au_clip", "model.fusion=cat_mlp model.beta=0.5", "model.fusion=gda"),
    ("micro_au_clip", "model.fusion=add_mlp model.fc_mode=flatten", "model.fusion=gda"),
    ("micro_au_clip", "model.branches=local model.beta=0.5", "model.branches=both or global"),
    ("micro_au_clip", "model.contrast=none model.alpha=0.1", "another model.contrast than none"),
    ("micro_au_clip", "model.contrast=none model.contrast_scale=9.0", "than none"),
    ("micro_au_clip", "model.pooling=mean model.pooling_width=8", "model.pooling=attention"),
    ("ac4au", "model.head=linear model.expert_width=8", "model.head=auser or no_gate"),
    ("ac4au", "model.head=no_gate model.top_k=2", "model.head=auser"),
    ("ac4au", "model.gamma=0.0 model.arc_scale=8.0", "a value of model.gamma that is set"),
    ("ac4au", "model.au_loss=bce model.focus=1.0", "model.au_loss=focal"),
    ("fdp", "train.momentum=0.5", "train.optimizer=sgd"),
    ("fdp", "train.optimizer=sgd train.beta1=0.5", "train.optimizer=adam or adamw"),
    ("fdp", "train.schedule=cosine train.warmup_fraction=0.3", "train.schedule=one_cycle"),
    ("fdp", "train.milestones=3", "train.schedule=milestones"),
    ("fdp", "train.decay_per_epoch=0.5", "train.schedule=epoch_decay or milestones"),
    ("fdp", "train.decay_epochs=5", "train.schedule=epoch_decay"),
    ("fdp", "data.magnify_factor=5.0", "data.magnify=linear or"),
    ("fdp", "data.magnify=linear data.magnify_gain=official", "data.magnify=magnet"),
    ("gamdss", "data.key_frames.lambda_rise=0.2", "data.key_frames.choice=reselected"),
    ("fdp", "data.collection.scale=0.5", "data.name=synthetic_sets"),
    ("fdp", "data.flow_style=hsv", "data.view=flow_image"),
    ("gamdss", "data.flow_method=tvl1", "or with model.feature=flow"),
    ("fdp", "data.sampling=stride", "data.name=prepared or synthetic_sets"),
    ("fdp", "protocol.units=1,2", "protocol.task=au"),
    ("fdp", "protocol.num_splits=3", "protocol.name=kfold_by_subject"),
    ("fdp", "augment.hue=0.1", "data.is_color=True"),
    ("fdp", "eval.keeps_features=True", "another model.name than fdp or gamdss or tsfmicro"),
]


@pytest.mark.parametrize(("card", "changes", "words"), VOID, ids=lambda item: str(item)[:60])
def test_a_change_without_effect_is_refused(card, changes, words):
    """With the key that the message names, or without the last change, there is no error."""
    *others, last = changes.split()

    def read(overrides):
        config = mexjax.load_config(card, overrides)
        get_model(config.model.name).options(config.model, dtype_of(config))

    key = last.partition("=")[0]
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        read(changes.split())
    message = str(caught.value)
    assert message.startswith(f"{key}=") and " has no effect with " in message
    read(others)


def test_a_value_that_a_card_or_preset_gives_is_no_change():
    config = mexjax.load_config(
        "fdp:official", {"model.lambda_r": 0.0, "train.momentum": 0.9, "data.sampling": "linspace"}
    )
    assert get_model("fdp").options(config.model).lambda_r == 0.0
    config = mexjax.load_config("fdp:official", {"model.use_rank_scorer": True})
    with config.unlocked():
        config.model.lambda_r = 0.5
    assert get_model("fdp").options(config.model).lambda_r == 0.5
    sgd = mexjax.load_config("fdp", ["train.optimizer=sgd", "train.momentum=0.5"])
    assert sgd.train.momentum == 0.5
    flow = mexjax.load_config("gamdss", ["model.feature=flow", "data.flow_method=tvl1"])
    assert flow.data.flow_method == "tvl1"


def test_a_card_that_samples_what_cannot_be_sampled_is_refused():
    config = mexjax.load_config("fdp")
    config.data.sampling = "stride"
    with pytest.raises(ConfigError, match=r"data\.sampling=stride has no effect with data\.name"):
        check_values(config)


def test_conditions_name_keys_that_exist():
    papers = [get_model(name) for name in list_models()]
    fields = {f"model.{field}" for paper in papers for field in vars(paper.presets["paper"])}
    for key in KEYS.values():
        for when in key.acts:
            while when is not None:
                assert when.key in KEYS or when.key in fields, when
                assert (
                    not KEYS.get(when.key, key).choices
                    or "." not in when.key
                    or (when.key not in KEYS or set(when.values) <= set(KEYS[when.key].choices))
                )
                when = when.instead
    for paper in papers:
        preset = paper.presets["paper"]
        assert set(preset.acts) <= set(vars(preset)), paper.name
        assert set(preset.bounds) <= set(vars(preset)), paper.name
        for conditions in preset.acts.values():
            assert all(when.key in vars(preset) for when in conditions)
    keeps_none = [p.name for p in papers if not p.on_request and "features" not in vars(type(p))]
    assert tuple(keeps_none) == KEYS["eval.keeps_features"].acts[0].values


def test_every_number_has_finite_bounds():
    for name, key in KEYS.items():
        values = key.default if isinstance(key.default, tuple) else (key.default,)
        is_number = any(type(value) in (int, float) for value in values)
        if is_number or name == "train.milestones":
            assert key.range.is_bounded, name
            for value in values:
                key.range.check(name, value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.optimizer=sgd train.momentum=1", r"train\.momentum must be below 1"),
        ("train.optimizer=sgd train.momentum=2.0", r"train\.momentum must be below 1"),
        ("train.beta2=2.0", r"train\.beta2 must be below 1"),
        ("train.epsilon=-1e-8", r"train\.epsilon must be above 0"),
        ("train.epsilon=0.0", r"train\.epsilon must be above 0"),
        ("train.learning_rate=0", r"train\.learning_rate must be above 0"),
        ("train.schedule=epoch_decay train.decay_per_epoch=-1", r"decay_per_epoch must be above 0"),
        ("augment.shift_px=64", r"augment\.shift_px=64 moves a face out of the images"),
        ("train.num_epochs=0 train.num_steps=1000000000", r"num_steps must be at most 10000000"),
        ("train.num_epochs=1000000000", r"train\.num_epochs must be at most 1000000,"),
        ("seed=4294967296", r"seed must be at most 4294967295"),
        ("data.synthetic.num_clips=1000000000", r"num_clips must be at most 1000000,"),
        ("data.synthetic.rise_cv=1e999", r"rise_cv must be a finite number"),
        ("train.batch_size=1000000000", r"train\.batch_size must be at most"),
        ("data.name=synthetic_sets data.sampling=often", r"Unknown data\.sampling 'often'"),
    ],
)
def test_values_without_sense_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        check_values(mexjax.load_config("fdp", override.split()))


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("fdp", {"head_dim": 0}, r"model\.head_dim must be at least 1"),
        ("fdp", {"head_dim": 10**9}, r"model\.head_dim must be at most 65536"),
        ("fdp", {"stem_channels": ()}, r"model\.stem_channels needs one value or more"),
        ("fdp", {"local_channels": (0, 32)}, r"model\.local_channels must be at least 1"),
        ("fdp", {"num_local": (-1, 1)}, r"model\.num_local must be at least 0"),
        ("fdp", {"mer_dropout_rate": 1.5}, r"model\.mer_dropout_rate must be below 1"),
        ("fdp", {"drop_path_rate": 1}, r"model\.drop_path_rate must be below 1"),
        ("fdp", {"lambda_d": float("nan")}, r"model\.lambda_d must be a finite number"),
        ("fdp", {"lambda_d": -1.0}, r"model\.lambda_d must be at least 0"),
        ("gamdss", {"vit_heads": 0}, r"model\.vit_heads must be at least 1"),
        ("tsfmicro", {"label_smoothing": 1.0}, r"model\.label_smoothing must be below 1"),
        ("tsfmicro", {"decay_start": (0.0, 2.0)}, r"model\.decay_start must be above 0"),
        ("ac4au", {"bn_eps": 0.0}, r"model\.bn_eps must be above 0"),
        ("ac4au", {"arc_margin": 4.0}, r"model\.arc_margin must be at most"),
        ("micro_au_clip", {"contrast_scale": 0.0}, r"model\.contrast_scale must be above 0"),
        ("micro_au_clip", {"dropout_rate": float("inf")}, r"dropout_rate must be a finite number"),
    ],
)
def test_options_without_sense_are_refused(name, option, message):
    with pytest.raises(ConfigError, match=message):
        get_model(name).options({"preset": "tiny"} | option)


@pytest.mark.parametrize("name", list_models())
def test_presets_are_within_the_bounds_of_their_options(name):
    paper = get_model(name)
    for preset, options in paper.presets.items():
        keys = {key: value for key, value in vars(options).items() if key != "weights"}
        if name == "micro_au_clip":
            keys |= {"weights": "random"}
        assert vars(paper.options({"preset": preset} | keys)) == vars(options) | (
            {"weights": "random"} if name == "micro_au_clip" else {}
        )


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
@pytest.mark.parametrize("key", [name for name, key in KEYS.items() if key.is_path])
def test_a_path_that_no_system_has_is_refused(key, path):
    with pytest.raises(ConfigError, match="takes the name of a file or folder, found"):
        mexjax.load_config("fdp", {key: path})
    config = mexjax.load_config("fdp")
    section, name = key.split(".")
    config[section][name] = path
    with pytest.raises(ConfigError, match=r"takes the name of a file|has no effect"):
        check_values(config)

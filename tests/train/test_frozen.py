"""A frozen first part computed once: the same numbers, and nothing of it in the programs."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging

import jax
import numpy as np
import pytest
import safetensors.numpy
from fdp_helpers import jit
from rule_weights import rule_array
from small import ROOT

import mexjax
from mexjax.errors import ConfigError
from mexjax.interop import clip as clip_names
from mexjax.nn.clip import SIZES, Clip
from mexjax.train import frozen, plan
from mexjax.train.optim import make_optimizer
from mexjax.train.programs import compile_programs, device_data
from mexjax.train.step import FoldFunctions, FoldState
from mexjax.train.study import make_study

CARD = ROOT / "configs" / "micro_au_clip.py"
SMALL = {
    "data.image_size_px": 224,
    "data.flow_source_px": 64,
    "data.synthetic.num_subjects": 3,
    "data.synthetic.num_clips": 20,
    "protocol.units": "micro_au_samm",
    "model.trainable_from": 1,
    "model.tower_rate": 0.1,
    "model.pooling_width": 8,
    "model.head_width": 8,
    "train.optimizer": "sgd",
    "train.learning_rate": 0.01,
    "train.schedule": "constant",
    "train.weight_decay": 0.0,
    "train.is_update_fused": False,
    "train.batch_size": 4,
    "train.num_epochs": 1,
    "folds.strategy": "vmap",
    "has_progress": False,
}
FOLDS = 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A CLIP by the written rule: small towers with the vocabulary of real ids."""
    size = dataclasses.replace(SIZES["tiny"], vocabulary=49408)
    entries = clip_names.make_entries(clip_names.variable_shapes(Clip(size)), "huggingface")
    names = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    folder = tmp_path_factory.mktemp("clip")
    state = {name: np.asarray(rule_array(name, shape)) for name, shape in names.items()}
    safetensors.numpy.save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}), encoding="utf-8")
    return str(folder / "model.safetensors")


@functools.cache
def trained(checkpoint: str, num_folds: int = FOLDS, **changes):
    """The study, its data, parameters after some steps, and held-out logits f32[F, M, A]."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    config = mexjax.load_config(CARD, SMALL | {"model.weights": checkpoint} | named)
    study = make_study(config)
    host = device_data(study)
    compiled = compile_programs(study, host, per_device=num_folds)
    data = jax.device_put(host, compiled.programs.shared)
    own = plan.pad_folds(plan.take_folds(study.plan, slice(0, num_folds)), num_folds)
    own = jax.device_put(own, compiled.programs.folded)
    carry = compiled.init(own, data)
    start = jax.device_get(carry.states.params)
    for _ in range(3):
        carry = compiled.train(carry, own, data)
    batch = jax.device_put(np.int32(0), compiled.programs.shared)
    logits = jax.device_get(compiled.evaluate(carry.states, batch, own, data)["logits"])
    return study, host, start, jax.device_get(carry.states.params), logits, compiled


def flat(tree) -> dict[str, np.ndarray]:
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in pairs}


def test_what_is_shared(checkpoint: str):
    study, host, start, _, _, _ = trained(checkpoint)
    shared = host["frozen"]
    assert {name: value.shape for name, value in shared["per_clip"].items()} == {
        "image_tokens": (20, 50, 32)
    }
    assert {name: value.shape for name, value in shared["constant"].items()} == {
        "unit_tokens": (8, 10, 32)
    }
    kept, trained_params = flat(shared["kept"]), flat(start)
    assert not set(kept) & set(trained_params)
    assert "['image']['blocks_0']['fc1']['kernel']" in kept
    assert "['image']['blocks_1']['fc1']['kernel']" in trained_params
    assert "['text']['embed']['tokens']" in kept
    # Every fold starts from the weights of the file.
    _, variables = mexjax.from_torch("clip", checkpoint)
    for name, value in flat({k: variables["params"][k] for k in ("image", "text")}).items():
        found = kept[name] if name in kept else trained_params[name][0]
        np.testing.assert_array_equal(found, value)
    assert study.config.model.weights == checkpoint


def test_the_numbers_are_those_of_computing_it_every_time(checkpoint: str):
    """Two folds of one program that share what is computed once, beside one that computes it."""
    _, _, start, cached, logits, _ = trained(checkpoint)
    _, host, _, fresh, wanted, _ = trained(checkpoint, 1, train__is_frozen_part_cached=False)
    assert "per_clip" not in host["frozen"]
    np.testing.assert_allclose(logits[0], wanted[0], atol=1e-5)
    before, after, expected = flat(start), flat(cached), flat(fresh)
    assert set(after) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(after[name][0], value[0], atol=1e-5, err_msg=name)
    moves = {n: (after[n][0] - before[n][0], expected[n][0] - before[n][0]) for n in after}
    moved = {name: pair for name, pair in moves.items() if np.abs(pair[1]).max() > 1e-6}
    assert len(moved) > 0.8 * len(after)
    for name, (ours, plain) in moved.items():
        assert np.linalg.norm(ours - plain) < 0.05 * np.linalg.norm(plain), name


def test_the_program_holds_the_trainable_part_only(checkpoint: str):
    *_, cached = trained(checkpoint)
    *_, fresh = trained(checkpoint, 1, train__is_frozen_part_cached=False)
    flops = [compiled.train.cost_analysis()["flops"] for compiled in (cached, fresh)]
    assert flops[0] / FOLDS < 0.6 * flops[1]
    # The images stay out: their patches are the kernel's shape.
    assert "3072" not in cached.train.as_text() and "3072" in fresh.train.as_text()


def test_towers_learn_at_their_own_rate(checkpoint: str):
    """The first step of plain descent is the gradient times the rate."""
    study, host, start, *_ = trained(checkpoint)
    own = jax.tree.map(lambda x: x[0], study.plan)
    moves = []
    for rate in (0.1, 0.3):
        changes = {"model.tower_rate": rate, "train.momentum": 0.0}
        named = SMALL | {"model.weights": checkpoint} | changes
        config = mexjax.load_config(CARD, named)
        optimizer = make_optimizer(config.train)
        options = dataclasses.replace(study.options, tower_rate=rate)
        functions = FoldFunctions(config, study.paper, options, study.module, optimizer, False)
        first = jax.tree.map(lambda x: x[0], start)
        state = FoldState(first, {}, optimizer.transform.init(first), np.int32(0))
        after, _ = jit(functions.train)(state, np.int32(0), own, host)
        moves.append({n: v - flat(first)[n] for n, v in flat(after.params).items()})
    for name, move in moves[0].items():
        factor = 3.0 if name.startswith(("['image']", "['text']")) else 1.0
        scale = np.abs(move).max()
        np.testing.assert_allclose(moves[1][name], factor * move, atol=0.01 * scale + 1e-8)


def test_augmentation_turns_the_cache_off(checkpoint: str, caplog):
    config = mexjax.load_config(
        CARD, SMALL | {"model.weights": checkpoint, "augment.is_flipped": True}
    )
    with caplog.at_level(logging.WARNING):
        assert not frozen.is_cached(config, {"some": np.zeros(1)})
    assert "computed in every step" in caplog.text


def test_weights_of_another_network_are_refused(checkpoint: str):
    small = SMALL | {"model.weights": checkpoint, "data.image_size_px": 64}
    with pytest.raises(ConfigError, match=r"images \[B, 224, 224, 3\]"):
        device_data(make_study(mexjax.load_config(CARD, small)))
    with pytest.raises(ConfigError, match=r"trainable_from must be 0 to 2"):
        deep = SMALL | {"model.weights": checkpoint, "model.trainable_from": 9}
        make_study(mexjax.load_config(CARD, deep))


def test_nothing_is_shared_where_nothing_is_kept():
    changes = {"model.trainable_from": 0, "data.image_size_px": 56}
    study = make_study(mexjax.load_config(CARD, SMALL | changes))
    assert "frozen" not in device_data(study)

"""The network of Micro-AU CLIP: variants, what is computed of a tower, what is kept, its peer."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fdp_helpers import jit
from papers import acting, network_of, options_of

from mexjax.errors import ConfigError
from mexjax.models import get_model
from mexjax.models.micro_au_clip import prompts
from mexjax.models.micro_au_clip.attention import token_slots

UNITS = (2, 4, 7, 12)
SMALL = {
    "preset": "tiny",
    "patch_px": 4,
    "grid": 4,
    "image_width": 16,
    "image_depth": 2,
    "image_heads": 2,
    "text_width": 8,
    "text_depth": 2,
    "embed_width": 12,
    "pooling_width": 6,
    "head_width": 8,
}


def make(**changes):
    config = acting("micro_au_clip", SMALL | changes)
    return network_of("micro_au_clip", config, UNITS)


def make_batch(module, count: int = 6, seed: int = 0):
    """Images of noise, places of landmarks, labels."""
    rng = np.random.default_rng(seed)
    side = module.size.image_px
    _, _, mask = token_slots(UNITS)
    places = rng.integers(0, module.size.grid**2, (count, len(UNITS), 6))
    # Units with the same landmarks have the same places.
    places[:, 1] = places[:, 0]
    batch = {
        "image": jnp.asarray(rng.standard_normal((count, side, side, 3)), jnp.float32),
        "landmark_tokens": jnp.asarray(np.where(mask, places, -1), jnp.int32),
        "label": jnp.asarray(rng.integers(0, 2, (count, len(UNITS)))),
    }
    if module.options.contrast == "global":
        texts = module.texts
        ids = np.array(texts.units).reshape(len(UNITS), 2, -1)
        joined = prompts.joined_ids(ids, np.asarray(batch["label"]), comma=texts.comma)
        batch["joined_ids"] = jnp.asarray(joined)
    return batch


def init(module, batch, seed: int = 0):
    run = jit(lambda key: module.init(key, batch, train=False))
    return run(jax.random.key(seed))


@pytest.fixture(scope="module")
def main():
    module = make()
    batch = make_batch(module)
    variables = init(module, batch)
    run = jit(lambda variables, batch: module.apply(variables, batch, train=False))
    return module, variables, batch, run, run(variables, batch)


def test_outputs(main):
    module, _, batch, _, outputs = main
    shapes = {name: value.shape for name, value in outputs.items()}
    assert shapes == {
        "features": (6, 4, 12),
        "attention": (6, 4, 6),
        "share": (6, 4),
        "is_even": (6,),
        "unit_logits": (6, 4, 2),
        "logits": (6, 4),
        "cosines": (6, 4, 2),
        "text_cosines": (4,),
        "emotion_scores": (6, 6),
    }
    np.testing.assert_allclose(outputs["attention"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(outputs["share"].sum(-1), 1, rtol=1e-5)
    assert not np.asarray(outputs["attention"])[:, 2, 4:].any()  # unit 7 has four landmarks
    losses, logs = get_model("micro_au_clip").loss(outputs, batch, module.options)
    total = logs["ce"] + 0.6 * logs["contrast"] + logs["gd"]
    np.testing.assert_allclose(losses, total, rtol=1e-6)
    assert set(get_model("micro_au_clip").predictions(outputs)) == set(outputs) - {
        "is_even",
        "unit_logits",
        "text_cosines",
    }


def test_tokens_are_those_of_the_landmarks(main):
    """The last block computes the tokens that are looked up; here all of them are, and looked up
    one by one."""
    module, variables, batch, _, _ = main

    def every(module, image):
        x = module.image.rest(module.image.first(image, 0), 0)
        return module.image.project(module.image.norm(x))

    tokens = module.apply(variables, batch["image"], method=every)
    found, mask, first = module.apply(
        variables,
        {**batch, **module.apply(variables, batch, method="frozen_part")},
        method="_tokens",
    )
    assert first is None  # nothing asks for the class token
    places = np.asarray(batch["landmark_tokens"])
    for b in range(2):
        for n, row in enumerate(places[b]):
            for j, place in enumerate(row):
                assert mask[n, j] == (place >= 0)
                if place >= 0:
                    np.testing.assert_allclose(found[b, n, j], tokens[b, 1 + place], atol=1e-5)


def test_units_that_share_landmarks_are_told_apart(main):
    _, _, _, _, outputs = main
    features = np.asarray(outputs["features"])
    assert np.abs(features[:, 0] - features[:, 1]).max() > 1e-3


def test_padding_changes_nothing(main):
    module, variables, batch, run, _ = main
    weight = jnp.array([1.0, 1, 1, 1, 0, 0])
    other = make_batch(module, seed=7)
    mixed = {
        name: jnp.where(weight.reshape(-1, *(1,) * (value.ndim - 1)) > 0, value, other[name])
        for name, value in batch.items()
    }

    def mean(batch):
        losses, _ = get_model("micro_au_clip").loss(run(variables, batch), batch, module.options)
        return float(jnp.where(weight > 0, losses, 0).sum() / weight.sum())

    assert mean(mixed | {"weight": weight}) == pytest.approx(mean(batch | {"weight": weight}))


# Every reading and every row of the paper's tables, several in a network where they do not meet.
VARIANTS = {
    "flatten, own space": {
        **{"fc_mode": "flatten", "token_space": "width", "is_contrast_scale_learnt": True},
        "has_unit_projection": True,
    },
    "outgoing, sentences": {
        **{"fc_mode": "outgoing", "gd_target": "normalised", "mer_text": "sentence"},
        "contrast": "softmax_multihot",
    },
    "local": {"branches": "local", "pooling": "mean", "contrast": "softmax_normalised"},
    "global": {"branches": "global", "contrast": "global"},
    "concatenated": {"fusion": "cat_mlp", "pooling": "max", "contrast": "none"},
    "added": {"fusion": "add_mlp", "contrast": "diagonal"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_learns(name: str):
    """Three updates on one batch: the loss falls, and the gradient reaches what it should."""
    module = make(**VARIANTS[name], image_depth=1, text_depth=1)
    batch = make_batch(module, count=4)
    params = init(module, batch)["params"]

    @jit
    def step(params):
        def loss(params):
            outputs = module.apply({"params": params}, batch, train=True)
            return get_model("micro_au_clip").loss(outputs, batch, module.options)[0].mean()

        value, grads = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.02 * g, params, grads), value, grads

    losses = []
    for _ in range(3):
        params, value, grads = step(params)
        losses.append(float(value))
    assert (np.diff(losses) < 0).all(), losses
    flat, _ = jax.tree_util.tree_flatten_with_path(grads)
    silent = {jax.tree_util.keystr(path) for path, grad in flat if not np.asarray(grad).any()}
    # Softmaxes do not see a number that is added to all their inputs, and a dependency layer whose
    # scores are all below zero passes no gradient.
    allowed = ("token_scores']['bias_2", "dependency_bias")
    assert not {path for path in silent if not any(part in path for part in allowed)}
    assert ("text" in params) == (VARIANTS[name].get("contrast") != "none")


def test_what_is_frozen_and_how_fast_the_rest_learns():
    config = {"weights": "random", "trainable_from": 9}
    paper, options = get_model("micro_au_clip"), options_of("micro_au_clip", config)
    params = jax.eval_shape(
        lambda: make_full(config).init(jax.random.key(0), full_batch(), train=False)
    )["params"]
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    sizes = {True: 0, False: 0}
    towers = 0
    for keys, leaf in flat:
        path = tuple(key.key for key in keys)
        is_frozen = paper.is_frozen(path, options)
        sizes[is_frozen] += int(np.prod(leaf.shape))
        in_tower = path[0] in ("image", "text")
        assert paper.rate_factor(path, options) == (0.1 if in_tower else 1.0)
        towers += int(np.prod(leaf.shape)) * (in_tower and not is_frozen)
        if is_frozen:
            assert not paper.is_frozen(path, dataclasses.replace(options, trainable_from=0))
    # Three blocks of each tower, norms and projections behind them; the parts of the units.
    assert towers == 30_720_768 + 657_920
    assert sizes[False] - towers == 526_344 + 786_448 + 1_054_736
    assert sizes[True] + towers == 151_277_312  # all of CLIP but its temperature
    kept = dataclasses.replace(options, train_text=False, train_projections=False)
    assert paper.is_frozen(("text", "projection", "kernel"), kept)
    assert paper.is_frozen(("image", "post_norm", "scale"), kept)
    assert not paper.is_frozen(("image", "blocks_9", "fc1", "kernel"), kept)


def make_full(config):
    units = (1, 2, 4, 7, 12, 14, 15, 17)
    return network_of("micro_au_clip", config, units)


def full_batch():
    return {
        "image": jnp.zeros((1, 224, 224, 3)),
        "landmark_tokens": jnp.zeros((1, 8, 6), jnp.int32),
    }


def test_presets_without_weights_say_what_they_need():
    with pytest.raises(ConfigError, match=r"--config\.model\.weights=model\.safetensors"):
        options_of("micro_au_clip", {"preset": "paper"})
    with pytest.raises(ConfigError, match="trainable_from must be 0 to 2"):
        make(weights="random", trainable_from=3)
    with pytest.raises(ConfigError, match=r"'add_mpl'\. Did you mean 'add_mlp'"):
        make(fusion="add_mpl")
    with pytest.raises(ConfigError, match=r"found AU2, AU4, AU7, AU9"):
        network_of("micro_au_clip", SMALL, (2, 4, 7, 9))
    with pytest.raises(ConfigError, match=r"found none"):
        network_of("micro_au_clip", SMALL, ())


@pytest.mark.slow
def test_the_peer_is_the_same_network():
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    from torch_peer import micro_au_clip as peer

    module = make(weights="random", trainable_from=1)
    batch = make_batch(module)
    params = init(module, batch)["params"]

    @jit
    def gradients(params):
        def loss(params):
            outputs = module.apply({"params": params}, batch, train=True)
            return get_model("micro_au_clip").loss(outputs, batch, module.options)[0].mean()

        return jax.value_and_grad(loss)(params)

    value, grads = gradients(params)
    network = peer.Network(module)
    network.load(jax.tree.map(np.asarray, params))
    network.groups()
    image = torch.from_numpy(np.moveaxis(np.array(batch["image"]), -1, 1).copy())
    places = torch.from_numpy(np.array(batch["landmark_tokens"]).astype(np.int64))
    label = torch.from_numpy(np.array(batch["label"]).astype(np.int64))
    outputs = network(image, places)
    total = peer.loss(outputs, label, dataclasses.asdict(module.options))
    assert float(total.detach()) == pytest.approx(float(value), rel=1e-5)
    total.backward()
    theirs = {k: p.grad.numpy() for k, p in network.named_parameters() if p.grad is not None}
    ours = peer.Network(module)
    ours.load(jax.tree.map(np.asarray, grads))
    trained = 0
    for name, wanted in ours.named_parameters():
        if name in theirs:
            found, wanted = theirs[name], wanted.detach().numpy()
            np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-6, err_msg=name)
            trained += 1
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert "visual.conv1.weight" in frozen and "transformer.resblocks.0.ln_1.weight" in frozen
    assert trained == len(dict(network.named_parameters())) - len(frozen)

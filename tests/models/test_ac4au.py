"""AC4AU: sizes, what it cannot see and what it must, training, folds of different subjects."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from papers import acting, inputs_of, network_of, options_of

from mexjax.errors import ConfigError
from mexjax.models import get_model, to_torch
from mexjax.models.ac4au.token_encoder import TokenEncoder
from mexjax.nn.mobilefacenet import MobileFaceNet
from mexjax.nn.mode import Mode

# Programs of this file run a few times: compiling them well takes longer than running them.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
STILL = {"spatial_dropout_rate": 0.0, "temporal_dropout_rate": 0.0, "expert_dropout_rate": 0.0}
SMALL = {
    "gamma": 0.1,
    "preset": "tiny",
    "backbone_divisor": 8,
    "emb_dim": 32,
    "spatial_mlp_width": 16,
    "temporal_mlp_width": 32,
    "expert_width": 8,
    **STILL,
}
RNGS = dict(zip(("params", "dropout"), jax.random.split(jax.random.key(0)), strict=True))


def clips(batch: int = 2, size: int = 32, seed: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-1, 1, (batch, 8, size, size, 3)), jnp.float32)


def counts(config) -> dict[str, int]:
    module = network_of("ac4au", config, 12)
    batch = {"clip": jnp.zeros((1, 8, 112, 112, 3))}
    params = jax.eval_shape(lambda: module.init(RNGS, batch, train=False))["params"]
    return {
        name: sum(math.prod(a.shape) for a in jax.tree.leaves(part))
        for name, part in params.items()
    }


def test_parameters_of_the_paper_line_by_line():
    found = counts({"preset": "paper"})
    assert found == {
        "backbone": 1_200_512,
        "spatial": 198_272 + 6_272,
        # Two layers, positions and the last norm, which the count of 6,478,108 leaves out.
        "temporal": 4_205_568 + 4_096 + 1_024,
        "head": 73_872 + 789_516,
    }
    bare = counts({"preset": "paper", "has_temporal_norm": False})
    assert sum(bare.values()) == 6_478_108
    longer = counts({"preset": "paper", "tail": "residual"})
    assert sum(longer.values()) - sum(found.values()) == 34_816


@pytest.fixture(scope="module")
def small():
    """A small network with weights that no longer are those of the start, and its function."""
    module = network_of("ac4au", SMALL, 12)
    variables = jit(lambda: module.init(RNGS, {"clip": clips()}, train=False))()
    # The start is special: zero gates, branches that end in zeros.
    keys = iter(jax.random.split(jax.random.key(1), 500))
    params = jax.tree.map(
        lambda a: a + 0.1 * jax.random.normal(next(keys), a.shape), variables["params"]
    )
    variables = variables | {"params": params}
    return module, variables, jit(lambda v, batch: module.apply(v, batch, train=False))


def test_what_it_returns(small):
    _, variables, run = small
    found = run(variables, {"clip": clips()})
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == {
        "f_dc": (2, 32),
        "f_ac": (2, 8, 32),
        "f": (2, 32),
        "log_p": (2, 12),
        "log_not_p": (2, 12),
        "logits": (2, 12),
        "gates": (2, 12, 12),
        "expert_logits": (2, 12),
    }
    np.testing.assert_allclose(found["f_ac"].sum(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(found["gates"].sum(axis=-1), 1, rtol=1e-5)


def test_a_still_clip_says_nothing_about_whose_it_is(small):
    _, variables, run = small
    still = jnp.repeat(clips()[:, :1], 8, axis=1)
    found = run(variables, {"clip": still})
    np.testing.assert_allclose(found["f_ac"], 0, atol=1e-5)
    np.testing.assert_allclose(found["logits"][0], found["logits"][1], atol=1e-5)
    assert np.abs(found["f_dc"][0] - found["f_dc"][1]).max() > 1e-3


def test_frame_order_is_seen_by_the_position_code_alone(small):
    _, variables, run = small
    order = jnp.array([3, 1, 7, 0, 2, 6, 5, 4])
    clip = clips()
    plain, moved = (run(variables, {"clip": c})["logits"] for c in (clip, clip[:, order]))
    assert np.abs(plain - moved).max() > 1e-4
    blind = network_of("ac4au", SMALL | {"has_temporal_position": False}, 12)
    run = jit(lambda v, batch: blind.apply(v, batch, train=False))
    plain, moved = (run(variables, {"clip": c})["logits"] for c in (clip, clip[:, order]))
    np.testing.assert_allclose(plain, moved, atol=1e-4)


def test_spatial_transformer_starts_by_adding_its_positions_alone():
    encoder = TokenEncoder(1, 4, 64, starts_as_identity=True)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 16)), jnp.float32)
    variables = encoder.init(jax.random.key(0), x, Mode())
    moved = encoder.apply(variables, x, Mode()) - x
    np.testing.assert_allclose(moved[0], variables["params"]["position"][0], atol=1e-6)
    other = TokenEncoder(1, 4, 64, style="torch_default")
    y = other.apply(other.init(jax.random.key(0), x, Mode()), x, Mode())
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-5)  # ends with a norm


def test_repeated_last_frames_may_be_left_out(small):
    _, variables, _ = small
    config = SMALL | {"masks_repeated_frames": True}
    clip = clips()
    clip = clip.at[:, 5:].set(clip[:, 5:6])
    batch = inputs_of("ac4au", clip, config)
    np.testing.assert_array_equal(batch["is_seen"], [[True] * 6 + [False] * 2] * 2)
    still = inputs_of("ac4au", jnp.repeat(clip[:, :1], 8, axis=1), config)["is_seen"]
    np.testing.assert_array_equal(still, [[True] + [False] * 7] * 2)

    # The decomposition would carry the repeated frames into all others.
    module = network_of("ac4au", config | {"frd": "none"}, 12)
    run = jit(lambda v, batch: module.apply(v, batch, train=False)["f"])
    one = run(variables, batch)
    two = run(variables, batch | {"clip": batch["clip"].at[:, 6:].add(0.5)})
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_colours_in_the_order_of_the_weights():
    clip = clips()
    np.testing.assert_array_equal(inputs_of("ac4au", clip, SMALL)["clip"], clip[..., ::-1])
    rgb = inputs_of("ac4au", clip, SMALL | {"channel_order": "rgb"})["clip"]
    np.testing.assert_array_equal(rgb, clip)


def training_batch(num_subjects: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        "clip": clips(6),
        "label": jnp.asarray(rng.integers(0, 2, (6, 12))),
        "subject": jnp.arange(6) % 3,
        "weight": jnp.ones(6),
        "unit_share": jnp.full(12, 0.3),
        "is_training_subject": jnp.arange(num_subjects) < 3,
    }


def make_step(config):
    module = network_of("ac4au", config, 12)

    def step(params, stats, batch, key):
        def loss(params):
            outputs, updated = module.apply(
                {"params": params, "batch_stats": stats},
                batch,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            values, logs = get_model("ac4au").loss(outputs, batch, module.options)
            logs = {name: value.mean() for name, value in logs.items()}
            return values.mean(), (logs, updated["batch_stats"])

        (value, (logs, stats_)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 0.02 * g, params, grads)
        return params, stats_, value, logs, grads

    return module, jit(step)


def test_every_part_learns():
    module, step = make_step(SMALL)
    batch = training_batch(5)
    variables = jit(lambda: module.init(RNGS, batch, train=False))()
    assert "subject_prototypes" in variables["params"]
    params, stats, seen = variables["params"], variables["batch_stats"], []
    for i in range(6):
        params, stats, value, logs, grads = step(params, stats, batch, jax.random.key(i))
        assert float(value) == pytest.approx(float(logs["au"] + 0.1 * logs["dc"]), rel=1e-4)
        seen.append(float(value))
    assert seen[-1] < seen[0]
    flat, _ = jax.tree_util.tree_flatten_with_path(grads)
    silent = [jax.tree_util.keystr(path) for path, grad in flat if not np.asarray(grad).any()]
    assert not silent
    # Prototypes of subjects that this fold does not train on stay where they were.
    np.testing.assert_array_equal(
        params["subject_prototypes"][3:], variables["params"]["subject_prototypes"][3:]
    )


def test_frozen_norms_keep_their_statistics():
    config = SMALL | {"freeze_bn": True}
    module, step = make_step(config)
    batch = training_batch(3)
    variables = jit(lambda: module.init(RNGS, batch, train=False))()
    params, stats, *_ = step(
        variables["params"], variables["batch_stats"], batch, jax.random.key(0)
    )
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])
    assert (params["backbone"]["conv1"]["bn"]["scale"] != 1).any(), "its scales still learn"


@pytest.mark.parametrize(
    "changes",
    [
        {"insert_at": "conv_4", "tail": "residual"},
        {"frd": "none", "head": "linear", "au_loss": "bce"},
        {"frd": "eq3", "head": "no_gate", "mix": "logit", "expert": "linear"},
        {"frd_bands": (1, 2), "top_k": 2, "spatial_style": "torch_default"},
        {"dtype": "bfloat16", "temporal_style": "torch_default"},
    ],
)
def test_variants_give_probabilities(changes):
    module = network_of("ac4au", acting("ac4au", SMALL | changes), 12)

    @jit
    def run():
        batch = {"clip": clips()}
        variables = module.init(RNGS, batch, train=False)
        return module.apply(variables, batch, train=False)

    found = run()
    assert found["logits"].dtype == jnp.float32
    total = np.exp(found["log_p"]) + np.exp(found["log_not_p"])
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_given_weights_replace_the_draw_and_must_fit(tmp_path):
    faces = MobileFaceNet()
    shapes = jax.eval_shape(lambda: faces.init(jax.random.key(0), jnp.zeros((1, 112, 112, 3))))
    rng = np.random.default_rng(0)
    given = jax.tree.map(lambda a: rng.random(a.shape, np.float32), shapes)
    path = tmp_path / "face.npz"
    np.savez(path, **to_torch("mobilefacenet", given))
    config = {"preset": "paper", "pretrained": str(path), "backbone_rate": 0.1}
    paper, options = get_model("ac4au"), options_of("ac4au", config)
    for kind, found in (
        ("params", paper.start(options)),
        ("batch_stats", paper.start_statistics(options)),
    ):
        assert set(found) == {"backbone"}
        jax.tree.map(np.testing.assert_array_equal, found["backbone"], given[kind])
    assert paper.rate_factor(("backbone", "conv1"), options) == 0.1
    assert paper.rate_factor(("head", "gates"), options) == 1.0
    with pytest.raises(ConfigError, match=r"model\.width=1"):
        paper.start(options_of("ac4au", config | {"width": 2}))


def test_what_is_missing_or_unknown_is_named():
    with pytest.raises(ConfigError, match=r"model\.pretrained=FILE"):
        get_model("ac4au").start(options_of("ac4au", {"preset": "paper"}))
    assert get_model("ac4au").start(options_of("ac4au", {"preset": "scratch"})) == {}
    for config, words in (
        ({"preset": "official"}, "Known: paper, scratch, tiny"),
        ({"frdd": 1}, "Did you mean 'frd'"),
        ({"mix": "probs"}, "Did you mean 'prob'"),
        ({"frd_bands": (1,)}, "first and the last bin"),
    ):
        with pytest.raises(ConfigError, match=words):
            options_of("ac4au", config)
    with pytest.raises(ConfigError, match="B,T,H,W,C"):
        network_of("ac4au", SMALL, 2).init(RNGS, {"clip": jnp.zeros((8, 32, 32, 3))}, train=False)

"""CLIP against the public networks' numbers, with weights made by the written rule."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from device_helpers import slack
from rule_weights import rule_array
from small import ROOT

import mexjax
from mexjax.errors import ConfigError, DataError
from mexjax.interop import clip as interop
from mexjax.nn.clip import SIZES, Clip

GOLDEN = json.loads((ROOT / "tests" / "golden" / "clip.json").read_text(encoding="utf-8"))


def rule_variables(module: Clip):
    """Variables by the rule, under the names of Hugging Face whatever they are stored as."""
    entries = interop.make_entries(interop.variable_shapes(module), "huggingface")
    shapes = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    state = {name: rule_array(name, shape) for name, shape in shapes.items()}
    state["logit_scale"] = np.float32(2.6592)
    return state, interop.common.to_variables(entries, state, "the rule")


@pytest.fixture(scope="module")
def tiny():
    return rule_variables(Clip(SIZES["tiny"]))


@pytest.fixture(scope="module")
def images():
    rng = np.random.Generator(np.random.PCG64(123))
    return jnp.asarray(
        rng.standard_normal((2, 3, 224, 224)).astype(np.float32).transpose(0, 2, 3, 1)
    )


@pytest.fixture(scope="module")
def outputs(tiny, images):
    module, variables = mexjax.from_torch("clip", tiny[0], activation="quick_gelu")
    run = jax.jit(lambda *arguments: module.apply(*arguments))
    return run(variables, images, jnp.array(GOLDEN["input_ids"]))


@pytest.mark.parametrize(
    "name, atol",
    [
        ("image_features", 2e-5),
        ("text_features", 2e-5),
        ("image_embeds", 2e-5),
        ("text_embeds", 2e-5),
        ("logits_per_image", 5e-6),
    ],
)
def test_features_and_logits(outputs, name: str, atol: float):
    np.testing.assert_allclose(outputs[name], GOLDEN[name], atol=atol)


@pytest.mark.slow
def test_the_whole_vit_b_32(images):
    """Texts are cut after their last token: causal attention does not see what follows."""
    golden = ROOT / "tests" / "golden" / "clip_vit_b_32.json"
    golden = json.loads(golden.read_text(encoding="utf-8"))
    module = Clip(SIZES["vit_b_32"])
    _, variables = rule_variables(module)
    found = jax.jit(module.apply)(variables, images, jnp.array(golden["input_ids"]))
    for name in ("image_features", "text_features", "image_embeds", "text_embeds"):
        np.testing.assert_allclose(found[name][:, :48], golden[name], atol=slack(2e-5))
    for name in ("image_features", "text_features"):
        norms = np.linalg.norm(found[name], axis=-1)
        np.testing.assert_allclose(norms, golden[f"{name}_norm"], rtol=slack(1e-5))
    np.testing.assert_allclose(
        found["logits_per_image"], golden["logits_per_image"], atol=slack(5e-6)
    )
    places = [7 * row + column for row, column in golden["probes"]]
    for ours, theirs in (("patch_tokens_raw", "tokens_raw"), ("patch_tokens", "tokens")):
        tokens = found[ours][:, places, :12]
        np.testing.assert_allclose(tokens, golden[theirs], atol=slack(1e-4))


def test_patch_tokens_lie_where_they_are_seen(outputs):
    """Row and column of five patches that no transposition maps onto themselves."""
    places = [7 * row + column for row, column in GOLDEN["probes"]]
    for ours, theirs in (("_raw", "tokens_raw"), ("_normed", "tokens_normed"), ("", "tokens")):
        tokens = outputs[f"patch_tokens{ours}"][:, places]
        np.testing.assert_allclose(tokens, GOLDEN[theirs], atol=slack(1e-4))


def test_both_namings_give_the_same_variables(tiny):
    state, variables = tiny
    for naming in interop.NAMINGS:
        stored = mexjax.to_torch("clip", variables, naming=naming)
        module, loaded = mexjax.from_torch("clip", stored, activation="gelu")
        assert (module.size, module.activation) == (SIZES["tiny"], "gelu")
        chex.assert_trees_all_equal(loaded, variables)
    assert set(mexjax.to_torch("clip", variables, naming="huggingface")) == set(state)


@pytest.mark.parametrize("naming", interop.NAMINGS)
def test_names_and_shapes_of_the_public_checkpoints(naming: str):
    entries = interop.make_entries(interop.variable_shapes(Clip(SIZES["vit_b_32"])), naming)
    lines = sorted(
        f"{name} {'x'.join(map(str, shape)) or 'scalar'}"
        for entry in entries
        for name, shape in zip(entry.names, entry.shapes, strict=True)
    )
    assert len(lines) == GOLDEN[naming]["entries"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == GOLDEN[naming]["sha256"]
    count = sum(int(np.prod(shape)) for entry in entries for shape in entry.shapes)
    assert count == 151_277_313


def test_files_and_half_precision(tiny, tmp_path: Path, caplog):
    state, variables = tiny
    halves = {name: np.asarray(array, np.float16) for name, array in state.items()}
    halves["text_model.embeddings.position_ids"] = np.arange(16)[None]
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(halves, path)
    with caplog.at_level(logging.WARNING):
        module, loaded = mexjax.from_torch("clip", path)
    assert "Nothing tells the activation" in caplog.text and module.activation == "quick_gelu"
    chex.assert_trees_all_close(loaded, variables, rtol=slack(1e-3), atol=slack(1e-4))


@pytest.mark.parametrize(
    "name, content, wanted",
    [
        ("config.json", {"vision_config": {"hidden_act": "gelu"}}, "gelu"),
        ("config.json", {"model_type": "clip"}, "quick_gelu"),
        ("open_clip_config.json", {"model_cfg": {"embed_dim": 512}}, "gelu"),
        ("open_clip_config.json", {"model_cfg": {"quick_gelu": True}}, "quick_gelu"),
    ],
)
def test_the_activation_is_read_beside_the_file(
    tiny, tmp_path: Path, caplog, name: str, content: dict, wanted: str
):
    safetensors.numpy.save_file(
        {n: np.asarray(a) for n, a in tiny[0].items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    module, _ = mexjax.from_torch("clip", tmp_path / "model.safetensors")
    assert module.activation == wanted and not caplog.text


def test_openai_archive(tiny, tmp_path: Path, caplog):
    """OpenAI's files are programs with their tensors in half precision and three scalars."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    stored = mexjax.to_torch("clip", tiny[1], naming="openai")
    root = torch.nn.Module()

    def put(name: str, value) -> None:
        *parents, leaf = name.split(".")
        at = root
        for part in parents:
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        at.register_buffer(leaf, value)

    for name, array in stored.items():
        put(name, torch.from_numpy(np.array(array)).half())
    for name, value in (("input_resolution", 224), ("context_length", 16), ("vocab_size", 128)):
        put(name, torch.tensor(value))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(root), tmp_path / "ViT-tiny.pt")
    module, loaded = mexjax.from_torch("clip", tmp_path / "ViT-tiny.pt")
    assert module.activation == "quick_gelu" and not caplog.text
    chex.assert_trees_all_close(loaded, tiny[1], rtol=slack(1e-3), atol=slack(1e-4))


def test_context_and_padding_do_not_matter(tiny):
    module, variables = Clip(SIZES["tiny"]), tiny[1]
    ids = np.array(GOLDEN["input_ids"])
    padded = np.where(np.arange(16) > ids.argmax(axis=1)[:, None], 127, ids)
    run = jax.jit(
        lambda ids: module.apply(
            variables, ids, method=lambda m, ids: m.text.rest(m.text.first(ids, 1), ids, 1)
        )
    )
    whole = run(ids)
    np.testing.assert_allclose(run(ids[:, :9]), whole, atol=slack(1e-6))
    np.testing.assert_allclose(run(padded), whole, atol=slack(1e-6))
    np.testing.assert_allclose(whole, GOLDEN["text_features"], atol=slack(2e-5))


def test_towers_can_be_cut_anywhere_and_asked_for_some_tokens(tiny, images, outputs):
    module, variables = Clip(SIZES["tiny"]), tiny[1]
    places = jnp.array([[3, 17, 17, 49], [0, 50 - 1, 8, 30]])

    def cut(m, images, at):
        rest = m.image.rest(m.image.first(images, at), at, places)
        return m.image.project(m.image.norm(rest))

    every = jnp.concatenate([outputs["image_features"][:, None], outputs["patch_tokens"]], axis=1)
    wanted = jnp.take_along_axis(every, places[..., None], axis=1)
    for at in range(3):
        found = jax.jit(lambda i, at=at: module.apply(variables, i, at, method=cut))(images)
        np.testing.assert_allclose(found, wanted, atol=slack(2e-6))


def test_what_does_not_fit_is_named(tiny):
    state = dict(tiny[0])
    with pytest.raises(DataError, match=r"visual\.conv1\.weight.*vision_model"):
        mexjax.from_torch("clip", {"fc.weight": np.zeros((2, 2), np.float32)})
    short = {name: array for name, array in state.items() if "layers.1.mlp.fc2.bias" not in name}
    with pytest.raises(
        DataError, match=r"2 missing: text_model\.encoder\.layers\.1\.mlp\.fc2\.bias"
    ):
        mexjax.from_torch("clip", short, activation="gelu")
    with pytest.raises(ConfigError, match="swish"):
        mexjax.from_torch("clip", state, activation="swish")
    odd = state | {"text_projection.weight": np.zeros((15, 32), np.float32)}
    with pytest.raises(DataError, match=r"text_projection\.weight \(expected \(16, 32\)"):
        mexjax.from_torch("clip", odd, activation="gelu")
    wide = {n: a for n, a in state.items() if "layers.1" not in n}
    with pytest.raises(DataError, match="image_heads"):
        mexjax.from_torch("clip", wide, activation="gelu")
    module, _ = mexjax.from_torch("clip", wide, activation="gelu", image_heads=2, text_heads=8)
    assert (module.size.image.num_heads, module.size.text.num_heads) == (2, 8)
    with pytest.raises(ConfigError, match=r"images \[B, 224, 224, 3\]"):
        Clip(SIZES["tiny"]).apply(tiny[1], jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 4), int))

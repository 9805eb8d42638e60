"""Flow as a feature: what is stored of it, how it is mirrored, and who sees it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from papers import network_of
from small import ROOT
from st_helpers import SMALL, jit

import mexjax
from mexjax.errors import ConfigError
from mexjax.ops import flow_frames
from mexjax.train import augment
from mexjax.train.programs import trace_step
from mexjax.train.study import make_study

CARD = ROOT / "configs" / "gamdss.py"
SMALL_STUDY = {
    "model.feature": "flow",
    "data.image_size_px": 64,
    "data.synthetic.num_subjects": 3,
    "data.synthetic.num_clips": 6,
    "folds.per_chunk": 1,
    "has_progress": False,
}


def textured(shift: tuple[float, float], size: int = 64) -> np.ndarray:
    """u8[S,S]: a smooth pattern whose content lies `shift` (right, down) px further."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    x, y = x - shift[0], y - shift[1]
    waves = np.sin(0.5 * x + 0.2 * y) + np.sin(0.6 * y - 0.3 * x) + np.sin(0.25 * (x + y))
    return np.round(127.5 + 40 * waves).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_flow_of_both_phases_follows_the_frames(channels: int):
    # To the apex everything moves by (0.6, -0.3) px; from there to the offset back by half of it.
    frames = np.stack([textured((0, 0)), textured((0.6, -0.3)), textured((0.3, -0.15))])
    clips = np.repeat(frames[None, ..., None], channels, axis=-1)
    with_flow = flow_frames.with_flow(clips)
    assert with_flow.shape == (1, flow_frames.num_frames(channels), 64, 64, channels)
    np.testing.assert_array_equal(with_flow[:, :3], clips)
    coded = jnp.asarray(with_flow[:, 3:], jnp.float32) / 255
    scale = flow_frames.RANGE_PX * 64 / 224
    for found, part in zip(flow_frames.decode(coded), (1.0, 0.5), strict=True):
        u, v, size = (scale * np.asarray(found)[0, 8:-8, 8:-8, i] for i in range(3))
        assert np.median(u) == pytest.approx(0.6 * part, abs=0.08)
        assert np.median(v) == pytest.approx(-0.3 * part, abs=0.08)
        np.testing.assert_allclose(size, np.hypot(u, v), atol=2 * scale / 127)


def test_no_motion_is_zero_and_large_motion_stays_in_range():
    still = np.repeat(textured((0, 0))[None, None, ..., None], 3, axis=1)
    coded = jnp.asarray(flow_frames.with_flow(still)[:, 3:], jnp.float32) / 255
    for found in flow_frames.decode(coded):
        np.testing.assert_allclose(found, 0, atol=1e-6)
    far = flow_frames.encode(np.full((4, 224, 2), [-50.0, 50.0], np.float32))
    np.testing.assert_array_equal(far, np.broadcast_to([1, 255, 255], far.shape))


@pytest.mark.parametrize("channels", [1, 3])
def test_mirrored_flow_goes_the_other_way(channels: int):
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 256, (2, flow_frames.num_frames(channels), 8, 6, channels))
    clips = jnp.asarray(codes, jnp.float32) / 255
    turned = flow_frames.mirror(clips)
    np.testing.assert_allclose(turned[:, :3], clips[:, :3, :, ::-1], atol=1e-7)
    pairs = (flow_frames.decode(x[:, 3:]) for x in (clips, turned))
    for before, after in zip(*pairs, strict=True):
        expected = np.asarray(before)[:, :, ::-1] * np.array([-1, 1, 1])
        np.testing.assert_allclose(after, expected, atol=1e-5)
    np.testing.assert_allclose(flow_frames.mirror(turned), clips, atol=1e-6)


def test_augmentation_mirrors_clips_as_it_is_told():
    changes = {"is_flipped": True, "shift_px": 0, "gain_std": 0}
    settings = mexjax.load_config(CARD, {f"augment.{key}": value for key, value in changes.items()})
    rng = np.random.default_rng(0)
    clips = jnp.asarray(rng.integers(1, 256, (8, 9, 4, 4, 1)), jnp.float32) / 255
    found = augment.augment(clips, jax.random.key(0), settings.augment, flow_frames.mirror)
    is_turned = [not np.array_equal(a, b) for a, b in zip(found, clips, strict=True)]
    assert 0 < sum(is_turned) < 8
    for turned, one, new in zip(is_turned, clips, found, strict=True):
        np.testing.assert_array_equal(new, flow_frames.mirror(one) if turned else one)


def test_the_unit_sees_flow_in_the_place_of_the_difference():
    """With the difference given as flow, the logits are those of the difference."""
    rng = np.random.default_rng(0)
    frames = {
        name: jnp.asarray(rng.standard_normal((2, 32, 32, 3)), jnp.float32)
        for name in ("onset", "apex", "offset")
    }
    flows = {
        "flow_rise": frames["apex"] - frames["onset"],
        "flow_fall": frames["apex"] - frames["offset"],
    }
    by_difference, by_flow = (
        network_of("gamdss", {**SMALL, "feature": feature}, 3) for feature in ("difference", "flow")
    )

    @jit
    def run(frames, flows):
        variables = by_difference.init(jax.random.key(0), frames, train=False)
        batches = ((by_difference, frames), (by_flow, frames | flows))
        return [module.apply(variables, batch, train=False) for module, batch in batches]

    wanted, found = run(frames, flows)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)
    with pytest.raises(ConfigError, match="flow_rise"):
        jax.eval_shape(lambda: by_flow.init(jax.random.key(0), frames, train=False))


def test_a_study_of_flow_has_it_in_its_arrays():
    study = make_study(mexjax.load_config(CARD, SMALL_STUDY))
    clips = study.dataset.clips
    assert clips.shape == (6, flow_frames.num_frames(1), 64, 64, 1)
    flows = flow_frames.decode(jnp.asarray(clips[:, 3:], jnp.float32) / 255)
    assert all(float(jnp.abs(flow).max()) > 0.02 for flow in flows)
    trace_step(study, study.dataset.on_host())

    control = mexjax.load_config(CARD, {**SMALL_STUDY, "data.control": "static"})
    still = make_study(control).dataset.clips
    for flow in flow_frames.decode(jnp.asarray(still[:, 3:], jnp.float32) / 255):
        np.testing.assert_allclose(flow, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.image_size_px": 16}, "at least 32 pixels"),
        ({"data.split_scale": "train"}, "split_scale"),
        ({"data.flow_method": "horn"}, "farneback"),
        ({"model.feature": "optical"}, "difference"),
    ],
)
def test_what_flow_does_not_allow_is_said(changes: dict, words: str):
    config = mexjax.load_config(CARD, SMALL_STUDY | changes)
    with pytest.raises(ConfigError, match=words):
        study = make_study(config)
        trace_step(study, study.dataset.on_host())


def test_only_images_change_their_brightness():
    changes = {"gain_std": 0.5, "brightness": 0.4, "shift_px": 0, "is_flipped": False}
    overrides = {f"augment.{key}": value for key, value in changes.items()}
    config = mexjax.load_config(CARD, SMALL_STUDY | overrides)
    clips = jnp.asarray(np.random.default_rng(0).random((2, 5, 8, 8, 1)), jnp.float32)
    found = augment.augment(clips, jax.random.key(0), config.augment, num_images=3)
    np.testing.assert_array_equal(found[:, 3:], clips[:, 3:])
    assert (jnp.abs(found - clips)[:, :3].max(axis=(1, 2, 3, 4)) > 0.01).all()

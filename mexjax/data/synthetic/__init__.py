"""Faces that make micro-expressions, drawn by program: a dataset that needs no licence.

Each subject is 68 landmarks and an appearance; action units displace and shade the skin and move
the lids; light, pose, drift, blinks, noise and compression distract. Appearance says nothing about
the class: only motion does. Intensities, key frames, landmarks and flow are known exactly.

    config = SyntheticConfig(num_clips=60)
    table, clips = generate(config)          # the default view
    plan = make_plan(config)                 # or any frame of any clip
    render_clip(plan, 0, [0, 26]), truth(plan, 0, [0, 26])
"""

from mexjax.data.synthetic.collection import (
    CAMERAS,
    Camera,
    collection_table,
    generate_collection,
    make_collection,
)
from mexjax.data.synthetic.config import PRESETS, SyntheticConfig, make_config, preset
from mexjax.data.synthetic.dataset import VIEWS, default_view, generate, make_table
from mexjax.data.synthetic.emotions import AUS, TABLES, EmotionTable, bayes
from mexjax.data.synthetic.flavours import FIXED, FLAVOURS, flavour
from mexjax.data.synthetic.frames import render_clip
from mexjax.data.synthetic.plan import Clip, Plan, make_plan
from mexjax.data.synthetic.timing import Timing, sample_frames
from mexjax.data.synthetic.truth import Truth, flow, truth

__all__ = [
    "AUS",
    "CAMERAS",
    "FIXED",
    "FLAVOURS",
    "PRESETS",
    "TABLES",
    "VIEWS",
    "Camera",
    "Clip",
    "EmotionTable",
    "Plan",
    "SyntheticConfig",
    "Timing",
    "Truth",
    "bayes",
    "collection_table",
    "default_view",
    "flavour",
    "flow",
    "generate",
    "generate_collection",
    "make_collection",
    "make_config",
    "make_plan",
    "make_table",
    "preset",
    "render_clip",
    "sample_frames",
    "truth",
]

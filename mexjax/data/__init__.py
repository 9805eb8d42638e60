"""Clips, prepared on disk or drawn from nothing, become arrays on the device.

The modules are imported one by one: preparing clips needs some of them, and those know no JAX.
"""

__all__ = [
    "apex_spotting",
    "captions",
    "class_choice",
    "clip_frames",
    "dataset",
    "embedded",
    "keyframes",
    "landmark_tokens",
    "loading",
    "manifest",
    "prepared",
    "records",
    "same_frames",
    "sampling",
    "synthetic",
    "view_cache",
    "view_frames",
    "view_keys",
    "views",
]

"""Preparation: a release of a dataset, or a user's own clips, becomes a folder of prepared clips.

`pipeline.prepare(options.Options(...))` does it all. The modules are imported one by one, because
some bring OpenCV and pandas, and the command's help must not wait for them.
"""

__all__ = [
    "cascade_faces",
    "command",
    "contact_sheet",
    "cores",
    "cropping",
    "depth",
    "face_check",
    "face_geometry",
    "face_looks",
    "faces",
    "fingerprints",
    "image_headers",
    "images",
    "inspection",
    "landmark_table",
    "layouts",
    "manifest_rows",
    "mediapipe_faces",
    "next_step",
    "options",
    "pipeline",
    "regular_files",
    "release_depth",
    "shards",
    "sources",
    "summary",
    "tiff",
    "videos",
]

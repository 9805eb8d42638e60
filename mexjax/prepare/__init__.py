"""From a release of a dataset, or from a user's own clips, to a folder of prepared clips.

`pipeline.prepare(options.Options(...))` does it all. The modules are imported one by one, because
some bring OpenCV and pandas, and the command's help must not wait for them.
"""

__all__ = [
    "cascade_faces",
    "command",
    "contact_sheet",
    "cropping",
    "face_geometry",
    "faces",
    "images",
    "inspection",
    "landmark_table",
    "layouts",
    "mediapipe_faces",
    "options",
    "pipeline",
    "shards",
    "sources",
    "summary",
]

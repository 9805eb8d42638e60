"""The arrays of `features.npz`, which a run on action units keeps beside logits.

They are for models that compare each unit with texts (Micro-AU CLIP). docs/results_format.md
describes the file; the report makes from it the recognition of emotions without emotion labels, and
pictures.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from mexjax.data.dataset import Dataset
from mexjax.data.loading import apex_frames
from mexjax.errors import DataError
from mexjax.models.micro_au_clip.start import combination_emotions, combination_members
from mexjax.protocol.action_units import numbers_of
from mexjax.protocol.classes import label_clips

NUM_FACES = 4  # clips whose faces are kept for the picture of attention
_KEPT = {"cosines": np.float32, "attention": np.float32, "features": np.float16}


def features(
    config: ConfigDict, dataset: Dataset, rows: np.ndarray, outputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The arrays of `features.npz`.

    Args:
      config: the whole configuration.
      dataset: the clips.
      rows: i[N], the row of each held-out clip, in the order of `predictions.npz`.
      outputs: `predictions` of the held-out clips, [N, ...].

    Returns:
      Nothing, where the network has no texts to compare with.
    """
    if "emotion_scores" not in outputs:
        return {}
    units = numbers_of(config.protocol.units)
    members = combination_members(units)
    texts = ["+".join(str(u) for u, has in zip(units, row, strict=True) if has) for row in members]
    arrays = {name: outputs[name].astype(dtype) for name, dtype in _KEPT.items() if name in outputs}
    try:
        emotion, names = label_clips(dataset.table, 3)
    except DataError:  # there is no map of this dataset's words to three classes
        emotion, names = np.full(len(dataset.table), -1, np.int32), ()
    faces = _choose_faces(dataset.labels[rows], dataset.subjects[rows])
    views = {"landmark_tokens": dataset.views["landmark_tokens"][rows]}
    return {
        "emotion_scores": outputs["emotion_scores"].astype(np.float32),
        "score_emotion": np.array(combination_emotions(units)),
        "score_units": np.array(texts),
        "emotion": emotion[rows].astype(np.int32),
        "emotion_classes": np.array(names, dtype=str),
        "face_row": faces.astype(np.int32),
        "face": apex_frames(config, dataset.table.iloc[rows[faces]]),
        **views,
        **arrays,
    }


def _choose_faces(labels: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Rows i[M] of clips of different people that together show as many units as can be."""
    rows: list[int] = []
    is_shown = np.zeros(labels.shape[1], bool)
    for _ in range(min(NUM_FACES, len(labels))):
        gain = ((labels > 0) & ~is_shown).sum(axis=1) + 0.1 * (labels > 0).sum(axis=1)
        gain -= 0.5 * np.isin(subjects, subjects[rows])
        gain[rows] = -1
        rows.append(int(gain.argmax()))
        is_shown |= labels[rows[-1]] > 0
    return np.array(rows, int)

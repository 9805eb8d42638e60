"""Rules of a study: who is held out, which label is right, and how predictions are scored.

The room reads no pixels and imports no JAX.
"""

from mexjax.protocol.action_units import AU_SETS, is_coded, label_aus, numbers_of, parse_aus
from mexjax.protocol.classes import label_clips
from mexjax.protocol.fold_list import Fold, ProtocolError
from mexjax.protocol.labelling import label_emotions
from mexjax.protocol.names import fold, tidy
from mexjax.protocol.scoring import TASKS, scoring_of
from mexjax.protocol.splits import PROTOCOLS, label_table, make_folds

__all__ = [
    "AU_SETS",
    "PROTOCOLS",
    "TASKS",
    "Fold",
    "ProtocolError",
    "fold",
    "is_coded",
    "label_aus",
    "label_clips",
    "label_emotions",
    "label_table",
    "make_folds",
    "numbers_of",
    "parse_aus",
    "scoring_of",
    "tidy",
]

"""Nonsense and damage, made by a seeded program: a message, a rebuild or the right result follows.

    python -m tests.fuzz configs --count=10000 --seed=1

`harness` counts outcomes and watches time and memory, `damage` spoils files and JSON values, and
each other module is a kind of case. A case follows from its kind, seed and number alone.
"""

from .configs import Configs, Networks
from .prepared_files import PreparedFiles
from .run_files import Checkpoints, RunFiles
from .tables import Tables

KINDS = {
    "configs": Configs,
    "networks": Networks,
    "tables": Tables,
    "run_files": RunFiles,
    "checkpoints": Checkpoints,
    "prepared_files": PreparedFiles,
}

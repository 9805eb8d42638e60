"""Files that a configuration names for its network: weights, and texts.

A run that goes on reads them again for its next folds, so that another file under the same name
would give folds of two networks in one run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from mexjax.config import flat
from mexjax.errors import DataError
from mexjax.files import is_file
from mexjax.interop.files import weights_digest

log = logging.getLogger(__name__)


def file_digests(config: ConfigDict) -> dict[str, str]:
    """The digest of every file that a key of the model names, by key; the place does not count."""
    digests = {}
    for key, path in _files(config):
        try:
            digests[key] = weights_digest(path)
        except (OSError, DataError):
            continue  # whoever reads it says more
    return digests


def changed_files(before: Mapping[str, str], config: ConfigDict) -> list[str]:
    """What differs from the digests of before, in words; a file that is gone is named in the log.

    Args:
      before: as `file_digests` returns them, none for a run of an older version.
      config: the configuration now.
    """
    now = file_digests(config)
    gone = [key for key in before if key not in now]
    if gone:
        log.warning("The file of %s is not there: it was not compared.", ", ".join(gone))
    return [
        f"the file of {key} has another content"
        for key in before
        if key in now and before[key] != now[key]
    ]


def _files(config: ConfigDict) -> Iterator[tuple[str, Path]]:
    for key, value in flat(config).items():
        if key.startswith("model.") and isinstance(value, str) and value:
            path = Path(os.path.expanduser(value))
            if is_file(path):
                yield key, path

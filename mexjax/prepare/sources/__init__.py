r"""Readers of the public datasets, as they are released, and of a user's own clips.

reading = get_source("casme2").read(Path("CASME2"))
print("\n".join(reading.problems))
files = get_source("casme2").frames(Path("CASME2"), reading.table.iloc[0])
"""

from __future__ import annotations

from mexjax.errors import ConfigError, DataError, unknown_name
from mexjax.prepare.sources.base import Frame, Reading, Source
from mexjax.prepare.sources.casme import CASME, CASME2
from mexjax.prepare.sources.casme3 import CASME3A, CASME3C
from mexjax.prepare.sources.casme_sq import CasmeSquared
from mexjax.prepare.sources.class_folders import ClassFolders
from mexjax.prepare.sources.counts import check_counts
from mexjax.prepare.sources.fourd import FOURD
from mexjax.prepare.sources.mmew import MMEW
from mexjax.prepare.sources.own import OwnTable
from mexjax.prepare.sources.samm import SAMM
from mexjax.prepare.sources.smic import Smic

__all__ = ["SOURCES", "Frame", "Reading", "Source", "check_counts", "get_source"]

_ALL: tuple[Source, ...] = (
    *(CASME, CASME2, SAMM, CasmeSquared(), CASME3A, CASME3C, MMEW, FOURD, Smic()),
    *(ClassFolders(), OwnTable()),
)
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}


def get_source(name: str, layout: str = "") -> Source:
    """Return the reader of a dataset.

    Args:
      name: of the dataset.
      layout: of the folders of `folder`; "": it is guessed.

    Raises:
      DataError: an unknown name; the message lists the known ones.
      ConfigError: a layout that cannot be read, or of another dataset.
    """
    if name not in SOURCES:
        raise DataError(unknown_name("dataset", name, SOURCES))
    if layout and name != "folder":
        raise ConfigError(f"--layout={layout} is for --dataset=folder; {name} has its own layout.")
    if layout:
        return ClassFolders(layout)
    return SOURCES[name]

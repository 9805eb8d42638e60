"""Files of a release are opened only where they are regular.

Opening a FIFO waits for somebody who writes into it, and a device never ends or does something
when it is opened. So the kind of a file is asked first, and what is no regular file is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mexjax import files
from mexjax.errors import DataError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def irregularity(path: Path) -> str:
    """Return what a path is that is no regular file, such as "a FIFO"; "" for a regular one.

    A link is what it leads to. A path that cannot be asked is "" too, unless it is a link: opening
    it says why.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if not path.is_symlink():
            return ""
        if error.errno == errno.ELOOP:
            return "a link that leads to itself"
        return f"a link to {os.readlink(path)}, which is not there"
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; errors of the block that uses it are turned as well.

    Raises:
      DataError: it cannot be opened or read, or it is a folder, FIFO, socket or device.
    """
    kind = irregularity(path)
    if kind and not path.is_dir():
        raise DataError(
            f"Expected a file, found {kind}: {path}. Remove it, or copy the file again from the"
            " release."
        )
    try:
        # The file may have been exchanged for a FIFO since it was asked.
        with files.open_regular(path) as file:
            yield file
    except OSError as error:
        raise DataError(
            f"Cannot read the frame {path}: {error.strerror or error}. Check that the folder is"
            " complete and may be read."
        ) from error

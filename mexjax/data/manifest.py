"""The manifest: one Parquet table of clips, one row each, the same for every dataset.

`BASE` holds the columns of every table of clips, `READING` those that a reader of a dataset adds,
`PREPARED` those that preparation adds. Other columns are kept as they are. The file tells its own
damage: its pages have checksums, and its metadata the SHA-256 of all values.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mexjax.errors import DataError, WorkdirError
from mexjax.files import SEAL, atomic, digest, open_regular

log = logging.getLogger(__name__)

_ANEW = "Prepare the dataset again: the same command goes on from the frames that are there."
_TEXT, _INT, _LIST = pa.string(), pa.int64(), pa.list_(pa.string())

BASE: dict[str, pa.DataType] = {
    "dataset": _TEXT,  # casme2
    "subject": _TEXT,  # casme2/01: the same number in two datasets is not the same person
    "clip": _TEXT,  # unique inside its subject
    "onset": _INT,  # frame numbers as in the release
    "apex": _INT,  # always filled; `notes` says so where it was not annotated
    "offset": _INT,
    "fps": pa.float64(),
    "n_frames": _INT,  # offset - onset + 1, whether or not the files are there
    "emotion": _TEXT,  # lower case, one spelling; "" when there is none
    "au": _TEXT,  # as coded
    "aus": _LIST,  # numbers as text, ascending; doubtful and held units left out
    "aus_unsure": _LIST,
    "landmark_source": _TEXT,  # the way faces were found; "" before preparation
    "notes": _TEXT,  # remarks, joined by "; "
}
READING: dict[str, pa.DataType] = {
    "frame_folder": _TEXT,  # below the root, with "/"; a video file where frames are not files
    "num_missing_frames": _INT,  # how many of n_frames are not there
}
PREPARED: dict[str, pa.DataType] = {
    "num_stored": _INT,  # frames in the record
    "shard": _TEXT,
    "sha256": _TEXT,  # hash of the record
}
COLUMNS: dict[str, pa.DataType] = BASE | READING | PREPARED

MEAN_FACE = ("boxes", "cascade", "precropped")
"""Values of `landmark_source` whose landmarks are those of the mean face, laid into a box."""


def make_table(rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = BASE) -> pd.DataFrame:
    """Rows as a table with the manifest's columns, order and types.

    Args:
      rows: one mapping a clip, with a value for each of `columns`.
      columns: names of `COLUMNS`.

    Raises:
      DataError: a value is missing or of another type.
    """
    schema = pa.schema([(name, COLUMNS[name]) for name in columns])
    rows = [dict(row) for row in rows]
    for name in (name for name in schema.names if COLUMNS[name] == _LIST):
        for row in rows:
            # Arrow would take the letters of a text for a list.
            if not isinstance(row.get(name), (list, tuple)):
                raise DataError(f"Expected a list in column {name!r}, found {row.get(name)!r}.")
    try:
        table = pa.Table.from_pylist(rows, schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise DataError(f"These rows do not fit the manifest's columns: {error}.") from error
    _refuse_nulls(table, "The table of clips")
    return _to_pandas(table)


def write_manifest(table: pd.DataFrame, path: str | Path) -> None:
    """Write the table; the file appears under its name only when it is whole.

    Args:
      table: at least the columns `BASE`; columns outside `COLUMNS` are stored as they are.
      path: file to write, by custom `manifest.parquet`.

    Raises:
      DataError: a column is missing, or its values have another type.
      WorkdirError: the file cannot be written.
    """
    path = Path(path)
    _refuse_missing(table.columns, BASE, "The table of clips")
    try:
        arrow = _cast(pa.Table.from_pandas(table, preserve_index=False))
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise DataError(
            f"The table of clips does not fit the manifest's columns: {error}."
        ) from error
    _refuse_nulls(arrow, "The table of clips")
    arrow = arrow.replace_schema_metadata({SEAL: _digest(arrow)})
    try:
        with atomic(path, "wb") as file:
            pq.write_table(arrow, file, write_page_checksum=True)
    except OSError as error:
        cause = error.__cause__ or error
        raise WorkdirError(
            f"Cannot write the manifest {path}: {cause}. Free space or write to another folder."
        ) from error


def read_manifest(
    path: str | Path, *, required: Iterable[str] = BASE, is_remarked: bool = True
) -> pd.DataFrame:
    """Read a manifest; lists of units come back as Python lists.

    Args:
      path: a file written by `write_manifest`.
      required: columns that must be there.
      is_remarked: True: a file that cannot tell its damage, because an older version of this
        program or another one wrote it, gives a line on the terminal.

    Raises:
      DataError: the file is missing, is not Parquet, is damaged, lacks columns or has values of
        another type.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"There is no manifest {path}. Give the folder that python -m mexjax.prepare wrote."
        )
    try:
        with open_regular(path) as file:
            table = pq.read_table(file, page_checksum_verification=True)
        seal = (table.schema.metadata or {}).get(SEAL.encode())
        is_damaged = seal is not None and seal.decode("ascii", "replace") != _digest(table)
    # Damage in a name or a text is no UTF-8, and one in a type no value of Python.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise DataError(f"{path} is not a readable Parquet file: {reason}. {_ANEW}") from error
    _refuse_missing(table.column_names, required, str(path))
    try:
        table = _cast(table)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise DataError(
            f"{path} has a column of another type: {error}. Prepare the dataset again."
        ) from error
    _refuse_nulls(table, str(path))
    if is_damaged:
        raise DataError(
            f"{path} is damaged or was changed: its values are not those that its SHA-256 is of."
            f" {_ANEW}"
        )
    if seal is None and is_remarked:
        _remark(path)
    return _to_pandas(table)


def _digest(table: pa.Table) -> str:
    """The SHA-256 of the names and values of all columns."""
    return digest(json.dumps(table.to_pydict(), default=str))


@functools.cache
def _remark(path: Path) -> None:
    """Say once that damage of a file would not be noticed."""
    log.warning("%s has no digest, so damage would not be noticed. Preparing again adds one.", path)


def _cast(table: pa.Table) -> pa.Table:
    """The same table with the manifest's type in each column that the manifest knows."""
    for index, name in enumerate(table.column_names):
        if name in COLUMNS and table.schema.field(name).type != COLUMNS[name]:
            table = table.set_column(index, name, table[name].cast(COLUMNS[name]))
    return table.replace_schema_metadata(None)


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    for name in table.column_names:
        if COLUMNS.get(name) == _LIST:
            frame[name] = pd.Series(table[name].to_pylist(), index=frame.index, dtype=object)
    return frame


def _refuse_missing(names: Iterable[str], required: Iterable[str], what: str) -> None:
    names = list(names)
    missing = [name for name in required if name not in names]
    if missing:
        raise DataError(
            f"{what} lacks the columns {', '.join(missing)}; it has"
            f" {', '.join(map(str, names)) or 'none'}. Prepare the dataset again."
        )


def _refuse_nulls(table: pa.Table, what: str) -> None:
    for name in table.column_names:
        if name in COLUMNS and table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise DataError(f"{what} has no value in column {name!r} of its row {row}.")

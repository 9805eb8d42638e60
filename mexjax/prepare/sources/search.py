"""The search for a dataset's spreadsheet: by its name, else by its columns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from mexjax.errors import DataError
from mexjax.prepare.sources.sheets import Form, Sheet, plain, read
from mexjax.prepare.sources.table_files import SUFFIXES

# Releases have spreadsheets of these names, the preferred one first; the end may differ in copies
# ("(1)", "_updated") where the name is long enough to be told from others.
RELEASED: dict[str, tuple[str, ...]] = {
    "casme": ("casme.xlsx",),
    "casme2": (
        "CASME2-coding-20190701.xlsx",
        "CASME2-coding-20140508.xlsx",
        "CASME2-coding-updated.xlsx",
        "CASME2_label_Ver_2.xls",
    ),
    "samm": ("SAMM_Micro_FACS_Codes_v2.xlsx", "SAMM_Micro_FACS_Codes.xlsx", "SAMM_20181215.xlsx"),
    "casme_sq": (
        "CAS(ME)^2code_final.xlsx",
        "CAS(ME)^2code_final(Updated).xlsx",
        "code_final.xlsx",
    ),
    "casme3a": ("cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",),
    "casme3c": ("CAS(ME)3_part_C_ME.xlsx",),
    "mmew": ("MMEW_Micro_Exp.xlsx",),
    "fourd": ("4DME_Labelling_Micro_release v1.xlsx",),
    "smic": ("smic.xlsx",),
}
_MIN_PART = 9  # letters of a specific name: "codefinal" is one, "casme" is not

Reader = Callable[[Path], Sheet]


def get(
    root: Path,
    spreadsheet: Path | None,
    form: Form,
    title: str,
    *,
    reader: Reader | None = None,
    is_beside: bool = True,
) -> tuple[Sheet, list[str]]:
    """Read the named spreadsheet, or the one that `find` finds.

    Args:
      root: folder of the dataset.
      spreadsheet: the file, or None.
      form: what to look for.
      title: name of the dataset, for messages.
      reader: function that reads one file, where `sheets.read` cannot.
      is_beside: whether the folder that holds `root` is searched too, by name.

    Raises:
      DataError: as for `find`; or there is none: the message says what there is.
    """
    if spreadsheet is not None:
        reader = reader or functools.partial(read, form=form, title=title)
        sheet = reader(Path(spreadsheet))
        return sheet, list(sheet.remarks)
    sheet, problems = find(root, form, title, reader=reader, is_beside=is_beside)
    if sheet is None:
        needed = [names[0] for field, names in form.fields.items() if field not in form.optional]
        files = _listed([*list_files(root), *(list_beside(root) if is_beside else [])])
        raise DataError(
            f"No spreadsheet of {title} in {root}{' or beside it' if is_beside else ''}. Expected"
            f" {' or '.join(form.files) or 'a table'}, or one file with the columns"
            f" {', '.join(needed)}; found {files or 'no spreadsheet at all'}. Name it with"
            " --spreadsheet."
        )
    return sheet, problems


def find(
    root: Path,
    form: Form,
    title: str,
    *,
    reader: Reader | None = None,
    is_beside: bool = True,
) -> tuple[Sheet | None, list[str]]:
    """Look for the spreadsheet of a dataset; `get` explains the arguments.

    A file of another name is taken if it alone has the columns; one with the name of another
    dataset's is never taken, because CASME II and MMEW have the same columns.

    Returns:
      the sheet (None when there is none) and problems.

    Raises:
      DataError: several files fit equally well, or the one with the right name lacks columns.
    """
    reader = reader or functools.partial(read, form=form, title=title)
    inside = list_files(root)
    paths = [*inside, *(list_beside(root) if is_beside else [])]
    named = _named(paths, form.files)
    if len(named) > 1:
        raise DataError(
            f"Several files could be the spreadsheet of {title}: {_listed(named)}. Say which with"
            " --spreadsheet."
        )
    if named:
        others = [path for path in paths if path != named[0] and _named([path], form.files)]
        remark = (
            f"Read {named[0]}; also present: {_listed(others)}. Name another one with"
            " --spreadsheet."
        )
        sheet = reader(named[0])
        return sheet, [*([remark] if others else []), *sheet.remarks]
    sheets, others = [], []
    for path in inside:
        if any(_named([path], names) for names in RELEASED.values()):
            continue
        try:
            sheets.append(reader(path))
        except DataError as error:
            others.append((path, str(error)))
    if len(sheets) > 1:
        raise DataError(
            f"Several files have the columns of {title}: {_listed(s.path for s in sheets)}. Say"
            " which with --spreadsheet."
        )
    if not sheets:
        return None, []
    sheet = sheets[0]
    problems = list(sheet.remarks)
    if others:
        problems.insert(
            0,
            f"Read {sheet.path}; also present, and not read: {_listed(p for p, _ in others)}. The"
            f" first: {others[0][1][:300]}",
        )
    if form.files:
        name = sheet.path.name
        problems.insert(0, f"{name} was taken for the spreadsheet of {title} by its columns.")
    return sheet, problems


def list_files(root: Path) -> list[Path]:
    """List the spreadsheets in `root` and one folder below, by name."""
    return [*_glob(root, "*"), *_glob(root, "*/*")]


def list_beside(root: Path) -> list[Path]:
    """List the spreadsheets in the folder that holds `root`, by name."""
    return _glob(root.resolve().parent, "*")


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        paths = sorted(folder.glob(pattern))
    except OSError:
        return []  # the folder may not be listed
    return [
        path
        for path in paths
        # "~$" files are locks of a spreadsheet that is open somewhere.
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(("~$", "."))
        and path.is_file()
    ]


def _named(paths: Iterable[Path], names: Iterable[str]) -> list[Path]:
    """Return the files with the first name that any has, exactly or else as a part of theirs."""
    stems = [(path, plain(path.stem)) for path in paths]
    for name in names:
        stem = plain(Path(name).stem)
        exact = [path for path, other in stems if other == stem]
        longer = [path for path, other in stems if stem in other and len(stem) >= _MIN_PART]
        if exact or longer:
            return exact or longer
    return []


def _listed(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")

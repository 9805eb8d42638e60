"""Rows of a spreadsheet before they are clips: names settled, values still as they were typed."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Callable

import pandas as pd

from mexjax.errors import DataError
from mexjax.prepare.sources.folders import check_part
from mexjax.prepare.sources.losses import Loss, Risk
from mexjax.prepare.sources.sheets import as_number, as_real, as_text, numbered, row_name
from mexjax.prepare.sources.workbooks import is_date
from mexjax.protocol.action_units import parse_aus
from mexjax.protocol.classes import canonical_emotion
from mexjax.protocol.lookalikes import lines_of_emotions, lines_of_people
from mexjax.protocol.names import fold, tidy

# A place is a folder below a dataset's home, as the names on the way to it; the end of a name may
# be left open with "*".
Place = tuple[str, ...]
FIELDS = ("onset", "apex", "offset", "emotion", "au")
ORIGIN = "(folder)"  # a column that no table can have: the folder of a clip, in place of its row
_MAX_EXAMPLES = 20  # names of one remark


@dataclasses.dataclass
class Draft:
    """One row.

    Attributes:
      index: row number as a spreadsheet program counts.
      subject: text that becomes part of the subject's id.
      clip: text that becomes the clip's name.
      cells: onset, apex, offset, emotion, au as typed; None where there is no column.
      video: name of the recording in the release, where a clip is a part of one.
      places: folders that may hold the frames, the likeliest first.
      notes: remarks for the table.
      fps: frames per second where the row says its own.
      typed: subject and clip as they were typed, before `tidy`.
      doubtful: units that a rule makes of a cell that cannot be read.
      origin: folder of a clip that is in no table, for messages; "" for a row of one.
    """

    index: int
    subject: str
    clip: str
    cells: dict[str, object]
    video: str = ""
    places: tuple[Place, ...] = ()
    notes: list[str] = dataclasses.field(default_factory=list)
    fps: float | None = None
    typed: tuple[str, str] = ("", "")
    doubtful: tuple[int, ...] = ()
    origin: str = ""

    @property
    def row(self) -> str:
        """The row, or the place of a clip that is in no table, for messages."""
        return self.origin or row_name(self.index)

    @property
    def name(self) -> str:
        """Subject, clip and row or place, for messages."""
        return f"{self.subject}/{self.clip} ({self.row})"


def place_name(index: int, origin: str = "") -> str:
    """Begin a message about a row of the spreadsheet, or about the folder of a clip."""
    if origin:
        return f"The folder {origin}"
    return f"{row_name(index).capitalize()} of the spreadsheet"


def make_drafts(
    cells: pd.DataFrame,
    problems: list[str],
    *,
    subject: Callable[[str], str] = str,
    clip: Callable[[str], str] = str,
) -> list[Draft]:
    """Make a draft of each row with a subject and a clip; any other row becomes a problem.

    A row that stands twice, with the same frames and labels, is one clip, and a problem.

    Args:
      cells: table with the columns subject, clip and any of `FIELDS`.
      problems: lines are added.
      subject: spelling of a subject from the text of its cell.
      clip: the same for clips.

    Raises:
      DataError: a name that would lead out of the dataset's folder.
    """
    drafts = []
    rows: dict[tuple[str, ...], str] = {}
    for number, row in numbered(cells).items():
        origin = as_text(row.get(ORIGIN))
        where = origin or row_name(number)
        typed = (as_text(row["subject"]), as_text(row["clip"]))
        names = [tidy(name) for name in typed]
        if not all(names):
            text = ", ".join(filter(None, map(as_text, row.values())))
            line = f"{where}: no subject or no clip name, left out: {text[:120]}"
            problems.append(Loss(line, "rows without a subject or a clip"))
            continue
        for name in names:
            check_part(name, place_name(number, origin))
        values = {field: row.get(field) for field in FIELDS}
        draft = Draft(number, subject(names[0]), clip(names[1]), values, typed=typed)
        draft.origin = origin
        draft.video = draft.clip
        content = tuple(_meaning(name, row.get(name)) for name in (*FIELDS, "path", "fps"))
        # Without frame numbers, names in another case may be those of other folders.
        spell = fold if content[0] and content[2] else str
        key = (spell(draft.subject), spell(draft.clip), *content)
        if key in rows:
            line = (
                f"{draft.name}: this row is the same as {rows[key]}, so it was left out: one clip"
            )
            problems.append(Loss(f"{line} counts once.", "rows that stand twice"))
            continue
        rows[key] = where
        drafts.append(draft)
    _report_dates(cells, problems)
    return drafts


def _meaning(field: str, cell: object) -> str:
    """Write what a cell says in one way: 1.0 is 1, Fear is fear, and 7+4 is 4+7."""
    text = tidy(as_text(cell))
    try:
        if field in ("onset", "apex", "offset"):
            number = as_number(text)
            return "" if number is None else str(number)
        if field == "au" and text:
            return repr(parse_aus(text))
    except DataError:
        return text
    if field == "emotion":
        return "+".join(map(canonical_emotion, text.split("+")))
    if field == "path":
        return "/".join(part for part in re.split(r"[\\/]", text) if part not in ("", "."))
    if field == "fps" and not math.isnan(as_real(text)):
        return str(as_real(text))
    return text


def _report_dates(cells: pd.DataFrame, problems: list[str]) -> None:
    """Add a remark where a spreadsheet program has made dates of names such as 3-1."""
    dates = [
        f"{row_name(number)}: {as_text(row[name])}"
        for number, row in numbered(cells).items()
        for name in ("subject", "clip")
        if is_date(row[name])
    ]
    if dates:
        problems.append(
            f"Names of {len(dates)} subjects or clips are dates ({'; '.join(dates[:5])}"
            f"{'; ...' if len(dates) > 5 else ''}): a spreadsheet program makes them of names such"
            " as 3-1. Format the column as text and type these names again."
        )


def report_spellings(drafts: list[Draft], problems: list[str]) -> None:
    """Add a remark for names that `tidy` changed, and for spellings that became one name."""
    subjects = [(draft.typed[0], tidy(draft.typed[0])) for draft in drafts]
    clips = [(draft.typed[1], tidy(draft.typed[1])) for draft in drafts]
    emotions = [as_text(draft.cells["emotion"]) for draft in drafts]
    for noun, names in (
        ("subjects", subjects),
        ("clips", clips),
        ("emotions", [(text, tidy(text)) for text in emotions]),
    ):
        spellings: dict[str, list[str]] = {}
        for text, name in dict.fromkeys(names):
            spellings.setdefault(name, []).append(text)
        changes = {name: texts for name, texts in spellings.items() if texts != [name]}
        if not changes:
            continue
        examples = [
            f"{' and '.join(map(ascii, texts))} {'are' if len(texts) > 1 else 'is'} read as {name}"
            for name, texts in changes.items()
        ]
        if len(examples) > _MAX_EXAMPLES:
            examples[_MAX_EXAMPLES:] = [f"and {len(examples) - _MAX_EXAMPLES} more"]
        problems.append(
            f"Names of {noun} were typed with characters that cannot be seen or that look like"
            f" others: {'; '.join(examples)}."
        )


def report_words(drafts: list[Draft], problems: list[str]) -> None:
    """Add remarks for emotions that were spelled in several ways, and for those that look alike.

    Case and synonyms make no difference, so the spellings are one class; accents make one.
    """
    spellings: dict[str, dict[str, None]] = {}
    for draft in drafts:
        text = tidy(as_text(draft.cells["emotion"]))
        if text and "+" not in text:
            spellings.setdefault(canonical_emotion(text), {})[text] = None
    for word, texts in spellings.items():
        if len(texts) > 1:
            problems.append(f"Emotions {', '.join(texts)} are one word and one class, {word}.")
    problems += lines_of_emotions(spellings)
    alike: dict[str, list[str]] = {}
    for word in spellings:
        letters = unicodedata.normalize("NFD", word)
        bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
        alike.setdefault(re.sub(r"[\W_]+", "", bare), []).append(word)
    for words in alike.values():
        if len(words) > 1:
            problems.append(
                f"Emotions {', '.join(words)} differ only by accents, blanks or signs and are"
                f" {len(words)} classes; if they are one, spell them alike, or merge them in"
                " training with a file, --config.protocol.class_map=FILE."
            )


def report_uncoded(drafts: list[Draft], problems: list[str]) -> None:
    """Add a remark where some rows have action units and others have an empty cell."""
    empty = [draft.name for draft in drafts if as_text(draft.cells["au"]) in ("", "/")]
    if not 0 < len(empty) < len(drafts):
        return
    names = ", ".join(empty[:_MAX_EXAMPLES]) + (", ..." if len(empty) > _MAX_EXAMPLES else "")
    problems.append(
        f"The action units of {len(empty)} of {len(drafts)} rows are empty and so unknown;"
        f" protocol.task=au leaves these clips out: {names}. Write 0 where no unit is shown."
    )


def report_units(drafts: list[Draft], problems: list[str]) -> None:
    """Count units that are coded and are not among those present: held and doubtful ones."""
    held: list[str] = []
    doubtful: list[str] = []
    for draft in drafts:
        try:
            units = parse_aus(draft.cells["au"])
        except DataError:
            continue  # it was reported where the clip was made
        held += [f"AU{unit} of {draft.name}" for unit in units.static]
        doubtful += [f"AU{unit} of {draft.name}" for unit in units.unsure]
    for names, kind, why in (
        (held, "held action units", "are held from the first frame to the last, so nothing moves"),
        (doubtful, "doubtful action units", "count with protocol.is_unsure_present=True alone"),
    ):
        if names:
            text = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            line = f"{len(names)} {kind} {why}: {text}."
            problems.append(Loss(line, kind, len(names)))


def padded(width: int) -> Callable[[str], str]:
    """Make a speller of subjects that are numbers: "1", "01" and "sub01" become "01" (width 2)."""

    def spell(text: str) -> str:
        digits = text.casefold().removeprefix("subject").removeprefix("sub").strip("_- ")
        return digits.zfill(width) if digits.isdecimal() else text

    return spell


def unite_subjects(drafts: list[Draft], problems: list[str]) -> None:
    """Give subjects that differ in case their first spelling; in place.

    Otherwise one person, typed in two ways, could be on both sides of a split. Subjects that
    differ in leading zeros, in blanks and signs (sub 01, sub_01), or in letters of other scripts
    that look alike, are only reported: "1" and "01" may come from two cameras' own lists.
    """
    first: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for draft in drafts:
        spelling = first.setdefault(fold(draft.subject), draft.subject)
        if draft.subject != spelling:
            others.setdefault(spelling, []).append(draft.subject)
            draft.subject = spelling
    for spelling, names in others.items():
        problems.append(
            f"Subjects {', '.join(dict.fromkeys([spelling, *names]))} differ only in case and are"
            f" taken for one person, {spelling}; spell two people differently in the table."
        )
    problems += map(Risk, lines_of_people(first.values()))
    alike: dict[str, list[str]] = {}
    for key, spelling in first.items():
        alike.setdefault(bare(key), []).append(spelling)
    for names in alike.values():
        if len(names) > 1:
            line = (
                f"Subjects {', '.join(names)} differ only by leading zeros, blanks or signs and are"
                f" taken for {len(names)} people; if they are one, spell them alike in the table,"
                " or splits by subject train and test on the same person."
            )
            problems.append(Risk(line))


def bare(key: str) -> str:
    """Strip leading zeros, blanks and signs from a name; one sign stays between two numbers."""
    plain = re.sub(r"(?<![0-9])-|-(?![0-9])", "", re.sub(r"[\W_]+", "-", key))
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", plain) or key


def number_repeats(drafts: list[Draft], problems: list[str]) -> None:
    """Make (subject, clip) unique: later rows of the same name get _2, _3, ...; in place."""
    taken: set[tuple[str, str]] = set()
    for draft in drafts:
        name, count = draft.clip, 1
        while (draft.subject.casefold(), draft.clip.casefold()) in taken:
            count += 1
            draft.clip = f"{name}_{count}"
        taken.add((draft.subject.casefold(), draft.clip.casefold()))
        if count > 1:
            what = "clip" if draft.origin else "row"
            problems.append(f"{draft.name}: {name} occurs before, so this {what} is {draft.clip}.")

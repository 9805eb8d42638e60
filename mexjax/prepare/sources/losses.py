"""Losses: rows, clips and units of a release that will not be in the table, counted by kind.

Other problems of a release are cut off on the terminal after some lines; no kind of loss is, and
no risk: names that may be one person, or labels that contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from mexjax.errors import one_line

_MAX_LETTERS = 240  # of the example on the terminal


class Loss(str):
    """A problem about rows, clips or units that are in the release and will not be in the table.

    Attributes:
      kind: what is lost, a plural noun.
      num_lost: how many of them this line is about.
    """

    kind: str
    num_lost: int

    def __new__(cls, text: str, kind: str = "clips", count: int = 1) -> Loss:
        """Make the line `text`."""
        line = super().__new__(cls, text)
        line.kind, line.num_lost = kind, count
        return line


class Risk(str):
    """A problem that can make results wrong though no clip is lost; the terminal shows it first."""


def first_lines(problems: Iterable[str], most: int) -> list[str]:
    """Return the lines for the terminal: every risk, and then others until there are `most`."""
    lines = sorted(problems, key=lambda line: not isinstance(line, Risk))
    num_risks = sum(isinstance(line, Risk) for line in lines)
    return lines[: max(most, num_risks)]


def loss_lines(problems: Iterable[str]) -> list[str]:
    """Write one line for each kind of loss: what, how many, and the first of them."""
    groups: dict[str, list[Loss]] = {}
    for line in problems:
        if isinstance(line, Loss):
            groups.setdefault(line.kind, []).append(line)
    examples = {kind: one_line(str(lines[0])) for kind, lines in groups.items()}
    return [
        f"Left out: {sum(line.num_lost for line in groups[kind])} {kind}. For example: "
        + (example if len(example) <= _MAX_LETTERS else f"{example[:_MAX_LETTERS]} ...")
        for kind, example in examples.items()
    ]

"""Keys whose values are numbers of the training program, and may be data of a trial.

Two trials that differ in such numbers alone run in one compiled program. Any other key, or a number
that switches a part of the program on or off, makes another program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mexjax.models.paper import Paper
from mexjax.train import augment, optim


def program_numbers(paper: Paper) -> tuple[str, ...]:
    """The dotted keys whose values may be data of a trial."""
    return (
        *(f"train.{name}" for name in optim.NUMBERS),
        *(f"augment.{name}" for name in augment.NUMBERS),
        *(f"model.{name}" for name in paper.loss_numbers),
    )


def of_section(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The values of the keys of one section, by the rest of their names."""
    prefix = f"{section}."
    return {key.removeprefix(prefix): v for key, v in values.items() if key.startswith(prefix)}

"""The committed files of `benchmarks/results/`, and the newest one of each kind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Names that scripts had when files were written. Documents show the commands of today.
RENAMED = {
    "ops": "convolutions",
    "side": "step_process",
    "loso": "study_time",
    "prepare": "preparation",
    "reselection": "key_frame_views",
    "demo": "scores",
}


@dataclasses.dataclass(frozen=True)
class Result:
    """One file of results.

    Attributes:
      path: the file; names begin with the date, so that they sort by time.
      record: its content, with `command` and `environment`.
    """

    path: Path
    record: dict[str, Any]

    @property
    def kind(self) -> str:
        """The script of `benchmarks/`, or the study, that wrote the file."""
        match = re.search(r"benchmarks/(\w+)\.py|-m mexjax\.\w+ (\w+)", self.record["command"])
        if match is None:
            raise SystemExit(f"{self.path}: the command names no benchmark and no study.")
        name = match[1] or match[2]
        return RENAMED.get(name, name)

    @property
    def card(self) -> str:
        """The name of the recipe card, or nothing."""
        return Path(self.record.get("card", "")).stem

    @property
    def processor(self) -> str:
        """The name of the processor, as the machine gives it."""
        return self.record["environment"]["processor"]

    @property
    def commit(self) -> str:
        """The first seven digits of the commit that was measured."""
        return self.record["environment"].get("git", "")[:7]

    @property
    def short_processor(self) -> str:
        """The name of the processor without marks and the word for it."""
        return re.sub(r"\(R\)| Processor| CPU", "", self.processor)

    @property
    def machine(self) -> str:
        """Processor, cores and versions, for a sentence."""
        environment = self.record["environment"]
        return (
            f"{environment['processor']}, {environment['cpu_count']} cores,"
            f" Python {environment['python']}, jax {environment['jax']}"
        )

    @property
    def command(self) -> str:
        """The command as it is typed today, without the file that it writes to."""
        text = re.sub(r" --json[= ][^\s,]+", "", self.record["command"])
        for before, now in RENAMED.items():
            text = text.replace(f"benchmarks/{before}.py", f"benchmarks/{now}.py")
        return text.replace("-m mexjax.study ", "-m mexjax.studies ")

    def link(self, document: Path) -> str:
        """A Markdown link to the file from a document: its date and the commit measured."""
        target = os.path.relpath(self.path, document.parent)
        return f"[{self.path.name[:10]}, {self.commit}]({target})"

    def made_by(self, document: Path) -> str:
        """The sentence that names command, file and machine."""
        return f"Made by `{self.command}` on {self.machine}: {self.link(document)}."


def read_results(folder: Path = RESULTS) -> list[Result]:
    """Every file of the folder, oldest first."""
    return [
        Result(path, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob("*.json"))
    ]


def newest(
    results: Iterable[Result], key: Callable[[Result], Hashable] = lambda result: result.processor
) -> list[Result]:
    """The newest result of each key, newest first.

    Args:
      results: results, oldest first.
      key: a newer result replaces an older one with the same key.
    """
    by_key = {key(result): result for result in results}
    return sorted(by_key.values(), key=lambda result: result.path.name, reverse=True)

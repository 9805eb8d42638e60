"""The ablations and the sweep of gamma of AC4AU, in the form of the paper's tables.

    mexjax study ac4au_tables --out=runs/ac4au_tables
        [--card=ac4au[:variant]] [--tables ablation gamma controls]
        [--only "no FRD" ...] [--seeds 0 1] [--set key=value]

Each row is a whole run in a folder of its own: a study that was stopped goes on where it was, and
rows that are finished are read. The paper's numbers stand beside ours; on the embedded data they
are of other faces, so what can be compared is which rows lose and which win. The last columns tell
how many subjects of held-out clips a linear probe knows from each part of the features.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from mexjax import machine
from mexjax.config import flat, load_config, set_key
from mexjax.cpu.heap import run_in_calling_thread
from mexjax.errors import ConfigError, DataError, WorkdirError, unknown_name
from mexjax.files import atomic
from mexjax.models import get_model
from mexjax.models.options import void_options
from mexjax.report import stats
from mexjax.report.files import read_run
from mexjax.report.results import to_json_value
from mexjax.report.tables import markdown_table, percent, rich_table
from mexjax.studies import options
from mexjax.studies.au import read_features, subject_probes
from mexjax.terminal import markdown, plain, say, table_console
from mexjax.train import run as train


class Row(NamedTuple):
    """A run of a table.

    Attributes:
      name: name of the row, as printed and in the name of its folder.
      overrides: keys that differ from the card.
      paper: mean F1 in percent, or None where the paper has none.
      needs: a value of a key of the card without which the row is the full model.
    """

    name: str
    overrides: tuple[str, ...] = ()
    paper: float | None = None
    needs: tuple[str, Any] | None = None


FULL = 40.508
# The rows of frames as they are say nothing new where the card has no centre to leave out.
CENTRED = ("center", "clip_mean")
TABLES: dict[str, tuple[Row, ...]] = {
    # Table 2. The paper does not say what "no FRD" and "no AUsER" leave; each has a second
    # reading.
    "ablation": (
        Row("no pre-training", ("model.is_pretrained=False",), 22.270, ("is_pretrained", True)),
        Row("no FRD", ("model.frd=none", "model.gamma=0.0"), 27.226),
        Row("no FRD, subject loss kept", ("model.frd=none",)),
        Row("no AUsER: one linear layer", ("model.head=linear",), 29.647),
        Row("no AUsER: expert k is unit k", ("model.head=no_gate",)),
        Row("no focal loss", ("model.au_loss=bce",), 32.046),
        Row("full", (), FULL),
    ),
    # Table 3. The paper's best is 0.1; the row with gamma = 0 is ours.
    "gamma": (
        Row("gamma of the card"),
        Row("gamma 0", ("model.gamma=0.0",)),
        Row("gamma 0.1", ("model.gamma=0.1",), FULL),
        Row("gamma 0.2", ("model.gamma=0.2",), 36.839),
        Row("gamma 0.3", ("model.gamma=0.3",), 35.192),
        Row("gamma 0.5", ("model.gamma=0.5",), 34.528),
        Row("gamma 0.7", ("model.gamma=0.7",), 30.598),
    ),
    "controls": (
        Row("full", (), FULL),
        Row("frames as they are", ("data.center=none",), None, CENTRED),
        Row(
            "frames as they are, gamma 0.1", ("data.center=none", "model.gamma=0.1"), None, CENTRED
        ),
        Row(
            "frames as they are, no FRD",
            ("data.center=none", "model.frd=none", "model.gamma=0.0"),
            None,
            CENTRED,
        ),
        Row(
            "frames as they are, static",
            ("data.center=none", "data.control=static"),
            None,
            CENTRED,
        ),
        Row("static: every frame the onset", ("data.control=static",)),
        Row("shuffled labels", ("data.control=shuffled_labels",)),
        Row("equation 3 as printed", ("model.frd=eq3",)),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study: tables on the terminal, runs and files in `--out`; returns the exit status."""
    arguments = options.ac4au_tables().read(argv)
    console = table_console()
    run_in_calling_thread()
    machine.use_compilation_cache()
    results = study(
        arguments.out,
        card=arguments.card,
        tables=arguments.tables,
        only=arguments.only,
        seeds=arguments.seeds,
        overrides=arguments.set,
        console=console,
    )
    for name in results["tables"]:
        console.print(plain(name, "bold"))
        console.print(rich_table(*table_rows(results, name)))
    say(console, f"Written: {arguments.out}/tables.md")
    return 0


def study(
    out: Path,
    *,
    card: str = "ac4au",
    tables: Sequence[str] = tuple(TABLES),
    only: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Run every row of the tables for every seed, and write tables.json and tables.md.

    Args:
      out: folder of the runs, one below it a row and seed, and of the tables.
      card: recipe card, with its variant.
      tables: keys of `TABLES`.
      only: names of rows; (): all.
      seeds: seeds of the runs.
      overrides: texts `key=value` for all rows.
      console: console that shows the progress; None: none.

    Returns:
      `{"command", "environment", "card", "seeds", "tables": {name: [{"row", "f1": {mean, sd, n},
      "f1_always", "probe": {"f_dc", "f_ac", "chance"}, "paper", "note"}]}}`; fractions, of the
      paper too. `environment` is that of the first run, `git` the commits of all; `probe` is None
      where a run kept no features. Both files are written after every row.

    Raises:
      ConfigError: an unknown table or row.
      MexjaxError: a run that cannot be made.
    """
    for name in tables:
        if name not in TABLES:
            raise ConfigError(unknown_name("table", name, TABLES))
    row_names = {row.name for name in tables for row in TABLES[name]}
    for name in only:
        if name not in row_names:
            raise ConfigError(unknown_name("row", name, row_names))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"Cannot make {out}: {error.strerror or error}.") from error
    results: dict[str, Any] = {
        "command": _command(card, tables, only, seeds, overrides),
        "environment": {},
        "card": card,
        "seeds": list(seeds),
        "tables": {},
    }
    done: dict[tuple[tuple[str, ...], int], dict[str, Any]] = {}
    for name in tables:
        entries = results["tables"][name] = []
        for row in TABLES[name]:
            if only and row.name not in only:
                continue
            entries.append(_row(out, card, row, seeds, overrides, done, console))
            if done:
                environments = [run["environment"] for run in done.values()]
                commits = ", ".join(dict.fromkeys(str(each["git"]) for each in environments))
                results["environment"] = environments[0] | {"git": commits}
            _write(out, to_json_value(results))
    return to_json_value(results)


def _write(out: Path, results: dict[str, Any]) -> None:
    seeds = ", ".join(map(str, results["seeds"]))
    parts = [f"# AC4AU, {results['card']}, seeds {seeds}"]
    for name in results["tables"]:
        parts += [f"## {markdown(name)}", markdown_table(*table_rows(results, name))]
    for name, text in (
        ("tables.json", json.dumps(results, indent=1) + "\n"),
        ("tables.md", "\n\n".join(parts) + "\n"),
    ):
        with atomic(out / name) as file:
            file.write(text)


def _row(
    out: Path,
    card: str,
    row: Row,
    seeds: Sequence[int],
    overrides: Sequence[str],
    done: dict[tuple[tuple[str, ...], int], dict[str, Any]],
    console: Console | None,
) -> dict[str, Any]:
    paper = None if row.paper is None else row.paper / 100
    runs, note = [], ""
    for seed in seeds:
        config = load_config(card, [*overrides, f"seed={seed}", *row.overrides])
        for key in _set_back(config):
            if console is not None:
                text = f"{row.name}: model.{key} has no effect in this row, and is the preset's"
                console.print(plain(text))
        base = load_config(card, [*overrides])
        if row.needs is not None and _value(base, row.needs[0]) != row.needs[1]:
            note = f"not run: {row.needs[0]} of the card is {_value(base, row.needs[0])!r} already"
            break
        # Two tables have rows that are the same run.
        key = (_settings(config, base), seed)
        if key not in done:
            if console is not None:
                console.print(plain(f"{row.name}, seed {seed}"))
            folder = out / f"{re.sub(r'[^a-z0-9.]+', '_', row.name.lower())}_{seed}"
            run = train.run(config, folder)
            done[key] = run.results | {"probe": _probe(run.workdir)}
        runs.append(done[key])
    entry: dict[str, Any] = {"row": row.name, "paper": paper, "note": note}
    if not runs:
        return entry | {"f1": None, "f1_always": None, "probe": None}
    last = [results["metrics"]["last"] for results in runs]
    spread = stats.over_seeds([{"f1": entry["f1"]} for entry in last])["f1"]
    probes = [results["probe"] for results in runs if results["probe"]]
    return entry | {
        "f1": spread,
        "f1_always": float(np.mean([e["f1_always"] for e in last])),
        "probe": {k: float(np.mean([p[k] for p in probes])) for k in probes[0]} if probes else None,
    }


def _set_back(config: ConfigDict) -> list[str]:
    """Give options that have no effect in a row the preset's values; returns their names."""
    void = void_options(get_model(config.model.name).presets, config.model)
    for key, value in void.items():
        set_key(config, f"model.{key}", value)
    return list(void)


def _probe(workdir: Path) -> dict[str, float] | None:
    """Shares of held-out clips whose subject a linear probe knows from F_DC and from F_AC."""
    run = read_run(workdir)
    try:
        probes = subject_probes(run, read_features(run))
    except DataError:  # the subjects have too few clips
        return None
    if not probes:
        return None
    shares = {name: entry["accuracy"] for name, entry in probes.items()}
    return shares | {"chance": probes["f_ac"]["chance"]}


def _command(
    card: str,
    tables: Sequence[str],
    only: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
) -> str:
    """The command that makes the same tables; its folder is the user's choice."""
    words = [f"--card={card}", "--tables", *tables]
    words += ["--only", *only] if only else []
    words += ["--seeds", *map(str, seeds)]
    words += ["--set", *overrides] if overrides else []
    return f"mexjax study ac4au_tables --out=OUT {shlex.join(words)}"


def _value(config: ConfigDict, key: str) -> Any:
    return config.data[key] if key in config.data else config.model[key]


def _settings(config: ConfigDict, base: ConfigDict) -> tuple[str, ...]:
    """Settings that differ from those of the card, apart from the seed."""
    mine, theirs = flat(config), flat(base)
    return tuple(f"{k}={v!r}" for k, v in mine.items() if k != "seed" and v != theirs[k])


def table_rows(results: dict[str, Any], name: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table, in percent."""
    head = ["row", "mean F1, ours", "sd over seeds", "always present", "paper (its own data)"]
    head += ["subject from F_DC", "from F_AC"]
    rows = []
    for entry in results["tables"][name]:
        f1 = entry["f1"] or {"mean": None, "sd": None}
        cells = [percent(f1["mean"]), percent(f1["sd"]), percent(entry["f1_always"])]
        title = entry["row"] + (f" ({entry['note']})" if entry["note"] else "")
        probe = entry["probe"] or {"f_dc": None, "f_ac": None}
        cells += [percent(entry["paper"]), percent(probe["f_dc"]), percent(probe["f_ac"])]
        rows.append([title, *cells])
    return head, rows

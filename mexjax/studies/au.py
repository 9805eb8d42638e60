"""Action units of a dataset, and what the features of a finished run know.

    mexjax study au --root=PREPARED [--units=cd6me]     from the manifest alone
    mexjax study au --run=RUN                           its dataset, and its features

A dataset gives correlations of units as clustered heat maps and as a network, overall and for each
dataset, and the length of clips. A run with `eval.keeps_features` also gives maps (t-SNE) of F_AC
coloured by the units of a clip and of F_DC by subject, a linear probe for the subject on both, and
statistics of the gates. No model and no image is read. Figures 4, 6 and 7 of AC4AU show the same
for its data.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mexjax.data.loading import load_table
from mexjax.data.manifest import read_manifest
from mexjax.data.records import MANIFEST
from mexjax.errors import ConfigError, DataError, WorkdirError
from mexjax.files import atomic
from mexjax.models.ac4au.experts import gate_statistics
from mexjax.protocol.action_units import is_coded, label_aus, numbers_of
from mexjax.report.figures import save_figure
from mexjax.report.files import Run, read_arrays, read_run
from mexjax.report.results import to_json_value
from mexjax.report.tables import markdown_table, percent, rich_table
from mexjax.studies import au_figures, au_statistics, options
from mexjax.terminal import markdown, plain, say, table_console

RESULTS, TEXT = "au_study.json", "au_study.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study: tables on the terminal, files in `--out`; returns the exit status."""
    arguments = options.au().read(argv)
    console = table_console()
    results = study(
        run=arguments.run,
        root=arguments.root,
        units=arguments.units,
        out=arguments.out,
        seed=arguments.seed,
    )
    for title, head, rows in tables(results):
        console.print(plain(title, "bold"))
        console.print(rich_table(head, rows))
    if results["not_coded"]:
        console.print(plain(_left_out(results["not_coded"])))
    say(console, f"Written: {results['folder']}/{TEXT}")
    return 0


def study(
    *,
    run: Path | None = None,
    root: Path | None = None,
    units: str = "cd6me",
    out: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute everything and write au_study.json, au_study.md and the figures.

    Args:
      run: a finished run of task `au`; or
      root: a prepared folder.
      units: with `root`: a set of `AU_SETS`, or numbers.
      out: folder to write; by default `au_study` in `run` or `root`.
      seed: seed of t-SNE and of the probe's split.

    Returns:
      The content of au_study.json.

    Raises:
      ConfigError: neither `run` nor `root` is given.
      DataError: no units, or files that contradict each other.
      WorkdirError: a folder that cannot be read or written.
    """
    record: Run | None = None
    is_unsure_present = True
    if run is not None:
        source, record = run, read_run(run)
        if record.task != "au":
            raise DataError(f"{run} is not a run of action units (protocol.task=au).")
        config = ConfigDict(record.config)
        table = load_table(config)
        units, is_unsure_present = config.protocol.units, config.protocol.is_unsure_present
    elif root is not None:
        source, table = root, read_manifest(root / MANIFEST)
    else:
        raise ConfigError("The study of action units needs a finished run or a prepared folder.")
    labels = label_aus(table, units, unsure_is_present=is_unsure_present)
    coded = is_coded(table, unsure_is_present=is_unsure_present)
    if not coded.any():
        raise DataError(
            f"No clip of {source} has coded action units (column au); there are {len(table)} clips"
            f" of {', '.join(dict.fromkeys(table['dataset']))}."
        )
    names = [f"AU{number}" for number in numbers_of(units)]
    folder = out or source / "au_study"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"Cannot make {folder}: {error.strerror or error}.") from error
    results = {
        "folder": str(folder),
        "units": names,
        **_of_dataset(table, labels, coded, names, folder),
    }
    if record is not None:
        results |= _of_features(record, names, folder, seed)
    results = to_json_value(results)
    parts = ["# Action units"]
    if results["not_coded"]:
        parts.append(markdown(_left_out(results["not_coded"])))
    for title, head, rows in tables(results):
        parts += [f"## {markdown(title)}", markdown_table(head, rows)]
    parts += [f"![{path.stem}]({path.name})" for path in sorted(folder.glob("*.png"))]
    for name, text in (
        (RESULTS, json.dumps(results, indent=1) + "\n"),
        (TEXT, "\n\n".join(parts) + "\n"),
    ):
        with atomic(folder / name) as file:
            file.write(text)
    return results


def _left_out(counts: dict[str, int]) -> str:
    """The sentence about clips whose units are unknown."""
    sets = ", ".join(f"{name} {count}" for name, count in counts.items())
    return (
        f"Left out of the counts and correlations, their action units were not coded:"
        f" {sum(counts.values())} clips ({sets})."
    )


def _of_dataset(
    table: pd.DataFrame, labels: np.ndarray, coded: np.ndarray, names: list[str], folder: Path
) -> dict[str, Any]:
    """Results and figures of a table; lengths are of all clips, the others of `coded` bool[N]."""
    everywhere = table["dataset"].to_numpy(str)
    names_of_unknown, unknown = np.unique(everywhere[~coded], return_counts=True)
    labels, datasets = labels[coded], everywhere[coded]
    sets = list(dict.fromkeys(datasets.tolist()))
    matrices = {"all clips": au_statistics.correlations(labels)}
    if len(sets) > 1:
        matrices |= {n: au_statistics.correlations(labels[datasets == n]) for n in sets}
    figures = {
        "correlation": au_figures.correlation_figure(matrices, names),
        "network": au_figures.network_figure(matrices["all clips"], labels.sum(axis=0), names),
        "lengths": au_figures.lengths_figure(table),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    counts = {"all clips": labels.sum(axis=0)}
    counts |= {name: labels[datasets == name].sum(axis=0) for name in sets}
    return {
        "not_coded": dict(zip(names_of_unknown.tolist(), unknown.tolist(), strict=True)),
        "counts": {
            name: dict(zip(names, row.tolist(), strict=True)) for name, row in counts.items()
        },
        "correlation": {name: matrix for name, matrix in matrices.items()},
        "lengths": au_statistics.clip_lengths(table).to_dict("records"),
    }


def read_features(run: Run) -> dict[str, np.ndarray]:
    """The features of the run's held-out clips, in their order; {} if it kept none.

    Raises:
      DataError: they are of other clips.
    """
    path = run.path / "features.npz"
    if not path.is_file():
        return {}
    arrays = read_arrays(path, {})
    if "clip" not in arrays:  # these are of a model that compares units with texts
        return {}
    if arrays.pop("clip").tolist() != run.clip.tolist():
        raise DataError(f"{path} is of other clips than the predictions beside it.")
    return arrays


def subject_probes(
    run: Run, arrays: dict[str, np.ndarray], *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """`au_statistics.subject_probe` of `f_dc` and `f_ac`; {} where a run has only one or none.

    Raises:
      DataError: too few clips of a subject.
    """
    names = ("f_dc", "f_ac")
    if not set(names) <= set(arrays):
        return {}
    return {
        name: au_statistics.subject_probe(arrays[name], run.subject, run.fold, seed=seed)
        for name in names
    }


def _of_features(run: Run, names: list[str], folder: Path, seed: int) -> dict[str, Any]:
    """Results and figures of the features of held-out clips; {} if the run kept none."""
    arrays = read_features(run)
    results: dict[str, Any] = {}
    if probes := subject_probes(run, arrays, seed=seed):
        results["subject_probe"] = probes
        # Networks of different folds have nothing in common: the largest fold has the most points.
        fold, sizes = np.unique(run.fold, return_counts=True)
        rows = run.fold == fold[sizes.argmax()]
        patterns = [_pattern(row, names) for row in run.label[rows]]
        figure = au_figures.scatter_figure(
            [
                (
                    f"F_AC of {fold[sizes.argmax()]}, by units",
                    au_statistics.embed(arrays["f_ac"][rows], seed=seed),
                    patterns,
                ),
                (
                    f"F_DC of {fold[sizes.argmax()]}, by subject",
                    au_statistics.embed(arrays["f_dc"][rows], seed=seed),
                    run.subject[rows].tolist(),
                ),
            ]
        )
        save_figure(figure, folder / "features.png")
    if "gates" in arrays:
        # NumPy arrays stay NumPy arrays in it, which its annotation does not say.
        statistics = gate_statistics(arrays["gates"])  # pyright: ignore[reportArgumentType]
        gates = {name: np.asarray(value) for name, value in statistics.items()}
        save_figure(
            au_figures.gates_figure(gates["matrix"], gates["load"], names), folder / "gates.png"
        )
        results["gates"] = gates
    return results


def _pattern(row: np.ndarray, names: Sequence[str]) -> str:
    """The units of a clip as a coder writes them: "4+7"; "none"."""
    units = [name.removeprefix("AU") for name, is_shown in zip(names, row, strict=True) if is_shown]
    return "+".join(units) or "none"


def tables(results: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, head and rows of each printed table, from the content of au_study.json."""
    names = results["units"]
    counts = [
        [name, *(str(row[unit]) for unit in names)] for name, row in results["counts"].items()
    ]
    out = [("Clips with each unit", ["dataset", *names], counts)]
    pairs = _strongest(np.array(results["correlation"]["all clips"], float), names)
    out.append(("Strongest correlations, all clips", ["units", "r"], pairs))
    head = ["dataset", "clips", "median frames", "5 to 95 %", "shorter than 8", "median seconds"]
    rows = [
        [
            entry["dataset"],
            str(entry["clips"]),
            f"{entry['median_frames']:.0f}",
            f"{entry['frames_5']:.0f} to {entry['frames_95']:.0f}",
            str(entry["shorter_than_8"]),
            "-" if entry["median_seconds"] is None else f"{entry['median_seconds']:.2f}",
        ]
        for entry in results["lengths"]
    ]
    out.append(("Length of clips", head, rows))
    if "subject_probe" in results:
        rows = [
            [key, percent(entry["accuracy"]), percent(entry["chance"]), str(entry["clips"])]
            for key, entry in results["subject_probe"].items()
        ]
        head = ["features", "accuracy (%)", "most frequent subject (%)", "clips"]
        out.append(("Linear probe for the subject, held-out clips", head, rows))
    if "gates" in results:
        gates = results["gates"]
        rows = [
            [name, str(int(np.argmax(row)) + 1), percent(max(row)), f"{entropy:.2f}"]
            for name, row, entropy in zip(names, gates["matrix"], gates["entropy"], strict=True)
        ]
        head = ["unit", "heaviest expert", "its weight (%)", "entropy (1: all alike)"]
        out.append(("Gates", head, rows))
    return out


def _strongest(matrix: np.ndarray, names: Sequence[str], *, count: int = 8) -> list[list[str]]:
    first, second = (units.tolist() for units in np.triu_indices(len(names), 1))
    values = matrix[first, second]
    order = np.argsort(-np.abs(np.nan_to_num(values))).tolist()
    pairs = [
        [f"{names[first[k]]} and {names[second[k]]}", f"{values[k]:+.2f}"]
        for k in order
        if np.isfinite(values[k])
    ]
    return pairs[:count]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

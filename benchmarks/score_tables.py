"""Tables of scores, from files of `scores.py`, `key_frames.py` and the study `ac4au_tables`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results_files import Result, newest

# For each card: name of the system, title of its paper, and the page of `docs/papers/` about it.
SYSTEMS = {
    "fdp": (
        "FDP",
        "Micro-Expression Recognition via Fine-Grained Dynamic Perception",
        "fdp",
    ),
    "tsfmicro": (
        "TSFmicro",
        "Temporal and Spatial Feature Fusion Framework for Dynamic Micro Expression Recognition",
        "key_frame_models",
    ),
    "gamdss": (
        "GAMDSS",
        "Evaluating and Correcting Human Annotation Bias in Dynamic Micro-Expression Recognition",
        "key_frame_models",
    ),
    "ac4au": (
        "AC4AU",
        "Regulatory Focus Theory Induced Micro-Expression Analysis with Structured Representation"
        " Learning",
        "ac4au",
    ),
    "micro_au_clip": (
        "Micro-AU CLIP",
        "Micro-AU CLIP: Fine-Grained Contrastive Learning from Local Independence to Global"
        " Dependency for Micro-Expression Action Unit Detection",
        "micro_au_clip",
    ),
}
CONTROLS = {
    "static": "still clips (`data.control=static`)",
    "static_raw": "still clips, raw frames",
    "shuffled_labels": "shuffled labels (`data.control=shuffled_labels`)",
    "raw_frames": "raw frames (`data.center=none`)",
}
CHOICES = {
    "annotated": "as annotated",
    "paper": "re-selected as the paper does (inward, lambda 0.1)",
    "same_light": "re-selected on both sides, lambda 0.2, differences in one light",
    "apex": "the apex alone re-selected, lambda 0.2, differences in one light",
    "same_light_train": "the same, in training only",
    "true": "the true ones",
}


def is_units(result: Result) -> bool:
    """True if the task of a file of scores is action units."""
    return result.record["runs"][0].get("task") == "au"


def metric(result: Result) -> tuple[str, str]:
    """The key of the main metric in a run, and its name."""
    return ("f1", "mean F1") if is_units(result) else ("uf1", "UF1")


def seeds_and_controls(result: Result) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Runs of the card itself, seed by seed, and those of its controls by name."""
    runs = result.record["runs"]
    seeds = [run for run in runs if run["name"] not in CONTROLS]
    return seeds, {run["name"]: run for run in runs if run["name"] in CONTROLS}


def newest_scores(results: Sequence[Result]) -> dict[str, Result]:
    """The newest file of scores of each card, in the order of `SYSTEMS`."""
    scores = newest([r for r in results if r.kind == "scores"], lambda result: result.card)
    by_card = {result.card: result for result in scores}
    return {card: by_card[card] for card in SYSTEMS if card in by_card}


def systems_table(results: Sequence[Result], document: Path) -> str:
    """A table of the cards with their papers, scores and minutes."""
    lines = [
        "| card | system | paper | score on embedded data | minutes |",
        "|---|---|---|---|---|",
    ]
    for card, result in newest_scores(results).items():
        name, title, page = SYSTEMS[card]
        key, label = metric(result)
        seeds, _ = seeds_and_controls(result)
        score = statistics.mean(run["last"][key] for run in seeds)
        minutes = statistics.median(run["timing"]["total_s"] for run in seeds) / 60
        lines.append(
            f"| [`{card}`](configs/{card}.py) | [{name}](docs/papers/{page}.md) | {title} |"
            f" {label} {score:.2f} | {minutes:.0f} |"
        )
    return "\n".join(lines)


def results_table(results: Sequence[Result], document: Path) -> str:
    """A table of one row a card: score of each seed, interval, oracle and controls."""
    lines = [
        "| card | last epoch, by seed | 95% interval, seed 0 | `oracle`, seed 0 | still clips |"
        " shuffled labels | measured in |",
        "|---|---|---|---|---|---|---|",
    ]
    for card, result in newest_scores(results).items():
        key, label = metric(result)
        seeds, controls = seeds_and_controls(result)
        scores = ", ".join(f"{run['last'][key]:.3f}" for run in seeds)
        low, high = seeds[0][f"{key}_ci95"]
        always = f" (always present: {seeds[0]['f1_always']:.3f})" if key == "f1" else ""
        cells = [
            f"{controls[name]['last'][key]:.3f}" if name in controls else ""
            for name in ("static", "shuffled_labels")
        ]
        lines.append(
            f"| `{card}` | {label} **{scores}**{always} | {low:.2f} to {high:.2f} |"
            f" {seeds[0]['oracle'][key]:.3f} | {' | '.join(cells)} | {result.link(document)} |"
        )
    return "\n".join(lines)


def card_tables(card: str, results: Sequence[Result], document: Path) -> str:
    """Every run of a card, from the newest file of each processor."""
    files = [r for r in results if r.kind == "scores" and r.card == card]
    return "\n\n".join(_card_table(result, document) for result in newest(files))


def _card_table(result: Result, document: Path) -> str:
    key, label = metric(result)
    runs = result.record["runs"]
    has_emotions = "zero_shot" in runs[0]
    heads = [f"{label} (last)", "95% interval"]
    heads += ["always present"] if key == "f1" else ["accuracy"]
    heads += [f"{label} (oracle)", *(["emotions, UF1"] if has_emotions else []), "seconds"]
    lines = [f"| run | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for run in runs:
        low, high = run[f"{key}_ci95"]
        second = run["f1_always"] if key == "f1" else run["last"]["acc"]
        cells = [
            CONTROLS.get(run["name"], f"seed {run['seed']}"),
            f"**{run['last'][key]:.3f}**",
            f"{low:.2f} to {high:.2f}",
            f"{second:.3f}",
            f"{run['oracle'][key]:.3f}",
            *([f"{run['zero_shot']['uf1']:.3f}"] if has_emotions else []),
            f"{run['timing']['total_s']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", result.made_by(document)])


def ablation_tables(results: Sequence[Result], document: Path) -> str:
    """The tables of `python -m mexjax.studies ac4au_tables`."""
    files = newest([result for result in results if result.kind == "ac4au_tables"])
    return "\n\n".join(_ablation_tables(result, document) for result in files)


def _ablation_tables(result: Result, document: Path) -> str:
    record, parts = result.record, []
    columns = "mean F1 | always present | paper, its own data | subject from F_DC | from F_AC"
    for name, entries in record["tables"].items():
        lines = [f"| {name} | {columns} |", "|---|---|---|---|---|---|"]
        for entry in entries:
            if entry["f1"] is None:
                lines.append(f"| {entry['row']}: {entry['note']} | | | | | |")
                continue
            probe = entry["probe"] or {}
            values = [entry["f1_always"], entry["paper"], probe.get("f_dc"), probe.get("f_ac")]
            cells = ["" if value is None else f"{value:.3f}" for value in values]
            lines.append(
                f"| {entry['row']} | **{entry['f1']['mean']:.3f}** | {' | '.join(cells)} |"
            )
        parts.append("\n".join(lines))
    chances = {
        f"{entry['probe']['chance']:.3f}"
        for entries in record["tables"].values()
        for entry in entries
        if entry["probe"]
    }
    parts.append(
        f"Seed {', '.join(map(str, record['seeds']))}. The last two columns are the share of"
        " held-out clips whose subject a linear probe tells from each part of the features."
        f" Naming the most frequent subject is right for {', '.join(sorted(chances)) or '-'}."
        f" {result.made_by(document)}"
    )
    return "\n\n".join(parts)


def key_frames_tables(results: Sequence[Result], document: Path) -> str:
    """The table of the newest file of `key_frames.py` on each processor."""
    files = newest([result for result in results if result.kind == "key_frames"])
    return "\n\n".join(_key_frames_table(result, document) for result in files)


def _key_frames_table(result: Result, document: Path) -> str:
    runs = result.record["runs"]
    seeds = sorted({run["seed"] for run in runs})
    heads = [*(f"draw {seed}" for seed in seeds), "mean", "onset, ms", "apex, ms"]
    lines = [f"| key frames | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for choice, errors in result.record["errors_ms"].items():
        scores = [run["uf1"] for run in runs if run["choice"] == choice]
        cells = [*(f"{score:.3f}" for score in scores), f"**{statistics.mean(scores):.3f}**"]
        cells += [f"{error:.1f}" for error in errors[:2]]
        lines.append(f"| {CHOICES[choice]} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", result.made_by(document)])

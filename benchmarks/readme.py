"""Write the results tables of the README from the newest committed results files.

python benchmarks/readme.py          # rewrites the part between the markers in README.md
python benchmarks/readme.py --check  # exits 1 if the README is not what the files say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- results:start -->", "<!-- results:end -->"
NAMES = {
    "static": "still clips (`data.control=static`)",
    "static_raw": "still clips, raw frames",
    "shuffled_labels": "shuffled labels (`data.control=shuffled_labels`)",
    "raw_frames": "raw frames (`data.center=none`)",
}


def demo_table(path: Path) -> str:
    """The table of one file of `benchmarks/demo.py`, with where and how it was made."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record["runs"][0].get("task") == "au":
        return au_table(record, path)
    lines = [
        f"`{record['card']}` by LOSO on the embedded dataset, {where(record)}:",
        "",
        "| run | UF1 (last) | 95% interval | accuracy | UF1 (oracle) | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for run in record["runs"]:
        name = NAMES.get(run["name"], f"seed {run['seed']}")
        low, high = run["uf1_ci95"]
        lines.append(
            f"| {name} | **{run['last']['uf1']:.3f}** | {low:.2f} to {high:.2f} |"
            f" {run['last']['acc']:.3f} | {run['oracle']['uf1']:.3f} |"
            f" {run['timing']['total_s']:.0f} |"
        )
    lines += [
        "",
        "`last` is the last epoch, pooled over all held-out clips and scored once; `oracle` picks"
        " each subject's best evaluation on that subject, as released code does, and is not"
        f" comparable. {made_by(record, path)}",
    ]
    return "\n".join(lines)


def au_table(record: dict[str, Any], path: Path) -> str:
    """The same of a card whose task is action units."""
    has_emotions = "zero_shot" in record["runs"][0]
    protocol = record.get("protocol", "loso").replace("_", "-")
    lines = [
        f"`{record['card']}`, action units by {protocol} on embedded data, {where(record)}:",
        "",
        "| run | mean F1 (last) | 95% interval | always present | mean F1 (oracle) |"
        + (" emotions, UF1 |" if has_emotions else "")
        + " seconds |",
        "|---|---|---|---|---|---|" + ("---|" if has_emotions else ""),
    ]
    for run in record["runs"]:
        name = NAMES.get(run["name"], f"seed {run['seed']}")
        low, high = run["f1_ci95"]
        emotions = f" {run['zero_shot']['uf1']:.3f} |" if has_emotions else ""
        lines.append(
            f"| {name} | **{run['last']['f1']:.3f}** | {low:.2f} to {high:.2f} |"
            f" {run['f1_always']:.3f} | {run['oracle']['f1']:.3f} |{emotions}"
            f" {run['timing']['total_s']:.0f} |"
        )
    lines += [
        "",
        "`always present` is the F1 of saying so of every unit of every clip."
        + (
            " Emotions are those of three classes, read off the sentences: no emotion label is"
            " used in training."
            if has_emotions
            else ""
        )
        + f" {made_by(record, path)}",
    ]
    return "\n".join(lines)


def ablation_tables(path: Path) -> str:
    """The tables of `python -m mexjax.studies ac4au_tables`, from its tables.json."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    parts = [f"AC4AU's tables on the six embedded sets, {where(record)}:"]
    for name, entries in record["tables"].items():
        head = "| mean F1 | always present | paper, its own data | subject from F_DC | from F_AC |"
        lines = [f"| {name} {head}", "|---|---|---|---|---|---|"]
        for entry in entries:
            if entry["f1"] is None:
                lines.append(f"| {entry['row']}: {entry['note']} | | | | | |")
                continue
            probe = entry["probe"] or {}
            cells = [entry["f1_always"], entry["paper"], probe.get("f_dc"), probe.get("f_ac")]
            shown = ["" if cell is None else f"{cell:.3f}" for cell in cells]
            lines.append(
                f"| {entry['row']} | **{entry['f1']['mean']:.3f}** | {' | '.join(shown)} |"
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
        " held-out clips whose subject a linear probe tells from each part of the features"
        f" (naming the most frequent subject: {', '.join(sorted(chances)) or '-'})."
        f" {made_by(record, path)}"
    )
    return "\n\n".join(parts)


def newest(table: Callable[[Path], str]) -> Callable[[list[Path]], str]:
    """A table of the newest file alone."""
    return lambda files: table(files[-1])


def step_tables(files: list[Path]) -> str:
    """The tables of files of `benchmarks/step_time.py`, newest first; `folds` are its as well.

    Names sort by time: a letter after the date for a second measurement of a day. Of older files
    what no newer one measures again on the same processor: ratios differ between processors.
    """
    parts: list[str] = []
    shown: set[tuple[str, str, str]] = set()
    for path in sorted([*files, *RESULTS.glob("*-folds.json")], reverse=True):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        processor = record["environment"]["processor"]
        for key in ("cases", "folds"):
            rows = {(processor, key, row["name"]): row for row in record[key]}
            record[key] = [row for name, row in rows.items() if name not in shown]
            shown |= rows.keys()
        parts += [step_table(record, path)] if record["cases"] or record["folds"] else []
    return "\n\n".join(parts)


def step_table(record: dict[str, Any], path: Path) -> str:
    """The table of one of them."""
    lines = [
        f"Steps beside PyTorch, {where(record)}, {record['num_threads']} threads, commit"
        f" {record['environment']['git'][:7]}, float32; ratios are mexjax / PyTorch, below one"
        " mexjax is faster or smaller:",
        "",
    ]
    if record["cases"]:
        lines += [
            "| step | mexjax | PyTorch | time ratio | memory ratio |",
            "|---|---|---|---|---|",
        ]
    for row in record["cases"]:
        for what, found in (("training", row), ("inference", row["inference"])):
            memory = f"{row['memory_ratio']:.2f}" if found is row else ""
            lines.append(
                f"| {row['name']}, {what} | {found['mexjax_s']:.3g} s | {found['peer_s']:.3g} s"
                f" ({found['peer']}) | **{found['ratio']:.2f}** | {memory} |"
            )
    lines += [""] if record["cases"] and record["folds"] else []
    for row in record["folds"]:
        for count, ratio in row["time_ratio"].items():
            by_torch = row["peer_time_ratio"].get(count)
            lines.append(
                f"- {row['name']}, {count} folds in one program: {ratio:.2f} times the time of"
                f" {count} single steps"
                + (f" (`torch.func.vmap`: {by_torch:.2f})" if by_torch else "")
                + f", {row['compile_ratio'][count]:.2f} times the compilation of one."
            )
    return "\n".join([*lines, "", made_by(record, path)])


def loso_table(path: Path) -> str:
    """The table of one file of `benchmarks/loso.py`."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"The whole study beside the same study in sequential PyTorch, {where(record)};"
        " ratios are to the faster memory layout of PyTorch:",
        "",
        "| | seconds | UF1 | time / PyTorch |",
        "|---|---|---|---|",
    ]
    for strategy, runs in record["mexjax"].items():
        for name, run in runs.items():
            lines.append(
                f"| mexjax, `{strategy}`, {name} compilation cache | {run['process_s']:.0f} |"
                f" {run['uf1']:.3f} | **{run['ratio']:.2f}** |"
            )
    for layout, run in record["torch"].items():
        lines.append(f"| PyTorch, {layout} | {run['total_s']:.0f} | {run['uf1']:.3f} | |")
    return "\n".join([*lines, "", made_by(record, path)])


def prepare_line(path: Path) -> str:
    """A sentence on one file of `benchmarks/prepare.py`."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rates, peak = record["frames_per_s_and_core"], record["peak_bytes"]
    return (
        f"Preparation of {record['frames']} frames ({where(record)}): {rates['prepare']:.0f} frames"
        f" a second and core, everything included, beside {rates['plain_loop']:.0f} of a plain loop"
        " of imread, warpAffine and imwrite on as many cores"
        f" ({rates['plain_loop_on_one_core']:.0f} on one core alone); peak memory"
        f" {peak['1x'] / 2**20:.0f} MiB, with four times the clips {peak['4x'] / 2**20:.0f} MiB."
        f" {made_by(record, path)}"
    )


def frozen_line(path: Path) -> str:
    """A sentence on one file of `benchmarks/frozen.py`."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    over = record["over_cached"]
    parts = [
        f"A training step of {record['case']} on ViT-B/32, what the frozen blocks make of the data"
        f" computed once ({where(record)}): {record['seconds']['cached']:.3f} s; computing it in"
        f" every step takes {over['fresh']:.2f} times as long, training all blocks"
        f" {over['unfrozen']:.2f} times"
    ]
    if "peer" in over:
        parts.append(f", PyTorch, which computes it in every step, {over['peer']:.2f} times")
    if "folds" in record:
        folds = record["folds"]
        parts.append(
            f". Folds in programs of {folds['count']}: {folds['over_single']:.2f} times the time of"
            " as many steps of one"
        )
    return "".join(parts) + f". {made_by(record, path)}"


def where(record: dict[str, Any]) -> str:
    """The machine and the versions of a results file."""
    machine = record["environment"]
    return (
        f"{machine['processor']}, {machine['cpu_count']} cores, Python {machine['python']},"
        f" jax {machine['jax']}"
    )


def made_by(record: dict[str, Any], path: Path) -> str:
    """The command and the file that a table is from."""
    link = f"[benchmarks/results/{path.name}](benchmarks/results/{path.name})"
    return f"Made by `{record['command']}`, {link}."


CHOICES = {
    "annotated": "as annotated",
    "paper": "re-selected as the paper does (inward, lambda 0.1)",
    "same_light": "re-selected on both sides, lambda 0.2, differences in one light",
    "apex": "the apex alone re-selected, lambda 0.2, differences in one light",
    "same_light_train": "the same, in training only",
    "true": "the true ones",
}


def key_frames_table(path: Path) -> str:
    """The table of one file of `benchmarks/key_frames.py`."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    seeds = sorted({run["seed"] for run in record["runs"]})
    lines = [
        f"Key frames that annotators miss by 15% of the rise, `{record['card']}` by LOSO on the"
        f" embedded dataset (preset `keyframes`), {where(record)}. UF1 (last) of each draw, and the"
        " mean error of onset and apex against the true ones:",
        "",
        "| key frames |"
        + "".join(f" draw {seed} |" for seed in seeds)
        + " mean | onset, ms | apex, ms |",
        "|---|" + "---|" * (len(seeds) + 3),
    ]
    for choice, errors in record["errors_ms"].items():
        scores = [run["uf1"] for run in record["runs"] if run["choice"] == choice]
        cells = [*(f"{score:.3f}" for score in scores), f"**{sum(scores) / len(scores):.3f}**"]
        cells += [f"{error:.1f}" for error in errors[:2]]
        lines.append(f"| {CHOICES[choice]} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", made_by(record, path)])


# By the last word of the files' names; each takes the files of its kind, oldest first.
TABLES: dict[str, Callable[[list[Path]], str]] = {
    "demo": newest(demo_table),
    "tsfmicro": newest(demo_table),
    "gamdss": newest(demo_table),
    "ac4au": newest(demo_table),
    "ac4au_tables": newest(ablation_tables),
    "micro_au_clip": newest(demo_table),
    "keyframes": newest(key_frames_table),
    "frozen": newest(frozen_line),
    "step": step_tables,
    "loso": newest(loso_table),
    "prepare": newest(prepare_line),
}


def render() -> str:
    """The whole part between the markers, of each kind of results there is."""
    parts = []
    for kind, table in TABLES.items():
        files = sorted(RESULTS.glob(f"*-{kind}.json"))
        parts += [table(files)] if files else []
    return "\n\n".join([START, *parts, END]).replace(f"{START}\n\n", f"{START}\n")


def main() -> int:
    """Rewrite or check the README."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    wanted = f"{before}{render()}{after}"
    if arguments.check:
        return int(wanted != text)
    readme.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

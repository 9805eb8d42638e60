"""Tables of times and memory, from files of the other benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from results_files import Result, newest

Row = tuple[dict[str, Any], Result]


def newest_rows(results: Sequence[Result], key: str) -> dict[str, dict[str, Row]]:
    """The newest row of each case in files of `step_time.py`, with its file, by processor and name.

    Args:
      results: results files, oldest first.
      key: `cases` or `folds`.
    """
    rows: dict[str, dict[str, Row]] = {}
    for result in results:
        if result.kind == "step_time":
            of_processor = rows.setdefault(result.processor, {})
            of_processor |= {row["name"]: (row, result) for row in result.record[key]}
    return {processor: dict(sorted(cases.items())) for processor, cases in rows.items() if cases}


def _largest_batches(rows: dict[str, dict[str, Row]]) -> list[str]:
    """The name of the case with the largest batch of each network, sorted."""
    cases = [row for by_name in rows.values() for row, _ in by_name.values()]
    cases.sort(key=lambda row: row["batch"])
    return sorted({(row["model"], row["preset"]): row["name"] for row in cases}.values())


def speed_table(results: Sequence[Result], document: Path) -> str:
    """A table of one row a network, at its largest batch, with ratios to PyTorch by processor."""
    rows = newest_rows(results, "cases")
    processors = sorted(rows)
    names = {result.processor: result.short_processor for result in results}
    heads = [f"{names[name]}: training | inference | memory" for name in processors]
    lines = [
        f"| mexjax / PyTorch | {' | '.join(heads)} |",
        "|---" * (1 + 3 * len(processors)) + "|",
    ]
    for name in _largest_batches(rows):
        cells = []
        for processor in processors:
            row = rows[processor].get(name, ({}, None))[0]
            if not row.get("ratio"):
                cells += ["", "", ""]
                continue
            cells += [f"**{row['ratio']:.2f}** ({row['mexjax_s']:.3g} s)"]
            cells += [f"{row['inference']['ratio']:.2f}", f"{row['memory_ratio']:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_study_sentences(results)])


def _study_sentences(results: Sequence[Result]) -> list[str]:
    """A sentence on the newest whole study, start and report included."""
    whole = [
        result
        for result in results
        if result.kind == "study_time" and not result.record.get("options") and not _on_one(result)
    ]
    files = newest(whole)[:1]
    return [
        f"The whole study of the demo, start and report included, takes {run['process_s']:.0f} s"
        f" with programs in the cache ({result.short_processor}), {run['ratio']:.2f} times as long"
        " as the same study in sequential PyTorch."
        for result in files
        for run in [result.record["mexjax"]["loop"]["warm"]]
    ]


def step_tables(results: Sequence[Result], document: Path) -> str:
    """One table a processor, with the newest measurement of each case, training and inference."""
    parts = []
    for processor, cases in sorted(newest_rows(results, "cases").items()):
        files = {result.path: result for _, result in cases.values()}
        lines = [
            f"### {processor}",
            "",
            "| step | mexjax | PyTorch | time ratio | memory ratio | commit |",
            "|---|---|---|---|---|---|",
        ]
        for name, (row, result) in cases.items():
            for what, times in (("training", row), ("inference", row["inference"])):
                memory = f"{row['memory_ratio']:.2f}" if times is row else ""
                lines.append(
                    f"| {name}, {what} | {times['mexjax_s']:.3g} s | {times['peer_s']:.3g} s"
                    f" ({times['peer']}) | **{times['ratio']:.2f}** | {memory} | {result.commit} |"
                )
        lines.append("")
        lines += [f"- {files[path].made_by(document)}" for path in sorted(files, reverse=True)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def fold_tables(results: Sequence[Result], document: Path) -> str:
    """A table of several folds in one program, with the newest row of each case and processor."""
    lines = [
        "| case | processor | folds | time / single steps | `torch.func.vmap` | compilation / one |"
        " file |",
        "|---|---|---|---|---|---|---|",
    ]
    for processor, cases in sorted(newest_rows(results, "folds").items()):
        for name, (row, result) in cases.items():
            for count, ratio in row["time_ratio"].items():
                by_torch = row["peer_time_ratio"].get(count)
                lines.append(
                    f"| {name} | {processor} | {count} | **{ratio:.2f}** |"
                    f" {f'{by_torch:.2f}' if by_torch else ''} |"
                    f" {row['compile_ratio'][count]:.2f} | {result.link(document)} |"
                )
    return "\n".join(lines)


def _by_processor(
    kind: str, part: Callable[[Result, Path], str]
) -> Callable[[Sequence[Result], Path], str]:
    """A table that shows the newest file of one kind on each processor."""

    def table(results: Sequence[Result], document: Path) -> str:
        files = newest([result for result in results if result.kind == kind])
        return "\n\n".join(
            f"{part(result, document)}\n\n{result.made_by(document)}" for result in files
        )

    return table


def _on_one(result: Result) -> bool:
    """True for a study on one core of several, whose processor seconds count."""
    return result.record.get("num_threads") == 1 < result.record["environment"]["cpu_count"]


def _study(result: Result, document: Path) -> str:
    one = _on_one(result)
    unit = "processor seconds, one core" if one else "seconds"
    ours, theirs, ratio = (
        ("process_cpu_s", "total_cpu_s", "cpu_ratio") if one else ("process_s", "total_s", "ratio")
    )
    lines = [f"| whole study | {unit} | UF1 | mexjax / PyTorch |", "|---|---|---|---|"]
    for strategy, runs in result.record["mexjax"].items():
        for name, run in runs.items():
            lines.append(
                f"| mexjax, `{strategy}`, {name} compilation cache | {run[ours]:.0f} |"
                f" {run['uf1']:.3f} | **{run[ratio]:.2f}** |"
            )
    for layout, run in result.record["torch"].items():
        name = layout.replace("_", " ")
        lines.append(f"| PyTorch, {name} | {run[theirs]:.0f} | {run['uf1']:.3f} | |")
    return "\n".join(lines)


def _preparation(result: Result, document: Path) -> str:
    record = result.record
    rates, peak = record["frames_per_s_and_core"], record["peak_bytes"]
    return "\n".join(
        [
            f"| {record['frames']} frames to {record['size_px']} px | frames / s / core |",
            "|---|---|",
            f"| mexjax, everything included | **{rates['prepare']:.0f}** |",
            f"| plain loop of imread, warpAffine, imwrite, all cores | {rates['plain_loop']:.0f} |",
            f"| the same loop on one core | {rates['plain_loop_on_one_core']:.0f} |",
            "",
            f"Peak memory is {peak['1x'] / 2**20:.0f} MiB, and {peak['4x'] / 2**20:.0f} MiB with"
            " four times the clips.",
        ]
    )


def _frozen(result: Result, document: Path) -> str:
    record = result.record
    names = {
        "cached": "frozen part computed once",
        "fresh": "frozen part computed in every step",
        "unfrozen": "all blocks trained (another update)",
        "peer": "PyTorch, frozen part in every step",
    }
    lines = [
        f"| step of {record['case']} | seconds | over computed once |",
        "|---|---|---|",
        *(
            f"| {names[name]} | {seconds:.3f} | **{record['over_cached'][name]:.2f}** |"
            for name, seconds in record["seconds"].items()
        ),
    ]
    if "folds" in record:
        folds = record["folds"]
        lines.append(
            f"| a fold of {folds['count']} in one program | | {folds['over_single']:.2f} |"
        )
    return "\n".join(lines)


def _views(result: Result, document: Path) -> str:
    rates = result.record["clips_per_s"]
    names = {
        "pattern": "frames read again for every sample, as released loaders do",
        "view_first": "a view, first epoch",
        "view_later": "a view, every later epoch",
    }
    lines = ["| key frames chosen anew | clips / s | over reading again |", "|---|---|---|"]
    lines += [
        f"| {names[name]} | {rate:.1f} | **{rate / rates['pattern']:.2f}** |"
        for name, rate in rates.items()
    ]
    return "\n".join(lines)


def _pipeline(result: Result, document: Path) -> str:
    record = result.record
    shape = " x ".join(map(str, record["clip"]))
    lines = [
        f"| batches of {record['batch']} clips of {shape} | clips / s |",
        "|---|---|",
        f"| the embedded dataset is rendered | {record['load_clips_per_s']:.0f} |",
        *(f"| {name} | **{rate:.0f}** |" for name, rate in record["clips_per_s"].items()),
    ]
    return "\n".join(lines)


def _sweeps(result: Result, document: Path) -> str:
    record = result.record
    alone = record["one_by_one"]["process_s"]
    lines = [
        f"| {record['num_trials']} runs of one fold | time, s | beside as many commands |",
        "|---|---|---|",
        f"| as many commands, warm | {alone:.1f} | 1 |",
    ]
    names = {"loop": "one command, run by run", "vmap": "one command, all in one program"}
    lines += [
        f"| {name} | {record[which]['process_s']:.1f} | **{record[which]['ratio']:.2f}** |"
        for which, name in names.items()
    ]
    return "\n".join(lines)


sweep_tables = _by_processor("sweeps", _sweeps)
study_tables = _by_processor("study_time", _study)
preparation_tables = _by_processor("preparation", _preparation)
frozen_tables = _by_processor("frozen", _frozen)
view_tables = _by_processor("key_frame_views", _views)
pipeline_tables = _by_processor("pipeline", _pipeline)

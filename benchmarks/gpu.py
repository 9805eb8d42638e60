"""A prepared run on a GPU: parity, step times beside bounds and PyTorch, studies, convolutions.

    python benchmarks/gpu.py --json=benchmarks/results/DATE-MACHINE-COMMIT-gpu_run.json
    python benchmarks/gpu.py --minutes=4 --only step study --json=FILE
    python benchmarks/gpu.py --quick

The script needs the standard library alone, and no network. Each part is a process with a limit of
its own, and together they end within `--minutes`. Parts are ordered by worth. The file is written
again whenever a part has a new line, so a part that fails or is cut off, and the end of the whole
run at any moment, lose nothing that was measured. A part that the time does not suffice for is in
the file as `not started`. Wheels of pure Python in `--wheels` (`ml_collections`, say) are imported
as they are: `pip download --no-deps --dest benchmarks/wheels ml_collections`.

Parts are named `environment`, `parity`, `step CASE SIDE`, `study CARD` and `convolutions NETWORK`;
a case is one of `gpu_programs.py`, whose newest committed results give its bounds. Sides are
`mexjax`, with CUDA graphs in XLA's default, `off` or over an `epoch`, and `torch` by eager calls
with channels last, by eager calls with contiguous arrays, and compiled. `--quick` runs the
smallest example of every part, also on a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
# Cards of the cases with what both sides need: the PyTorch side knows neither the frozen norms
# after the first epoch nor two scales of images.
CASES = {
    "fdp_tiny": ("fdp:tiny",),
    "fdp_paper": ("fdp:paper",),
    "fdp_official": (
        "fdp:official", "model.freeze_bn_after_epoch_1=False", "data.split_scale=none",
    ),
    "tsfmicro_official": ("tsfmicro:official",),
    "gamdss_official": ("gamdss:official",),
    "gamdss_vmamba": ("gamdss:official", "model.backbone=vmamba_tiny"),
    "ac4au_tiny": ("ac4au:tiny",),
    "ac4au_scratch": (
        "ac4au:scratch", "data.name=synthetic_sets", "data.collection.scale=0.05",
    ),
    "micro_au_clip_tiny": ("micro_au_clip:tiny",),
    "micro_au_clip_paper": ("micro_au_clip:paper", "model.weights=random"),
}  # fmt: skip
# Kinds of launches in CUDA graphs; `tests/benchmarks` holds the last one equal to the library's.
GRAPHS = {
    "off": "",
    "epoch": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONVOLUTION,WHILE,"
    "CONDITIONAL",
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One process of the run.

    Attributes:
      name: the key of the part in the file; its first word is the kind.
      arguments: of the interpreter.
      limit_s: seconds after which the part is ended.
      environment: variables beside those of the run.
      is_study: true if the results are in a working folder, the last argument is for its place.
    """

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    environment: tuple[tuple[str, str], ...] = ()
    is_study: bool = False


def own_part(name: str, *arguments: str, limit_s: float) -> Part:
    """A part that `gpu_parts.py` runs."""
    return Part(name, (str(HERE / "gpu_parts.py"), *arguments), limit_s)


def step(case: str, *, dtype: str = "float32", folds: int = 1, graphs: str = "") -> Part:
    """Step time, inference, compilation and peak memory of mexjax."""
    card, *settings = CASES[case]
    words = ["jax", f"--card={card}", f"--folds={folds}", "--steps=7"]
    words += ["--set", f"precision={'tf32' if dtype == 'float32' else dtype}", *settings]
    program = f"{case}_{folds}x1{'' if dtype == 'float32' else '_' + dtype}"
    flags = ()
    if graphs:
        mine = f"--xla_gpu_enable_command_buffer={GRAPHS[graphs]}"
        if graphs == "epoch":  # a loop alone is less than XLA's smallest graph
            mine += " --xla_gpu_graph_min_graph_size=1"
        flags = (("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {mine}".strip()),)
    name = f"step {program} mexjax{' graphs ' + graphs if graphs else ''}"
    return Part(name, (str(HERE / "step_process.py"), *words), 75, flags)


def peer(
    case: str, *, layout: str = "channels_last", compiled: bool = False, dtype: str = ""
) -> Part:
    """The same of PyTorch, for one fold."""
    card, *settings = CASES[case]
    words = ["torch", f"--card={card}", f"--layout={layout}", "--steps=20"]
    words += ["--compiled=yes"] if compiled else []
    words += ["--autocast=yes"] if dtype else []
    words += ["--set", *settings] if settings else []
    program = f"{case}_1x1{'_' + dtype if dtype else ''}"
    name = f"step {program} torch {layout}{' compiled' if compiled else ''}"
    # It reads the data with mexjax, which must leave the GPU alone.
    platform = (("JAX_PLATFORMS", "cpu"),)
    return Part(name, (str(HERE / "step_process.py"), *words), 90 if compiled else 45, platform)


def study(card: str, limit_s: float, *overrides: str) -> Part:
    """A whole study as the command runs it, from the start of the process to its report."""
    options = ("has_progress=False", "report.has_figures=False", *overrides)
    words = ("-m", "mexjax.main", f"--config={card}", "--overwrite")
    words += tuple(f"--config.{option}" for option in options)
    return Part(f"study {card}", words, limit_s, is_study=True)


def convolutions(network: str, limit_s: float, *, has_one_layer: bool = False) -> Part:
    """Device times of every lowering of a network's convolutions, or of the cheapest alone."""
    words = ("convolutions", network, *(["--one-layer"] if has_one_layer else []))
    dtypes = ("--dtypes", "float32", "bfloat16")
    return own_part(f"convolutions {network}", *words, *dtypes, limit_s=limit_s)


def parts_of(*, is_quick: bool) -> list[Part]:
    """The parts in the order of their worth."""
    first = own_part("environment", "environment", limit_s=60)
    if is_quick:
        tiny = "micro_au_clip_tiny"
        few = ("folds.per_chunk=1", "train.num_epochs=1", "eval.every_epochs=1")
        return [
            first,
            own_part("parity", "parity", "micro_au_clip", limit_s=200),
            dataclasses.replace(step(tiny, graphs="off"), limit_s=200),
            dataclasses.replace(peer(tiny), limit_s=200),
            study("micro_au_clip:tiny", 200, *few),
            convolutions("FDP tiny", 200, has_one_layer=True),
        ]
    cards = ("fdp", "tsfmicro", "gamdss", "ac4au", "micro_au_clip")
    published = ("fdp_official", "ac4au_scratch", "tsfmicro_official", "micro_au_clip_paper")
    return [
        first,
        own_part("parity", "parity", *cards, limit_s=120),
        *(side(case) for case in published for side in (step, peer)),
        step("fdp_tiny"),
        study("fdp:tiny", 60),
        step("fdp_official", graphs="epoch"),
        step("fdp_official", dtype="bfloat16"),
        peer("fdp_official", dtype="bfloat16"),
        convolutions("FDP official", 60),
        step("fdp_tiny", graphs="off"),
        step("fdp_tiny", graphs="epoch"),
        study("fdp:official", 150),
        peer("fdp_official", compiled=True),
        step("fdp_official", folds=4),
        step("gamdss_vmamba"),
        step("fdp_official", graphs="off"),
        peer("fdp_official", layout="contiguous"),
        peer("fdp_tiny"),
        step("gamdss_official"),
        peer("gamdss_official"),
        step("fdp_paper"),
        peer("fdp_paper"),
        step("ac4au_scratch", dtype="bfloat16"),
        peer("ac4au_scratch", dtype="bfloat16"),
        peer("tsfmicro_official", compiled=True),
        convolutions("TSFmicro official, batch 4", 60),
    ]


def wheel_paths(folder: Path) -> list[str]:
    """Wheels of pure Python, which are imported as archives."""
    return [str(path) for path in sorted(folder.glob("*-none-any.whl"))]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a process's output that are JSON objects; others are for people."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("{"):
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue  # the process was ended in the middle of the line
    return rows


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Run:
    """The run and its file.

    Attributes:
      record: content of the file.
    """

    def __init__(self, path: Path | None, minutes: float, wheels: Path) -> None:
        """Starts the clock.

        Args:
          path: the results file, if any.
          minutes: time for all parts.
          wheels: folder of wheels.
        """
        self._path, self._end = path, time.monotonic() + 60 * minutes
        self._paths = [str(ROOT), str(HERE), *wheel_paths(wheels)]
        words = ["python", f"benchmarks/{Path(__file__).name}", *sys.argv[1:]]
        self.record: dict[str, Any] = {
            "benchmark": "gpu",
            "command": shlex.join(words),
            "minutes": minutes,
            "environment": {},
            "parts": {},
        }

    @property
    def left_s(self) -> float:
        """Seconds that are left for parts."""
        return self._end - time.monotonic()

    def keep(self) -> None:
        """Writes the file; it is whole at every moment."""
        if self._path:
            new = self._path.with_name(f".{self._path.name}.new")
            new.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
            new.replace(self._path)

    def run(self, part: Part, folder: Path) -> None:
        """Runs a part, and keeps each of its lines as it comes."""
        row: dict[str, Any] = {"status": "not started", "results": []}
        self.record["parts"][part.name] = row
        limit_s = min(part.limit_s, self.left_s)
        # A process needs about ten seconds before it measures anything.
        if limit_s < min(part.limit_s, 10):
            self.keep()
            return
        row |= {"status": "cut off", "limit_s": round(limit_s, 1)}
        self.keep()
        command = [sys.executable, *part.arguments]
        workdir = folder / "study"
        command += [f"--workdir={workdir}"] if part.is_study else []
        before = os.environ.get("PYTHONPATH")
        paths = os.pathsep.join([*self._paths, *([before] if before else [])])
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "2"}
        environment = os.environ | {"PYTHONPATH": paths} | cache | dict(part.environment)
        start, out, err = time.monotonic(), folder / "out.txt", folder / "err.txt"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                command, stdout=stdout, stderr=stderr, cwd=ROOT, env=environment,
                start_new_session=True,
            )  # fmt: skip
            try:
                while process.poll() is None and time.monotonic() - start < limit_s:
                    time.sleep(0.2)
                    results = json_lines(out)
                    if len(results) > len(row["results"]):
                        row["results"] = results
                        self.keep()
            finally:
                is_over = process.poll() is not None
                end(process)
                row["seconds"] = round(time.monotonic() - start, 1)
                row["results"] = json_lines(out)
                if is_over:
                    row["status"] = "failed" if process.returncode else "done"
                if row["status"] != "done":
                    texts = (path.read_text(errors="replace") for path in (out, err))
                    row["last_words"] = "\n".join(text[-1000:] for text in texts).strip()
                self.keep()
        if part.is_study and row["status"] == "done":
            results = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
            row["results"] = [{key: results.get(key) for key in ("metrics", "timing")}]
        if part.name == "environment" and row["results"]:
            self.record["environment"] = row["results"][0]["environment"]
        self.keep()


def committed_programs() -> dict[str, Any]:
    """The programs of the newest results of `gpu_programs.py`; empty if there are none."""
    for path in sorted(RESULTS.glob("*.json"), reverse=True):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("benchmark") == "gpu_programs":
            return record["programs"]
    return {}


def summary(parts: dict[str, Any], programs: dict[str, Any]) -> list[dict[str, Any]]:
    """The step times beside the bounds of their programs and the fastest PyTorch.

    Args:
      parts: the parts of the file.
      programs: bounds by the name of a program.

    Returns:
      A row for each program that mexjax was timed in: `step_ms` of one step of all its folds, its
      bounds, and ratios to both; None where there is nothing to compare with.
    """
    times: dict[str, dict[str, float]] = {}
    for name, part in parts.items():
        if name.startswith("step ") and part["results"]:
            _, program, side = name.split(" ", 2)
            times.setdefault(program, {})[side] = 1e3 * part["results"][-1]["median_s"]
    rows = []
    for program, by_side in times.items():
        torch_ms = min((ms for side, ms in by_side.items() if "torch" in side), default=None)
        bounds = programs.get(program, {})
        bounds = {key: bounds.get(key) for key in ("roofline_ms", "graph_ms", "launch_ms")}
        for side, ms in by_side.items():
            if "torch" in side:
                continue
            rows.append(
                {
                    "program": program,
                    "side": side,
                    "step_ms": ms,
                    **bounds,
                    "of_roofline": ms / bounds["roofline_ms"] if bounds["roofline_ms"] else None,
                    "torch_ms": torch_ms,
                    "of_torch": ms / torch_ms if torch_ms else None,
                }
            )
    return rows


def show(record: dict[str, Any]) -> None:
    """Prints what became of each part, and the step times."""
    for name, part in record["parts"].items():
        print(f"{part['status']:12} {part.get('seconds', 0):6.1f} s  {name}")
    for line in record["parts"].get("parity", {}).get("results", []):
        worst = max(line["differences"].values())
        word = "equal" if line["is_equal"] else "DIFFERENT"
        print(f"parity {line['card']:16} {word}: {worst:.1e} of the largest value")
    for row in record["summary"]:
        texts = [f"{row['step_ms']:9.3f} ms"]
        texts += [f"{row['of_roofline']:.1f} x roofline"] if row["of_roofline"] else []
        texts += [f"{row['of_torch']:.2f} x PyTorch"] if row["of_torch"] else []
        print(f"{row['program']} {row['side']}: {', '.join(texts)}")


def stop(number: int, _: Any) -> None:
    """Ends the run in order: the part that runs is ended and the file is written."""
    raise SystemExit(128 + number)


def main() -> int:
    """Runs the parts of the command line; the status is 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all parts together")
    parser.add_argument("--only", nargs="+", default=[], help="words that names of parts contain")
    parser.add_argument("--wheels", type=Path, default=HERE / "wheels")
    parser.add_argument("--quick", action="store_true", help="the smallest example of every part")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    parts = parts_of(is_quick=arguments.quick)
    if arguments.only:
        parts = [
            part
            for part in parts
            if part.name == "environment" or any(word in part.name for word in arguments.only)
        ]
    programs = committed_programs()
    run = Run(arguments.json, arguments.minutes, arguments.wheels.resolve())
    with tempfile.TemporaryDirectory(prefix="mexjax_gpu_run_") as folder:
        for part in parts:
            run.run(part, Path(folder))
            run.record["summary"] = summary(run.record["parts"], programs)
            run.keep()
            print(part.name, run.record["parts"][part.name]["status"], flush=True)
    show(run.record)
    return int(any(part["status"] == "failed" for part in run.record["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())

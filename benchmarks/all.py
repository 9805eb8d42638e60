"""Runs every benchmark, one after the other, and writes one results file.

    python benchmarks/all.py --json=benchmarks/results/DATE-MACHINE-COMMIT.json
    python benchmarks/all.py --quick

The script needs the standard library alone. A benchmark whose packages are missing is left out with
a message; one that fails leaves its message in the file, and the others go on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STUDY = ("jax", "flax", "optax", "ml_collections", "orbax", "pandas", "psutil", "rich", "cv2")
# Packages that each benchmark needs; without PyTorch only the comparisons are left out.
NEEDS = {
    "convolutions": ("jax", "numpy", "rich"),
    "cpu_tricks": STUDY,
    "step_time": STUDY,
    "frozen": STUDY,
    "study_time": (*STUDY, "torch"),
    "sweeps": STUDY,
    "pipeline": (*STUDY, "grain"),
    "preparation": (*STUDY, "grain", "array_record", "pyarrow"),
    "face_boxes": STUDY,
    "key_frame_views": (*STUDY, "grain", "array_record", "pyarrow"),
    "key_frames": STUDY,
    "scores": STUDY,
}


def missing(packages: tuple[str, ...]) -> list[str]:
    """Names of the packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def main() -> int:
    """Runs the benchmarks of the command line; the status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few minutes, to see that it works")
    parser.add_argument("--only", nargs="*", default=list(NEEDS), choices=list(NEEDS))
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    record: dict[str, Any] = {"command": f"python {' '.join(sys.argv)}"}
    status = 0
    if missing(("torch",)):
        print("PyTorch is not installed: mexjax is timed alone.", flush=True)
    for name in arguments.only:
        absent = missing(NEEDS[name])
        if absent:
            record[name] = {"left_out": f"not installed: {', '.join(absent)}"}
            print(f"{name}: left out, not installed: {', '.join(absent)}", flush=True)
            continue
        print(f"{name} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "part.json"
            command = [sys.executable, str(HERE / f"{name}.py"), f"--json={part}"]
            command += ["--quick"] if arguments.quick else []
            done = subprocess.run(command, cwd=HERE.parent, stderr=subprocess.PIPE, text=True)
            if part.exists():
                record[name] = json.loads(part.read_text(encoding="utf-8"))
            if done.returncode:
                status = 1
                record.setdefault(name, {})["error"] = done.stderr[-2000:]
                print(f"{name} failed:\n{done.stderr[-2000:]}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())

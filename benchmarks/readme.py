"""Write the results tables of the README from the newest committed results files.

python benchmarks/readme.py          # rewrites the part between the markers in README.md
python benchmarks/readme.py --check  # exits 1 if the README is not what the files say
"""

from __future__ import annotations

import argparse
import json
import sys
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
    machine = record["environment"]
    lines = [
        f"FDP `tiny` by LOSO on the embedded dataset, {machine['processor']}, "
        f"{machine['cpu_count']} cores, Python {machine['python']}, jax {machine['jax']}:",
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
        " each subject's best epoch on that subject, as released code does, and is not comparable."
        f" Made by `{record['command']}`,"
        f" [benchmarks/results/{path.name}](benchmarks/results/{path.name}).",
    ]
    return "\n".join(lines)


def render() -> str:
    """The whole part between the markers."""
    newest = sorted(RESULTS.glob("*-demo.json"))[-1]
    return f"{START}\n{demo_table(newest)}\n{END}"


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

"""Draw a contact sheet: `python -m mexjax.data.synthetic --out=sheet.png --kind=faces`."""

from __future__ import annotations

import argparse
import sys

from mexjax.data.synthetic import FLAVOURS, PRESETS, flavour, preset, sheet


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, draw and save; 0, or 1 when the file cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m mexjax.data.synthetic", description=__doc__)
    parser.add_argument("--out", required=True, help="picture to write (.png or .jpg)")
    parser.add_argument("--kind", choices=sorted(sheet.KINDS), default="faces")
    parser.add_argument(
        "--set",
        dest="name",
        choices=sorted([*PRESETS, *FLAVOURS]),
        default="default",
        help="settings to draw from",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    make = preset if options.name in PRESETS else flavour
    try:
        sheet.save(sheet.KINDS[options.kind](make(options.name, seed=options.seed)), options.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The embedded dataset, written as the public sets are released: folders, names, spreadsheets.

It serves to try the whole way from a raw release to results without any licence, and to test the
readers. The oddities of each release are written too: text above the header, a "/" for a missing
apex, missing frame files, clips of six frames, commas of the wrong kind. `Layout.expected` is the
answer of a correct reader.

    layout = write_layout("casme2", Path("somewhere"))
    reading = get_source("casme2").read(layout.root)      # equals layout.expected

No image, recording or annotation of any public set is used; names and columns are those of the
releases as far as public code and the sets' papers tell them.
"""

from mexjax.prepare.layouts.base import Layout
from mexjax.prepare.layouts.writer import LAYOUTS, write_layout

__all__ = ["LAYOUTS", "Layout", "write_layout"]

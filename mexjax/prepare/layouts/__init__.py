"""The embedded dataset, written as the public sets are released: folders, names, spreadsheets.

For trying the whole way from a raw release to results without any licence, and for testing the
readers. The oddities of each release are written too: text above the header, a "/" for a missing
apex, missing frame files, clips of six frames, commas of the wrong kind. What a correct reader
makes of all that is in `Layout.expected`.

    layout = write_layout("casme2", Path("somewhere"))
    reading = get_source("casme2").read(layout.root)      # equals layout.expected

No image, recording or annotation of any public set is used; names and columns are those of the
releases as far as public code and the sets' papers tell them.
"""

from mexjax.prepare.layouts.base import Layout
from mexjax.prepare.layouts.writer import LAYOUTS, write_layout

__all__ = ["LAYOUTS", "Layout", "write_layout"]

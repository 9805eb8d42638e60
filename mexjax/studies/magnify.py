"""Pictures of motion magnification: faces before and after, and the flow between them.

    mexjax study magnify                                              # embedded clips
    mexjax study magnify --root=prepared/casme2 --methods=phase,linear
    mexjax study magnify --methods=magnet --weights=magnet_epoch12_loss7.28e-02.pth

Each row is a clip: onset, apex, and for each method the apex magnified, how it differs from the
onset, and the flow from the onset. On embedded clips, whose motion is known, a table says how far
each method moved the skin of what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mexjax import machine, terminal
from mexjax.data import synthetic
from mexjax.data.clip_frames import ClipFrames
from mexjax.data.synthetic.clip_views import clip_frames
from mexjax.data.view_frames import Magnifier, magnified, pair_places, with_channels
from mexjax.errors import DataError
from mexjax.ops.flow import dense_flow, flow_image
from mexjax.report.agg import Axes, Figure
from mexjax.report.figures import INK, new_figure, save_figure
from mexjax.report.tables import rich_table
from mexjax.studies import options
from mexjax.terminal import say

DIFFERENCE_GAIN = 3.0  # factor on the gray levels in pictures of differences
PICTURE = "magnify.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study: the picture is `magnify.png` in `--out`; returns the exit status."""
    arguments = options.magnify().read(argv)
    machine.devices()  # magnification computes on them
    console = terminal.console()
    hows = [
        Magnifier(name, arguments.factor, arguments.weights * (name == "magnet"), arguments.gain)
        for name in arguments.methods.split(",")
    ]
    if arguments.root:
        clips, flows = _prepared(arguments.root, arguments.clips), None
    else:
        clips, flows = _embedded(arguments.clips, arguments.size_px, arguments.amplitude)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pairs = [_pair(clip) for clip in clips]
    moved = [[magnified(a, b[None], how)[0] for how in hows] for a, b in pairs]
    figure = magnify_figure([clip.id for clip in clips], pairs, moved, hows)
    save_figure(figure, arguments.out / PICTURE)
    if flows is not None:
        table = _displacements(pairs, moved, flows, hows)
        console.print(rich_table(*table))
    say(console, f"Written: {arguments.out / PICTURE}")
    return 0


def _embedded(count: int, size_px: int, amplitude: float) -> tuple[list[ClipFrames], np.ndarray]:
    """Clips of different classes, and the true flow from onset to apex f32[M,H,W,2]."""
    config = synthetic.SyntheticConfig(amplitude=amplitude, resolution_px=size_px)
    plan = synthetic.make_plan(config)
    rows: list[int] = []
    for index, clip in enumerate(plan.clips):
        if len(rows) < count and clip.emotion not in {plan.clips[i].emotion for i in rows}:
            rows.append(index)
    rows += [i for i in range(len(plan.clips)) if i not in rows][: max(count - len(rows), 0)]
    flows = [synthetic.flow(plan, i, plan.clips[i].timing.apex) for i in rows]
    return [clip_frames(plan, i, size_px=size_px) for i in rows], np.stack(flows)


def _prepared(root: Path, count: int) -> list[ClipFrames]:
    """Clips from all over the manifest."""
    from mexjax.data import records
    from mexjax.data.manifest import COLUMNS, read_manifest

    table = read_manifest(root / records.MANIFEST, required=COLUMNS)
    rows = np.unique(np.linspace(0, len(table) - 1, count).round().astype(int))
    return [records.load_clip(root, row) for row in table.iloc[rows].to_dict("records")]


def _pair(clip: ClipFrames) -> tuple[np.ndarray, np.ndarray]:
    """u8[H,W,1] twice: onset and apex in gray."""
    onset, apex = with_channels(clip.frames[list(pair_places(clip, "rise"))], False)
    return onset, apex


def magnify_figure(
    names: Sequence[str],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    moved: Sequence[Sequence[np.ndarray]],
    hows: Sequence[Magnifier],
) -> Figure:
    """The picture.

    Args:
      names: names of the clips.
      pairs: onset and apex u8[H,W,1] of each clip.
      moved: for each clip the apex magnified by each method, u8[H,W,1].
      hows: the methods.

    The wheel in the first picture of flow shows the colours of the directions, from no motion in
    its centre to the largest motion of a row at its edge.
    """
    heads = ["onset", "apex", "apex\n- onset", "apex\nflow"]
    for how in hows:
        name = f"{how.method} x{how.factor:g}"
        heads += [name, f"{name}\n- onset", f"{name}\nflow"]
    figure, all_axes = new_figure(
        1.35 * len(heads) + 0.4, 1.42 * len(pairs) + 0.6, rows=len(pairs), columns=len(heads)
    )
    for row, (onset, apex) in enumerate(pairs):
        # All flows of a row have one scale, so that larger is seen as larger.
        flows = [dense_flow(onset[..., 0], x[..., 0]) for x in (apex, *moved[row])]
        scale = max(float(np.percentile(np.linalg.norm(f, axis=-1), 99)) for f in flows)
        tiles = [onset[..., 0], apex[..., 0]]
        for frame, flow in zip((apex, *moved[row]), flows, strict=True):
            difference = frame[..., 0].astype(float) - onset[..., 0]
            picture = np.clip(128 + DIFFERENCE_GAIN * difference, 0, 255)
            image = flow_image(flow, style="hsv", scale_px=max(scale, 0.1))
            tiles += ([] if frame is apex else [frame[..., 0]]) + [picture, image]
        for column, tile in enumerate(tiles):
            axes = all_axes[row * len(heads) + column]
            axes.imshow(tile, cmap="gray", vmin=0, vmax=255 if tile.ndim == 2 else 1)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if row == 0:
                axes.set_title(heads[column], fontsize=8.5, color=INK)
            if column == 0:
                axes.set_ylabel(names[row], fontsize=8.5, color=INK)
    _draw_wheel(all_axes[3])
    return figure


def _draw_wheel(axes: Axes) -> None:
    """The colours of the directions of flow, in the corner of a picture of it."""
    y, x = np.mgrid[-1:1:61j, -1:1:61j]
    colours = flow_image(np.stack([x, y], axis=-1).astype(np.float32), style="hsv", scale_px=1.0)
    disc = np.dstack([colours, (np.hypot(x, y) <= 1).astype(np.float32)])
    wheel = axes.inset_axes((0.72, 0.02, 0.26, 0.26))
    wheel.imshow(disc)
    wheel.set_axis_off()


def _displacements(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    moved: Sequence[Sequence[np.ndarray]],
    flows: np.ndarray,
    hows: Sequence[Magnifier],
) -> tuple[list[str], list[list[str]]]:
    """Head and rows: measured over true displacement, by least squares over moving pixels."""
    if not len(pairs):
        raise DataError("No clips to measure.")
    rows = []
    for column, name in enumerate(["apex as it is", *(how.method for how in hows)]):
        top = bottom = 0.0
        for (onset, apex), images, true in zip(pairs, moved, flows, strict=True):
            frame = apex if column == 0 else images[column - 1]
            field = dense_flow(onset[..., 0], frame[..., 0])
            is_moving = np.linalg.norm(true, axis=-1) > 0.3
            top += float((field * true)[is_moving].sum())
            bottom += float(np.square(true)[is_moving].sum())
        factor = 1.0 if column == 0 else hows[column - 1].factor
        rows.append([name, f"{factor:g}", f"{top / max(bottom, 1e-12):.2f}"])
    return ["method", "asked for", "measured displacement / true"], rows

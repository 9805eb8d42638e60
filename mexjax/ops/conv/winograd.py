"""Minimal filtering: 3x3 convolutions at stride 1 with fewer multiplications.

Along one axis, m outputs of a 3-tap filter are `A ((G w) * (B d))`, d the inputs that reach them;
nested over rows and columns, the products of all tiles at one of the p*p points form one plain
matrix product over channels (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks",
CVPR 2016, eqs. 6-13). Per output and channel pair a direct 3x3 needs 9 multiplications,
F(2x2, 3x3) 4, F(4x4, 3x3) 2.25.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mexjax.cpu.ordering import copy_after
from mexjax.cpu.sums import sum_terms
from mexjax.ops.conv.chunks import MIN_CHUNK_ROWS, in_chunks, sum_over_chunks
from mexjax.ops.conv.geometry import Geometry, Lowering, matmul, pad


@dataclasses.dataclass(frozen=True, eq=False)
class Algorithm:
    """The matrices of y[m] = A ((G w[3]) * (B d[window])).

    A tile's window starts one before its outputs.

    Attributes:
      B: f64[points,window], the transform of the inputs.
      G: f64[points,3], the transform of the kernel.
      A: f64[m,points], the transform of the products.
    """

    B: np.ndarray
    G: np.ndarray
    A: np.ndarray

    @property
    def tile(self) -> int:
        """Outputs along one side of a tile, m."""
        return self.A.shape[0]

    @property
    def window(self) -> int:
        """Inputs along one side of a tile."""
        return self.B.shape[1]

    @property
    def points(self) -> int:
        """Points of evaluation along one axis."""
        return self.B.shape[0]


def _interpolate(points: Sequence[float]) -> Algorithm:
    """F(len(points) - 1, 3) by evaluation at `points` and at infinity (Toom-Cook, transposed)."""
    n, m = len(points) + 1, len(points) - 1
    B, G, A = np.zeros((n, n)), np.zeros((n, 3)), np.zeros((m, n))
    for k, point in enumerate(points):
        others = [p for p in points if p != point]
        B[k, :-1] = np.poly(others)[::-1]
        G[k] = point ** np.arange(3) / np.prod([point - p for p in others])
        A[:, k] = point ** np.arange(m)
    B[-1] = np.poly(points)[::-1]
    G[-1, -1] = A[-1, -1] = 1
    return Algorithm(B, G, A)


F2 = _interpolate([0.0, 1.0, -1.0])
# With the usual points 0, +-1, +-2 the rounding error is four times as large (384 channels,
# float32: 1.2e-5 of the largest output against 3e-6); pairs +-a keep B as sparse.
F4 = _interpolate([0.0, 0.75, -0.75, 1.25, -1.25])


def _combine(coefficients: Sequence[float], parts: Sequence[jax.Array | None]) -> jax.Array | None:
    """The sum of c_i part_i, without the multiplications by 0 and 1; None stands for zeros."""
    total = None
    for c, part in zip(coefficients, parts, strict=True):
        if c == 0 or part is None:
            continue
        term = part if c == 1 else -part if c == -1 else part * np.float32(c)
        total = term if total is None else total + term
    return total


def _combine_both(
    matrix: np.ndarray, grid: Sequence[Sequence[jax.Array | None]]
) -> list[jax.Array]:
    """The product matrix @ grid @ matrix.T for a square grid of arrays, row by row in one list."""
    n = len(grid)
    columns = [[_combine(row, [grid[a][b] for a in range(n)]) for b in range(n)] for row in matrix]
    products = [_combine(row, column) for column in columns for row in matrix]
    # A map of one pixel has windows of zeros alone, and so products that are zero.
    part = next(part for row in grid for part in row if part is not None)
    return [jnp.zeros_like(part) if y is None else y for y in products]


def _tiles(g: Geometry, algorithm: Algorithm) -> tuple[int, int]:
    height, width = g.out_size
    return -(-height // algorithm.tile), -(-width // algorithm.tile)


def _windows(x: jax.Array, g: Geometry, algorithm: Algorithm) -> list[list[jax.Array | None]]:
    """The inputs of every tile, one array f[n,tiles,tiles,I] per position of the window."""
    m, window, tiles = algorithm.tile, algorithm.window, _tiles(g, algorithm)
    if tiles == (1, 1):
        start = [-g.padding[a][0] for a in range(2)]
        inside = [
            [p if 0 <= p < g.size[a] else None for p in range(start[a], start[a] + window)]
            for a in range(2)
        ]
        return [
            [None if r is None or c is None else x[:, r : r + 1, c : c + 1] for c in inside[1]]
            for r in inside[0]
        ]
    lows = [g.padding[a][0] for a in range(2)]
    highs = [m * tiles[a] + 2 - g.size[a] - lows[a] for a in range(2)]
    x = pad(x, ((lows[0], highs[0]), (lows[1], highs[1])))
    at = [[slice(p, p + m * (tiles[a] - 1) + 1, m) for p in range(window)] for a in range(2)]
    return [[x[:, r, c] for c in at[1]] for r in at[0]]


def _transformed_kernel(
    w: jax.Array, algorithm: Algorithm, is_turned: bool, x: jax.Array
) -> jax.Array:
    """The kernel f32[p*p,I,O], with mirrored taps if `is_turned`; made no earlier than x."""
    taps = algorithm.G[:, ::-1] if is_turned else algorithm.G
    both = copy_after(jnp.asarray(np.kron(taps, taps), jnp.float32), x)
    flat = w.astype(jnp.float32).reshape(9, -1)
    return matmul(both, flat).reshape(-1, *w.shape[2:])


def _image_cost(channels: int, g: Geometry, algorithm: Algorithm) -> tuple[int, int]:
    rows = int(np.prod(_tiles(g, algorithm)))
    return algorithm.points**2 * rows * channels * 4, rows


def enough_rows(channels: int, out: int, algorithm: Algorithm) -> int:
    """The number of tiles that the products should have (figures of one 2-core AMD EPYC).

    XLA:CPU computes products of fewer rows on one core; the limit is 1536 rows of 64 channels and
    768 of 128. F(2x2) gains more by both cores than it loses by arrays beyond the cache. F(4x4),
    with twice as many arrays, does so only where a row has many channels.
    """
    if algorithm is F2:
        return min(max(1536 * 64 // min(channels, out), 384), 4096)
    return 384 if algorithm is F4 and max(channels, out) >= 192 else MIN_CHUNK_ROWS


def _forward(
    x: jax.Array, w: jax.Array, g: Geometry, algorithm: Algorithm, is_turned: bool = False
) -> jax.Array:
    """The convolution with w, or with `turn(w)` without making that array."""
    channels, out = w.shape[2:]
    if is_turned:
        channels, out = out, channels
    points, m, tiles = algorithm.points, algorithm.tile, _tiles(g, algorithm)
    kernel = _transformed_kernel(w, algorithm, is_turned, x)
    contract = (((1,), (1 if is_turned else 0,)), ((), ()))
    column = algorithm.A.T.astype(np.float32)[:, :, None]

    def run(x: jax.Array) -> list[jax.Array]:
        windows = _windows(x.astype(jnp.float32), g, algorithm)
        inputs = _combine_both(algorithm.B, windows)
        products = [
            lax.dot_general(v.reshape(-1, channels), u, contract).reshape(-1, *tiles, out)
            for v, u in zip(inputs, kernel, strict=True)
        ]
        # Columns come by a broadcast over the position in the tile, so that every array is written
        # in order.
        rows = []
        for row in algorithm.A:
            parts = [_combine(row, products[b::points]) for b in range(points)]
            terms = zip(column, parts, strict=True)
            y = sum_terms(c * part[:, :, :, None] for c, part in terms if part is not None)
            rows.append(y.reshape(-1, tiles[0], m * tiles[1], out).astype(x.dtype))
        return rows

    cost = _image_cost(max(channels, out), g, algorithm)
    y = in_chunks(run, x, *cost, enough_rows(channels, out, algorithm))
    y = y.reshape(-1, m * tiles[0], m * tiles[1], out)
    return y[:, : g.out_size[0], : g.out_size[1]]


def _input_gradient(dy: jax.Array, w: jax.Array, g: Geometry, algorithm: Algorithm) -> jax.Array:
    return _forward(dy, w, g.turned(), algorithm, is_turned=True)


def _weight_gradient(x: jax.Array, dy: jax.Array, g: Geometry, algorithm: Algorithm) -> jax.Array:
    """The transpose of the forward without its sums: dU_p = V_p^T (A dY A^T)_p, dw = G^T dU G."""
    channels, out = x.shape[-1], dy.shape[-1]
    m, tiles = algorithm.tile, _tiles(g, algorithm)
    surplus = [(0, m * tiles[a] - g.out_size[a]) for a in range(2)]

    def run(x: jax.Array, dy: jax.Array) -> jax.Array:
        inputs = _combine_both(algorithm.B, _windows(x.astype(jnp.float32), g, algorithm))
        dy = pad(dy.astype(jnp.float32), (surplus[0], surplus[1]))
        grid = [[dy[:, r::m, c::m] for c in range(m)] for r in range(m)]
        outputs = _combine_both(algorithm.A.T, grid)
        pairs = zip(inputs, outputs, strict=True)
        return jnp.stack([matmul(v.reshape(-1, channels).T, q.reshape(-1, out)) for v, q in pairs])

    shape = (algorithm.points**2, channels, out)
    du = sum_over_chunks(run, x, dy, shape, *_image_cost(channels + out, g, algorithm))
    both = np.kron(algorithm.G, algorithm.G).T.astype(np.float32)
    return matmul(both, du.reshape(shape[0], -1)).reshape(3, 3, channels, out)


def _applies(g: Geometry, channels: int, out: int) -> bool:
    return g.kernel == (3, 3) and g.stride == (1, 1) and g.groups == 1


def _make_lowering(algorithm: Algorithm) -> Lowering:
    return Lowering(
        forward=lambda x, w, g: _forward(x, w, g, algorithm),
        input_gradient=lambda dy, w, g: _input_gradient(dy, w, g, algorithm),
        weight_gradient=lambda x, dy, g: _weight_gradient(x, dy, g, algorithm),
        applies=_applies,
    )


LOWERINGS: dict[str, Lowering] = {
    "winograd2": _make_lowering(F2),
    "winograd4": _make_lowering(F4),
}

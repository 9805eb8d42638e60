"""The static part of a convolution, and the helpers that its lowerings share.

A lowering is a way in which a convolution is computed. It is three functions of a `Geometry`:

    forward(x, w)          f[N,H,W,I], f[kh,kw,I/groups,O] -> f[N,H',W',O]
    input_gradient(dy, w)  f[N,H',W',O], f[kh,kw,I/groups,O] -> f[N,H,W,I]
    weight_gradient(x, dy) f[N,H,W,I], f[N,H',W',O] -> f[kh,kw,I/groups,O]

All lowerings compute the same numbers up to rounding; they differ in speed only. Sums are carried
in float32, whatever the dtype of the arrays.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

OPERATIONS = ("forward", "input_gradient", "weight_gradient")
Pair = tuple[int, int]
Function = Callable[[jax.Array, jax.Array, "Geometry"], jax.Array]
T = TypeVar("T")


def _both(item: Callable[[int], T]) -> tuple[T, T]:
    """An item for rows, axis 0, and one for columns, axis 1."""
    return item(0), item(1)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The static part of a convolution, apart from the batch and the channels.

    Attributes:
      size: rows and columns of the input map.
      kernel: rows and columns of the kernel.
      stride: step in rows and columns.
      padding: zeros above and below, left and right; a negative width crops.
      groups: channel groups.
    """

    size: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    groups: int = 1

    @property
    def padded(self) -> Pair:
        """Rows and columns of the map with its padding."""
        return _both(lambda a: self.size[a] + sum(self.padding[a]))

    @property
    def out_size(self) -> Pair:
        """Rows and columns of the output."""
        return _both(lambda a: (self.padded[a] - self.kernel[a]) // self.stride[a] + 1)

    def turned(self) -> "Geometry":
        """The convolution (stride 1) that gives the input gradient of this one."""
        reach, padding = _both(lambda a: self.kernel[a] - 1), self.padding
        border = _both(lambda a: (reach[a] - padding[a][0], reach[a] - padding[a][1]))
        return dataclasses.replace(self, size=self.out_size, padding=border)


@dataclasses.dataclass(frozen=True)
class Layer:
    """All that the choice of a lowering may depend on.

    Attributes:
      geometry: the static part.
      batch: images.
      channels: input channels of the whole layer, not of a group.
      out: output channels of the whole layer.
      dtype: name of the dtype of the arrays.
      platform: JAX's name of the platform.
      kind: the maker's name of the device; empty for a CPU, and for a row of any device of the
        platform.
    """

    geometry: Geometry
    batch: int
    channels: int
    out: int
    dtype: str
    platform: str
    kind: str = ""

    @property
    def flops(self) -> int:
        """Multiplications and additions of one operation, done directly."""
        g = self.geometry
        taps = math.prod(g.kernel) * math.prod(g.out_size)
        return 2 * self.batch * taps * self.channels * self.out // g.groups

    @property
    def num_elements(self) -> int:
        """Elements of the images, the output and the kernel, which every operation moves."""
        g = self.geometry
        images = self.batch * math.prod(g.size) * self.channels
        outputs = self.batch * math.prod(g.out_size) * self.out
        return images + outputs + math.prod(g.kernel) * self.channels * self.out // g.groups

    @property
    def group_kind(self) -> str:
        """`dense`, `depthwise` (one channel a group) or `grouped`."""
        groups = self.geometry.groups
        if groups == 1:
            return "dense"
        return "depthwise" if groups == self.channels == self.out else "grouped"


@dataclasses.dataclass(frozen=True)
class Lowering:
    """Three functions, a test of where they apply, and hints for several folds on XLA:CPU.

    Attributes:
      forward: the convolution; the module says what it takes, as for the next two.
      input_gradient: the gradient of the images.
      weight_gradient: the gradient of the kernel.
      applies: true if the lowering can compute a `Geometry` with these channels in and out.
      in_loop: false for a lowering that calls XLA's own convolution, whose gradients XLA:CPU
        compiles to slow code within a `while`.
      maps: true for elementwise sums: with a fold axis they stay what they are, whereas XLA joins
        them with how a loop writes its results, into scalar code.
    """

    forward: Function
    input_gradient: Function
    weight_gradient: Function
    applies: Callable[[Geometry, int, int], bool]
    in_loop: bool = True
    maps: bool = False


def turn(w: jax.Array, groups: int = 1) -> jax.Array:
    """Mirror the taps and swap input and output channels: f[kh,kw,I/g,O] -> f[kh,kw,O/g,I]."""
    kh, kw, per_group, out = w.shape
    w = w[::-1, ::-1].reshape(kh, kw, per_group, groups, out // groups)
    return w.transpose(0, 1, 4, 3, 2).reshape(kh, kw, out // groups, groups * per_group)


def pad(x: jax.Array, padding: tuple[Pair, Pair]) -> jax.Array:
    """Put zeros around the rows and columns (a negative width crops).

    The barrier keeps the border test out of the loops that read the padded array.
    """
    if padding == ((0, 0), (0, 0)):
        return x
    widths = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), widths))


def taps_of(g: Geometry) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield (i, j, rows, columns) of every tap of the kernel, as slices of the padded map."""
    for i in range(g.kernel[0]):
        for j in range(g.kernel[1]):
            rows, columns = (
                slice(start, start + (g.out_size[a] - 1) * g.stride[a] + 1, g.stride[a])
                for a, start in enumerate((i, j))
            )
            yield i, j, rows, columns


def matmul(a: jax.Array | np.ndarray, b: jax.Array) -> jax.Array:
    """The product f32[...,M,N] of f[...,M,K] and f[...,K,N]."""
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def phases(forward: Function) -> Function:
    """The input gradient: at stride 1 one convolution, else one per residue of the position.

    Input position h = s u + r - p, r in [0, s), is reached by the taps r, r + s, ... only, so each
    residue is a convolution at stride 1 with a part of the kernel; the results interleave.
    """

    def run(dy: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
        if g.stride == (1, 1):
            return forward(dy, turn(w, g.groups), g.turned())
        s = g.stride
        units = [-(-g.padded[a] // s[a]) for a in range(2)]
        channels = w.shape[2] * g.groups
        rows = []
        for r in range(s[0]):
            row = []
            for c in range(s[1]):
                part = w[r :: s[0], c :: s[1]]
                if 0 in part.shape:
                    row.append(jnp.zeros((dy.shape[0], *units, channels), dy.dtype))
                    continue
                size = part.shape[0], part.shape[1]
                padding = [(size[a] - 1, units[a] - g.out_size[a]) for a in range(2)]
                sub = Geometry(g.out_size, size, (1, 1), (padding[0], padding[1]), g.groups)
                row.append(forward(dy, turn(part, g.groups), sub))
            rows.append(jnp.stack(row, 3))
        dx = jnp.stack(rows, 2).reshape(-1, units[0] * s[0], units[1] * s[1], channels)
        (top, _), (left, _) = g.padding
        tail = [(0, max(0, g.padding[a][0] + g.size[a] - dx.shape[1 + a])) for a in range(2)]
        dx = jnp.pad(dx, ((0, 0), *tail, (0, 0)))
        return dx[:, top : top + g.size[0], left : left + g.size[1]]

    return run


def is_ungrouped(g: Geometry, channels: int, out: int) -> bool:
    """The `applies` of lowerings that know no groups."""
    return g.groups == 1

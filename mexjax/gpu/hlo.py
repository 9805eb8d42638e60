"""The text of an optimised HLO module, read into instructions."""

from __future__ import annotations

import dataclasses
import math
import re

# Bytes of one element.
_BYTES = {
    "pred": 1, "s4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4,
    "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16, "f8e4m3fn": 1,
    "f8e5m2": 1, "token": 0, "opaque": 0,
}  # fmt: skip
_SHAPE = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(
    r"(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Shape:
    """The type of an array: name of its elements and lengths of its axes."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> float:
        """Bytes of all elements."""
        return self.size * _BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: its name.
      shapes: the array it gives, or those of its tuple.
      opcode: what it does.
      operands: names of the instructions it reads.
      attributes: the text behind the operands.
      is_root: true if it gives the result of its computation.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def num_bytes(self) -> float:
        """Bytes of its result."""
        return sum(shape.num_bytes for shape in self.shapes)

    @property
    def target(self) -> str:
        """The name of the library call, empty for other instructions."""
        return self.find(r'custom_call_target="([^"]+)"')

    @property
    def source(self) -> str:
        """The place in the traced program that it stems from."""
        return self.find(r'op_name="([^"]*)"')

    @property
    def called(self) -> list[str]:
        """Names of the computations it calls."""
        names = _CALLS.findall(self.attributes)
        for group in _BRANCHES.findall(self.attributes):
            names += re.findall(r"%?([\w.\-]+)", group)
        return names

    def find(self, pattern: str) -> str:
        """The first group of a pattern in the attributes, empty if it does not occur."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else ""


@dataclasses.dataclass(frozen=True)
class Module:
    """Computations by name, and the name of the one that is run."""

    computations: dict[str, list[Instruction]]
    entry: str

    def shapes(self, computation: str) -> dict[str, tuple[Shape, ...]]:
        """The results of a computation's instructions, by name."""
        return {i.name: i.shapes for i in self.computations[computation]}

    def inner(self, computation: str) -> list[tuple[str, Instruction]]:
        """All instructions that a fused computation runs, each with its computation."""
        pairs = []
        for instruction in self.computations[computation]:
            pairs.append((computation, instruction))
            if instruction.opcode in ("fusion", "call"):
                for name in instruction.called:
                    pairs += self.inner(name)
        return pairs


def parse(text: str) -> Module:
    """Reads the text that `jax.stages.Compiled.as_text` gives.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if not current:
            head = _HEAD.match(line)
            if head:
                current = head[2]
                computations[current] = []
                entry = current if head[1] else entry
        elif line.startswith("}"):
            current = ""
        elif match := _LINE.match(line):
            computations[current].append(_instruction(match[2], match[3], bool(match[1])))
    if not entry:
        raise ValueError("The text of the HLO module has no ENTRY computation.")
    return Module(computations, entry)


def shapes_in(text: str) -> tuple[Shape, ...]:
    """The shapes that occur in a text, in order."""
    return tuple(
        Shape(kind, tuple(int(d) for d in dims.split(",") if d))
        for kind, dims in _SHAPE.findall(text)
    )


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    is_tuple = text.startswith("(")
    end = _closing(text, 0) + 1 if is_tuple else text.index(" ")
    opcode, _, rest = text[end + 1 :].partition("(")
    close = _closing("(" + rest, 0) - 1
    return Instruction(
        name=name,
        shapes=shapes_in(text[:end]),
        opcode=opcode,
        operands=tuple(_NAME.findall(rest[:close])),
        attributes=rest[close + 1 :],
        is_root=is_root,
    )


def _closing(text: str, start: int) -> int:
    """The place of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"HLO text with an open bracket: {text[start : start + 80]}")

"""What the host of a GPU launches: XLA's list of thunks, as its dump has it."""

from __future__ import annotations

import dataclasses
import re

_THUNK = re.compile(r"^( *)\d+: (k\w+)")
_LABEL = re.compile(r"^ *(condition|body|branch\w*|true\w*|false\w*)[^:]*:")


@dataclasses.dataclass
class Thunk:
    """A launch, a CUDA graph (`kCommandBuffer`), or a loop with its own launches."""

    kind: str
    role: str
    indent: int
    children: list[Thunk] = dataclasses.field(default_factory=list)

    @property
    def num_leaves(self) -> int:
        """Launches in it."""
        return sum(child.num_leaves for child in self.children) or 1


def parse(text: str) -> list[Thunk]:
    """The thunks of `*thunk_sequence_after_thunk_passes.txt`."""
    root = Thunk("root", "", -1)
    stack, role = [root], ""
    for line in text.splitlines():
        match = _THUNK.match(line)
        if not match:
            label = _LABEL.match(line)
            role = label[1] if label else role
            continue
        indent = len(match[1])
        while stack[-1].indent >= indent:
            stack.pop()
        has_roles = stack[-1].kind in ("kWhile", "kConditional")
        thunk = Thunk(match[2], role if has_roles else "", indent)
        stack[-1].children.append(thunk)
        stack.append(thunk)
    return root.children


def host_launches(thunks: list[Thunk], *, has_loop: bool) -> tuple[int, int]:
    """Launches of the host for one step, and the CUDA graphs among them.

    Args:
      thunks: of the training program.
      has_loop: true if the program is a loop over steps.

    Returns:
      Two numbers. A loop that is a part of a CUDA graph has (0, 0): the host launches nothing for
      a single step.
    """
    scope = thunks
    if has_loop:
        loops = [thunk for thunk in thunks if thunk.kind == "kWhile"]
        if not loops:
            return 0, 0
        steps = max(loops, key=lambda loop: loop.num_leaves)
        scope = [child for child in steps.children if child.role == "body"]
    return len(scope), sum(thunk.kind == "kCommandBuffer" for thunk in scope)

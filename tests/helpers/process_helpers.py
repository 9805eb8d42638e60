"""Lines that a process printed, without those of libraries."""

from __future__ import annotations

# The CUDA plugin of JAX prints these where no driver is, before anyone can set a level.
_OF_PLUGIN = ("before absl::InitializeLog() is called", "Could not find cuda drivers")


def own_lines(text: str) -> list[str]:
    """The lines of `text` that the CUDA plugin did not print."""
    return [line for line in text.splitlines() if not any(part in line for part in _OF_PLUGIN)]

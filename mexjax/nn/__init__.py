"""Linen blocks that more than one paper uses."""

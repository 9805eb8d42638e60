"""Weights from and to PyTorch, one file per source of weights."""

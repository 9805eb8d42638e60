"""What XLA:GPU makes of a program, read without a GPU.

Modules are imported one by one. Nothing here runs a program: counts are of the compiled text, and
times are bounds.
"""

__all__ = ["bounds", "compiling", "hlo", "kernels", "targets", "thunks"]

"""From the folder of a run to numbers, tables and figures, without JAX and without a model."""

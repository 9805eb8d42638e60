"""Operations without parameters: pure functions of arrays."""

__all__ = [
    "activations",
    "conv",
    "flow",
    "flow_frames",
    "gradients",
    "magnify",
    "mesh",
    "products",
    "rank_pooling",
    "retention",
    "retention_fused",
    "retention_tables",
    "selective_scan",
]

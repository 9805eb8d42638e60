"""Linen layers that several papers use, and published networks under their own names."""

__all__ = [
    "batch_norm",
    "clip",
    "convnext",
    "layer_norm",
    "layers",
    "magnet",
    "mobilefacenet",
    "mode",
    "next_vit",
    "pooling",
    "resnet",
    "rmt",
    "segnet",
    "swin",
    "vit",
    "vmamba",
]

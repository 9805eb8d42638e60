"""Micro-AU CLIP: action units by contrast of image and text."""

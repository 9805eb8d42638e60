"""TSFmicro: onset frame and motion to the apex, fused."""

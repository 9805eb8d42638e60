"""Who is held out, which label is right, and how predictions are scored: no pixels, no JAX."""

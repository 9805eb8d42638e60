"""GAMDSS: rise and fall of an expression through one shared network."""

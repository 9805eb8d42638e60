"""The spatio-temporal unit that TSFmicro and GAMDSS share: its options, network and weights."""

__all__ = ["options", "place", "unit", "weights"]

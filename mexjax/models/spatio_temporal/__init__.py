"""The unit that TSFmicro and GAMDSS share."""

"""From frames on disk, or from nothing, to arrays on the device."""

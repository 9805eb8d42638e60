"""What XLA:CPU needs to be fast and small; nothing here changes a number."""

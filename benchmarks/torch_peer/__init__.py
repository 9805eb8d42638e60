"""The same networks in PyTorch, written as one would write them there, to measure against."""

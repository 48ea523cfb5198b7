"""Activations: one input, one output, element by element."""

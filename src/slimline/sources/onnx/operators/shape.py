"""Shapes: reshape, transpose, slice, join, pad."""

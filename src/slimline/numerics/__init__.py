"""Tensors in, tensors out: formats and affine quantisation."""

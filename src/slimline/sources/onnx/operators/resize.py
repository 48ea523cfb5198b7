"""Resize, grid sampling and what samples between pixels."""

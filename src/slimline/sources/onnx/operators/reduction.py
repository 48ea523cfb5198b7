"""Reductions over axes, cumulative and arg forms."""

"""Fourier transforms and text features."""

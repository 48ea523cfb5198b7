"""Weights become zero where they are: the network keeps its shapes."""

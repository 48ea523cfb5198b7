"""Arithmetic, comparison, logic and types, element by element."""

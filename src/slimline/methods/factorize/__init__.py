"""Factorisation: one layer becomes two or more smaller ones whose composition is close to it."""

"""Gathering, scattering, sorting and searching."""

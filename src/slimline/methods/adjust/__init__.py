"""Correcting the answers of a compressed network, at no cost when it runs."""

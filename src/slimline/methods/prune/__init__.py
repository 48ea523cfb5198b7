"""Removing channels, blocks and words: a file for every method, every importance, and what they share."""

"""Sharing: many weights, one stored value."""

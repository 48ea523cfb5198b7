"""Removing channels: `channels.py` is the method, every other file one importance from one paper."""

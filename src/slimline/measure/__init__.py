"""Latency, score, memory and the machine: every number that slimline reports comes from this room."""

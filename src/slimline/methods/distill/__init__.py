"""Learning from the original network."""

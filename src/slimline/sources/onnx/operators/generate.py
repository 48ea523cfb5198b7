"""Values from shapes: constants, ranges, random numbers, windows."""

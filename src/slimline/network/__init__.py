"""The traced graph: tracing, files, surgery, axis groups, cost and invariants."""

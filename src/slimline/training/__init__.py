"""The recovery loop: a damaged network learns from the original."""

"""Tests of where networks come from."""

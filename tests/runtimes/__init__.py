"""Tests of `slimline.runtimes`."""

"""What every test gets: the same random numbers, whatever ran before it."""

import random
import sys

import pytest


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Seed the global generators; torch's only where the test uses torch, since importing it takes seconds."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)

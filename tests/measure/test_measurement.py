"""A measurement keeps what it was given and cannot be changed afterwards."""

from dataclasses import FrozenInstanceError

import pytest

from slimline.measure.measurement import Measurement


def made() -> Measurement:
    return Measurement(0.5, "ms", "median of 5 launches", 5, 0.4, 0.6, {"cpu": "any"})


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        made().value = 0.1  # type: ignore[misc]


def test_equal_measurements_are_equal_and_hash_alike() -> None:
    assert made() == made() and hash(made()) == hash(made())

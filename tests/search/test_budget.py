"""Limits are read as people write them; a budget that cannot be kept is refused with one sentence."""

import math
from typing import Any

import pytest

from slimline.errors import SlimlineError
from slimline.search.budget import BYTES, MILLISECONDS, SECONDS, Budget, parse_drop, parse_quantity


@pytest.mark.parametrize(
    ("text", "share"),
    [("1%", 0.01), ("0.01", 0.01), (" 2.5 % ", 0.025), ("0", 0.0), ("0%", 0.0), (".5%", 0.005), ("-1%", -0.01)],
)
def test_drops(text: str, share: float) -> None:
    assert parse_drop(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", ".", "-.", "1..2", "1,5%", "one", "1 % 2", "nan", "inf", "1e-2", "0x1"])
def test_what_is_no_drop_is_one_sentence(text: str) -> None:
    with pytest.raises(SlimlineError, match="--max-drop .* is not a share: write 1% or 0.01"):
        parse_drop(text)


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("90s", SECONDS, 90), ("10m", SECONDS, 600), ("1.5h", SECONDS, 5400), (" 2 m ", SECONDS, 120),
        ("2ms", MILLISECONDS, 2), ("800us", MILLISECONDS, 0.8), ("0.1s", MILLISECONDS, 100),
        ("1MB", BYTES, 10**6), ("1.5KB", BYTES, 1500), ("7B", BYTES, 7), ("-1MB", BYTES, -(10**6)),
    ],
)  # fmt: skip
def test_quantities(text: str, units: dict[str, float], value: float) -> None:
    assert parse_quantity(text, units, "--x", "1s") == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "10", "m", "10 M", "1e3s", "ten m", "1.2.3s", "10m 5s", "9" * 400 + "s", "9" * 308 + "h", "nan s"]
)
def test_what_is_no_quantity_is_one_sentence(text: str) -> None:
    with pytest.raises(SlimlineError, match="--time .* is not understood: write a number with s, m, h, such as 10m"):
        parse_quantity(text, SECONDS, "--time", "10m")


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"max_drop": -0.01}, r"max drop -0.01 is not in \[0, 1\)"),
        ({"max_drop": 1.0}, "max drop 1 is not in .*1% is written 0.01"),
        ({"max_drop": math.nan}, "max drop nan"),
        ({"minimize": "energy"}, "cannot minimise 'energy': choose latency or size"),
        ({"max_latency_ms": 0.0}, "max latency has to be above zero, not 0"),
        ({"max_latency_ms": math.nan}, "max latency has to be above zero, not nan"),
        ({"max_size_bytes": -5}, "max size has to be above zero, not -5"),
        ({"time_s": 0.0}, "time has to be above zero"),
        ({"time_s": math.inf}, "time has to be above zero and finite"),
        ({"min_speedup": 0.9}, "a minimum speed-up of 0.9 is not a number from 1 on"),
        ({"min_speedup": math.nan}, "a minimum speed-up of nan"),
        ({"min_speedup": math.inf}, "a minimum speed-up of inf"),
    ],
)
def test_a_budget_that_contradicts_itself_is_one_sentence(limits: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        Budget(**limits)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    budget = Budget(max_drop=0.0, min_speedup=1.0, max_latency_ms=1e-3, max_size_bytes=1, time_s=0.1)
    assert Budget(**budget.as_json()) == budget

"""The words of the comparison, against the numbers of the certificate."""

import pytest

from slimline.report.comparison import Interval, Pair, asked, comparison, figures, headline, speed_rows
from tests.report.fixture import certificate, certificate_data

TIMES = "\N{MULTIPLICATION SIGN}"


def test_rows() -> None:
    rows = {row.what: (row.original, row.best, row.change) for row in comparison(certificate())}
    assert rows == {
        "Score (accuracy)": ("91.30%", "91.09%", "0.21 points lost"),
        "Size on disk": ("4.93 MB", "433 kB", f"11.4{TIMES} smaller"),
        "Parameters": ("1.23 M", "249 k", f"4.94{TIMES} smaller"),
        "MACs per sample": ("40.8 M", "8.20 M", f"4.97{TIMES} smaller"),
        "Peak memory of the process": ("not measured", "91.2 MB", ""),
        "Latency, torch": ("1.28 ms", "not measured", ""),
        "Latency, onnxruntime": ("0.573 ms", "not measured", ""),
        "Latency, openvino": ("0.552 ms", "0.112 ms", ""),
    }


def test_a_runtime_that_only_the_best_ran_in_has_its_own_row() -> None:
    data = certificate_data()
    data["best"]["runtime"] = "openvino[bf16]"
    last = comparison(certificate(data))[-1]
    assert (last.what, last.original, last.best) == ("Latency, openvino[bf16]", "not measured", "0.112 ms")


def test_a_gain_is_called_a_gain_and_growth_is_called_larger() -> None:
    data = certificate_data()
    data["best"] |= {"drop": -0.004, "size_ratio": 0.5}
    rows = {row.what: row.change for row in comparison(certificate(data))}
    assert rows["Score (accuracy)"] == "0.40 points gained"
    assert rows["Size on disk"] == f"2.00{TIMES} larger"


def test_speeds_and_their_intervals() -> None:
    rows = [(row.original, row.best) for row in speed_rows(certificate())]
    # 0.5519 / 0.1120 = 4.928, 1.281 / 0.1120 = 11.44, 0.2562 / 0.1120 = 2.288
    assert rows == [
        (f"4.93{TIMES}", f"4.71{TIMES} to 5.16{TIMES}"),
        (f"11.4{TIMES}", f"10.9{TIMES} to 12.0{TIMES}"),
        (f"2.29{TIMES}", f"2.20{TIMES} to 2.38{TIMES}"),
    ]


def test_without_an_int8_trial_that_ratio_is_not_measured() -> None:
    data = certificate_data()
    data["best"] |= {f"speedup_vs_int8_only{end}": None for end in ("", "_low", "_high")}
    row = speed_rows(certificate(data))[2]
    assert (row.original, row.best) == ("not measured", "")


def test_figures_have_a_unit_an_n_and_a_reference() -> None:
    speed, size, lost, latency = figures(certificate())
    assert (speed.value, size.value, lost.value, latency.value) == ("4.93", "11.4", "0.21", "0.112")
    assert (speed.unit, size.unit, lost.unit, latency.unit) == (TIMES, TIMES, "points", "ms")
    assert "openvino" in speed.claim
    assert lost.claim == "at most 0.74 points with 95% confidence; 1.00 point allowed"
    for figure, n in (
        (speed, "n = 7 launches"),
        (size, "n = 1 file"),
        (lost, "n = 3,500"),
        (latency, "n = 7 launches"),
    ):
        assert any(n in fact for fact in figure.facts), figure.title
    assert "1.28 ms in torch, 0.573 ms in onnxruntime, 0.552 ms in openvino" in latency.facts[0]


def test_drawn_lengths_are_true_to_scale() -> None:
    _, size, lost, latency = figures(certificate())
    assert isinstance(size.drawn, Pair) and isinstance(latency.drawn, Pair) and isinstance(lost.drawn, Interval)
    assert size.drawn.after / size.drawn.before == pytest.approx(432_640 / 4_931_204, abs=1e-3)
    assert latency.drawn.after / latency.drawn.before == pytest.approx(0.1120 / 0.5519, abs=1e-3)
    (zero, _, _), (limit, _, _) = lost.drawn.marks
    scale = (limit - zero) / 0.01
    for position, value in ((lost.drawn.low, -0.0032), (lost.drawn.value, 0.0021), (lost.drawn.high, 0.0074)):
        assert position == pytest.approx(zero + scale * value, abs=0.05)


def test_nothing_lost_and_nothing_allowed_can_be_drawn() -> None:
    data = certificate_data()
    data["best"] |= {"drop": 0.0, "drop_lower": 0.0, "drop_upper": 0.0}
    data["budget"]["max_drop"] = 0.0
    drawn = figures(certificate(data))[2].drawn
    assert isinstance(drawn, Interval)
    assert drawn.value == drawn.marks[0][0] == 50.0


def test_a_slower_and_larger_best_is_not_praised() -> None:
    data = certificate_data()
    data["best"] |= {"speedup_vs_best_original": 0.8, "size_ratio": 0.5}
    speed, size, *_ = figures(certificate(data))
    assert speed.claim.startswith("the speed of the original") and speed.value == "0.800"
    assert size.claim == "larger on disk than the original" and size.value == "2.00"


def test_asked_names_every_limit() -> None:
    data = certificate_data()
    data["budget"] |= {"minimize": "size", "max_latency_ms": 2.0, "max_size_bytes": 1_000_000, "min_speedup": 3.0}
    assert asked(certificate(data)) == (
        "the smallest size that loses at most 1.00 point of accuracy, needs at most 2.00 ms, takes at most 1.00 MB "
        f"and is at least 3.00{TIMES} as fast, within 10 min"
    )


@pytest.mark.parametrize(
    ("score", "called"),
    [
        ("agreement", "agreement with the original"),
        ("cosine", "cosine similarity to the original"),
        ("relative", "1 \N{MINUS SIGN} relative error to the original"),
    ],
)
def test_a_score_without_labels_is_never_called_accuracy(score: str, called: str) -> None:
    data = certificate_data()
    data["task"] = {"score": score, "labels": False, "what": "in words"}
    row = comparison(certificate(data))[0]
    assert (row.what, row.best, row.change) == (f"Score ({called})", "91.09%", "0.21 points lost")
    assert f"loses at most 1.00 point of {called}, within" in asked(certificate(data))


def test_the_headline_does_not_repeat_the_badge() -> None:
    assert headline(certificate()).startswith("4.9 times faster")
    data = certificate_data() | {"verdict": "CAN'T TELL", "sentence": "CAN'T TELL: more samples are needed."}
    assert headline(certificate(data)) == "More samples are needed."

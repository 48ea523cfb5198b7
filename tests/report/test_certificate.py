"""The certificate: read back what was written, refuse everything else with one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from slimline.errors import SlimlineError
from slimline.report.certificate import Certificate, TrainingCurve, replace_file
from tests.report.fixture import certificate, certificate_data, training_data


def test_written_and_read_back_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    certificate().write(path)
    assert Certificate.read(path) == certificate()
    assert json.loads(path.read_text()) == certificate_data() | {"discarded": certificate_data()["discarded"]}
    assert [p.name for p in tmp_path.iterdir()] == ["certificate.json"]


def test_the_search_may_hand_over_a_plain_dict() -> None:
    assert Certificate.model_validate(certificate_data()) == certificate()


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=r"There is no certificate at .*certificate.json"):
        Certificate.read(tmp_path / "certificate.json")


def test_a_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match="cannot be read"):
        Certificate.read(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"verdict": "PASS"}', b"null"])
def test_a_corrupt_file_is_one_sentence(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(text)
    with pytest.raises(SlimlineError, match="not a complete certificate") as caught:
        Certificate.read(path)
    assert "\n" not in str(caught.value)


def test_half_a_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path, text = tmp_path / "certificate.json", json.dumps(certificate_data())
    for length in range(0, len(text) - 1, 997):
        path.write_text(text[:length])
        with pytest.raises(SlimlineError):
            Certificate.read(path)


WRONG: list[tuple[str, Any, str]] = [
    ("verdict", "MAYBE", "verdict"),
    ("seed", "0", "seed"),
    ("seconds", True, "seconds"),
    ("trials", 15.5, "trials"),
    ("surprise", 1, "surprise"),
    ("discarded", [["7", "why"]], "discarded.0.0"),
    ("training", [training_data()[0], training_data()[1] | {"losses": ["0.5"] * 20}], "training.1.losses.0"),
    ("training", [training_data()[0] | {"judged": [0, 100, 200, 300, -1]}], "training.0.judged.4"),
    ("training", [training_data()[0] | {"steps": [10**400] * 20}], "training.0.steps.0"),
]


@pytest.mark.parametrize(("name", "value", "where"), WRONG, ids=[w[2] for w in WRONG])
def test_types_are_strict_and_the_place_is_named(tmp_path: Path, name: str, value: Any, where: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(certificate_data() | {name: value}))
    with pytest.raises(SlimlineError, match=where.replace(".", r"\.")):
        Certificate.read(path)


def test_best_needs_what_the_front_may_lack() -> None:
    data = certificate_data()
    data["front"][1]["drop_upper"] = None
    assert certificate(data).front[1].drop_upper is None
    data["best"]["drop_upper"] = None
    with pytest.raises(ValidationError, match=r"best\.drop_upper"):
        certificate(data)


def test_numbers_are_finite() -> None:
    data = certificate_data()
    data["best"]["speedup_high"] = float("inf")
    with pytest.raises(ValidationError, match="finite"):
        Certificate.model_validate(data)


def test_a_certificate_from_before_training_was_recorded_is_read(tmp_path: Path) -> None:
    data, path = certificate_data(), tmp_path / "certificate.json"
    del data["training"]
    path.write_text(json.dumps(data))
    assert Certificate.read(path).training == []
    assert Certificate.read(path) == certificate(certificate_data() | {"training": []})


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ("losses", "19 losses and 20 steps"),
        ("rates", "19 rates and 20 steps"),
        ("sparsity", "19 sparsity and 20 steps"),
        ("steps", "20 losses and 19 steps"),
        ("scores", "4 scores and 5 judged"),
        ("judged", "5 scores and 4 judged"),
    ],
)
def test_a_curve_of_unequal_columns_is_one_sentence(tmp_path: Path, cut: str, said: str) -> None:
    data, path = certificate_data(), tmp_path / "certificate.json"
    data["training"][1][cut].pop()
    path.write_text(json.dumps(data))
    with pytest.raises(
        SlimlineError, match=rf"not a complete certificate \(.*'t11 after pruning' has {said}"
    ) as caught:
        Certificate.read(path)
    assert str(caught.value).endswith("run the optimisation again with --resume.") and "\n" not in str(caught.value)


def test_a_curve_that_was_never_judged_needs_no_empty_lists() -> None:
    named = ("name", "method", "samples", "device", "precision", "seconds", "planned")
    named += ("steps", "losses", "rates", "sparsity")
    curve = TrainingCurve.model_validate({name: training_data()[0][name] for name in named})
    assert (curve.trial, curve.judged, curve.scores, curve.notes) == (None, [], [], [])


def test_a_machine_may_tell_more() -> None:
    assert certificate().machine.model_extra == {"python": "3.11.9", "instructions": ["avx2", "avx512_vnni"]}


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    replace_file(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("slimline.report.certificate.os.fsync", full)
    with pytest.raises(SlimlineError, match="No space left on device"):
        replace_file(path, "new")
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match="cannot be written"):
        certificate().write(tmp_path / "nowhere" / "certificate.json")

"""A training that ended is found again by what it was made from, and nothing else is."""

from pathlib import Path

import torch

from slimline.training.curve import Curve
from slimline.training.finished import Finished, forget_finished
from tests.network.networks import differences
from tests.toys import toy


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    finished, network = Finished(tmp_path / "a", ["Distill()", "data"]), toy()
    network.history.append("Distill()")
    curves = (("Distill()", Curve(planned=20, steps=[20], losses=[0.1], notes=["one"])),)
    assert finished.read() is None
    assert finished.keep(network, ["all"], {"a": "why"}, curves) == ""
    found = finished.read()
    assert found is not None
    again, told = found
    assert differences(again, network) == [] and again.history == network.history
    assert again.digest() == network.digest()  # or what follows it would not be known again
    assert told == {"changed": ["all"], "skipped": {"a": "why"}, "curves": curves}
    x = {"image": torch.randn(3, 1, 8, 8)}
    assert torch.equal(again.run(x)[0], network.run(x)[0])


def test_something_made_from_something_else_is_not_found(tmp_path: Path) -> None:
    Finished(tmp_path, ["Distill()", "data"]).keep(toy(), [], {}, ())
    assert Finished(tmp_path, ["Distill()", "other data"]).read() is None
    assert Finished(tmp_path, ["Distill()", "data"]).read() is not None


def test_where_nothing_can_be_kept_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Finished(tmp_path / "file" / "a", ["x"]).keep(toy(), [], {}, ()) in ("Not a directory", "File exists")


def test_what_is_forgotten_is_gone_in_every_folder(tmp_path: Path) -> None:
    Finished(tmp_path / "01-Distill", ["x"]).keep(toy(), [], {}, ())
    (tmp_path / "original.slim").write_bytes(b"stays")
    forget_finished(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["original.slim"]

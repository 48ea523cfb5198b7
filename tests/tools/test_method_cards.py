"""The page of methods is made from the methods, and is the one in docs."""

from dataclasses import fields
from pathlib import Path

import pytest

import tools.method_cards
from slimline.methods.method import registry
from tools.method_cards import PAGE, card, main, page

ROW = {
    "method": "PruneChannels, l1", "recipe": ["PruneChannels(keep=0.5)", "Distill()"], "drop_points": 0.123,
    "drop_upper_points": 0.456, "size_ratio": 2.0, "packed_ratio": 1.9, "speedup": 1.5, "low": 1.4, "high": 1.6,
}  # fmt: skip

RESULT = {
    "summary": {"network": "a network", "recovery": "Distill()", "n": 1234, "original_score": 0.9}, "rows": [ROW],
}  # fmt: skip


def test_the_page_in_docs_is_the_one_that_would_be_made() -> None:
    assert main(["--check"]) == 0, "run make docs"


@pytest.mark.parametrize("name", sorted(registry()))
def test_a_card_holds_every_hyperparameter_and_the_papers(name: str) -> None:
    cls = registry()[name]
    text = card(cls, [])
    assert text.startswith(f"### {name}\n") and "Helps:" in text
    for f in fields(cls):
        assert f"| `{f.name}` |" in text and f.metadata["doc"].split("|")[0] in text
    assert (Path(PAGE.parents[1]) / text.split("](../")[1].split(")")[0]).is_file()
    assert name in page(registry(), [])


def test_a_measured_row_stands_on_the_card_of_its_method_alone() -> None:
    text = card(registry()["PruneChannels"], [RESULT])
    assert "| on a network |" in text
    assert "0.12, at most 0.46 | 2.00x smaller | 1.90x smaller | 1.50x (1.40 to 1.60) |" in text
    assert "1.50x" not in card(registry()["PruneBlocks"], [RESULT])
    line = "* a network: 1,234 test samples, 90.00%; a recipe that ends with `Distill()` was recovered."
    assert line in page(registry(), [RESULT])


def test_a_stale_page_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "docs" / "methods.md"
    stale.parent.mkdir()
    stale.write_text("old")
    monkeypatch.setattr(tools.method_cards, "PAGE", stale)
    monkeypatch.setattr(tools.method_cards, "ROOT", tmp_path)
    assert main(["--check"]) == 1 and "docs/methods.md is stale" in capsys.readouterr().err
    assert main([]) == 0 and stale.read_text().startswith("# Methods") and main(["--check"]) == 0

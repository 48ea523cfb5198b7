"""Everything that watches a search has the listener's three methods."""

import io

import pytest

from slimline.report.console import Console
from slimline.search.listener import Listener, Silent


@pytest.mark.parametrize("listener", [Silent(), Console(60.0, io.StringIO())], ids=["silent", "console"])
def test_a_listener_is_told_everything_and_answers_nothing(
    listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [listener.stage("Stage"), listener.note("a note"), listener.step(1, 3, "work")]  # type: ignore[func-returns-value]
    assert answers == [None] * 3
    assert capsys.readouterr() == ("", "")

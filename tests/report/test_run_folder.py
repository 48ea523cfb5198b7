"""The public `optimize` leaves a folder that is complete, and says in one sentence when it cannot."""

import sqlite3
from pathlib import Path
from unittest.mock import patch

import pytest

import slimline
from slimline.errors import SlimlineError
from slimline.report import run_folder
from slimline.report.certificate import Certificate
from slimline.search.budget import Budget
from slimline.search.optimize import Settings
from tests.search.stand_ins import pretending
from tests.toys import finished_run, toy, toy_task


def test_the_folder_is_as_the_design_says() -> None:
    folder, _ = finished_run()
    names = {p.name for p in folder.iterdir()}
    assert {"report.html", "certificate.json", "recipe.yaml", "study.sqlite", "best", "front"} <= names
    assert not [name for name in names if name.endswith((".part", ".partial"))]


def test_the_certificate_on_disk_is_the_one_handed_back() -> None:
    folder, result = finished_run()
    assert Certificate.read(folder / "certificate.json") == Certificate.model_validate(result.certificate)


def test_the_report_shows_the_verdict_of_the_certificate() -> None:
    folder, result = finished_run()
    page = (folder / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html") and str(result.verdict) in page


def test_it_is_what_the_package_offers() -> None:
    assert slimline.optimize is run_folder.optimize


def test_out_is_the_folder_when_there_are_no_settings(tmp_path: Path) -> None:
    with pretending():
        result = slimline.optimize(toy(), toy_task(), Budget(max_drop=0.08), time="5s", out=tmp_path / "run")
    assert result.path.parent == tmp_path / "run" / "best"
    assert Certificate.read(tmp_path / "run" / "certificate.json").budget.time_s == 5.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (sqlite3.OperationalError("database or disk is full"), "database or disk is full"),
    ],
)
def test_a_disk_that_fills_up_is_one_sentence(tmp_path: Path, error: Exception, reason: str) -> None:
    settings = Settings(tmp_path / "run")
    with (
        patch.object(run_folder, "search", side_effect=error),
        pytest.raises(
            SlimlineError, match=f"The run in .*run broke off .{reason}.: make room and continue it with --resume"
        ),
    ):
        run_folder.optimize(toy(), toy_task(), settings=settings)

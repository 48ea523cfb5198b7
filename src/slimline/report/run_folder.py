"""The public `optimize`: search, then write certificate.json and report.html into the run's folder."""

import sqlite3
from pathlib import Path

from torch import nn

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.report.certificate import Certificate
from slimline.report.html import write_report
from slimline.search.budget import Budget
from slimline.search.evidence import Result
from slimline.search.listener import Listener
from slimline.search.optimize import Settings
from slimline.search.optimize import optimize as search
from slimline.task import Task


def optimize(
    model: nn.Module | Network | Path | str,
    task: Task | None = None,
    budget: Budget | None = None,
    time: str | None = None,
    out: Path | str = "runs/optimize",
    settings: Settings | None = None,
    listener: Listener | None = None,
) -> Result:
    """Find the fastest or smallest version of a network inside a budget, and write the evidence.

    Args:
        model: a torch or Keras model, a network, or the path of a model file or folder or a `JOB.py`.
        task: the data and the score; a `JOB.py` brings its own.
        time: length of the search, such as ``10m``; overrides the budget's.
        out: folder for the results; that of ``settings`` when settings are given.

    Raises:
        SlimlineError: the input cannot be used, or the disk is full; one sentence.
    """
    folder = settings.out if settings is not None else Path(out)
    try:
        result = search(model, task, budget, time, out, settings, listener)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SlimlineError(
            f"The run in {folder} broke off ({reason}): make room and continue it with --resume, "
            "or choose another --out."
        ) from error
    certificate = Certificate.model_validate(result.certificate)
    certificate.write(folder / "certificate.json")
    write_report(certificate, folder / "report.html")
    return result

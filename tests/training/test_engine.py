"""Without a launcher there is one process; what a tracker lacks is said at once. Several: see test_processes.py."""

from pathlib import Path
from typing import Any

import pytest
import torch

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.training.curve import Curve
from slimline.training.engine import Engine, check_tracker, processes
from slimline.training.plan import Plan
from slimline.training.recover import recover
from slimline.training.workspace import Workspace
from tests.training.small import Made, curves, differences, distance, files_of_at_most, layers, squared
from tests.training.test_watch import read_back


def test_the_launcher_tells_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert processes() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes() == (2, 4)


def test_alone_it_is_the_main_process_and_says_what_it_knows() -> None:
    engine = Engine()
    assert (engine.process, engine.processes, engine.main) == (0, 1, True)
    assert engine.mean(0.1) == 0.1 and engine.from_main(0.3) == 0.3
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), 0.5)
    wrapped, stepper = engine.prepare(layer, optimizer)
    before = layer.bias.detach().clone()
    with engine.without_sync(wrapped, wanted=True):
        wrapped(torch.zeros(1, 2)).sum().backward()
    stepper.step()
    torch.testing.assert_close(layer.bias.detach(), before - 0.5)


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    engine = Engine("", tmp_path)
    engine.watch("training", {"steps": 3})
    engine.log({"loss": 1.0}, 1)
    engine.histograms({"weights/a": torch.ones(3)}, 1)
    engine.end()
    assert list(tmp_path.iterdir()) == []


def absent() -> str:
    """A tracker that Accelerate knows and that is not installed here."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known, here = {str(name) for name in LOGGER_TYPE_TO_CLASS}, {str(name) for name in get_available_trackers()}
    return sorted(known - here - {"tensorboard"})[0]


def test_a_tracker_that_is_not_there_is_one_sentence_before_anything_is_trained(tmp_path: Path) -> None:
    cases = {
        ("tensorbord", tmp_path): r"The tracker 'tensorbord' is unknown: use .*tensorboard, ",
        ("tensorboard", None): "The tracker tensorboard needs a folder to write to: give the run a folder",
        (absent(), tmp_path): f"The tracker {absent()} is not installed: run pip install",
    }
    for (tracker, folder), told in cases.items():
        with pytest.raises(SlimlineError, match=told) as caught:
            check_tracker(tracker, folder)
        assert "\n" not in str(caught.value)
        with pytest.raises(SlimlineError, match=told):
            recover(layers(), Made(curves), squared, Plan(3, 0.1), workspace=Workspace(folder, tracker=tracker))
    check_tracker("", None)
    assert list(tmp_path.iterdir()) == []


# --- trackers that fail -----------------------------------------------------------------------------------------------

PLAN = Plan(50, 0.02, judge_every=10)


def tracked(workspace: Workspace) -> tuple[Network, Curve]:
    return recover(layers(), Made(curves), squared, PLAN, lambda n: -distance(n, layers()), workspace=workspace)


def check_unharmed(noted: list[str], told: str, curve: Curve, trained: Network) -> None:
    """One note, and a training that is the same as without a tracker."""
    expected, untracked = tracked(Workspace())
    (note,) = curve.notes
    assert noted == [note] and note.startswith(f"The tracker tensorboard failed ({told}") and "\n" not in note
    assert note.endswith("): training goes on without it.")
    assert differences(trained, expected) == []
    assert (curve.losses, curve.scores) == (untracked.losses, untracked.scores) and len(curve.losses) == 3


def test_a_folder_that_cannot_be_made_ends_the_tracking_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    noted: list[str] = []
    workspace = Workspace(tmp_path / "file" / "below", 3600.0, "tensorboard", note=noted.append)
    trained, curve = tracked(workspace)
    check_unharmed(noted, "", curve, trained)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread of the event file
@pytest.mark.parametrize("size", [0, 2000], ids=["from the start", "later"])
def test_a_file_that_cannot_grow_ends_the_tracking_and_nothing_else(size: int, tmp_path: Path) -> None:
    noted: list[str] = []
    with files_of_at_most(size):
        trained, curve = tracked(Workspace(tmp_path, 3600.0, "tensorboard", note=noted.append))
    check_unharmed(noted, "", curve, trained)


class Odd(Exception):
    """Nobody could know of this one."""


@pytest.mark.parametrize("moment", ["start", "store_init_configuration", "log", "add_histogram", "finish"])
def test_whatever_a_tracker_raises_at_any_moment_is_noted_once(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is not asked again, not even to finish."""
    from accelerate.tracking import TensorBoardTracker
    from torch.utils.tensorboard import SummaryWriter

    calls: list[str] = []

    def failing(*_: Any, **__: Any) -> None:
        calls.append(moment)
        raise Odd("no service\ntoday")

    def closed(_: Any) -> None:
        calls.append("finish")

    monkeypatch.setattr(TensorBoardTracker, "finish", closed)
    monkeypatch.setattr(SummaryWriter if moment == "add_histogram" else TensorBoardTracker, moment, failing)
    noted: list[str] = []
    trained, curve = tracked(Workspace(tmp_path, 3600.0, "tensorboard", note=noted.append))
    assert calls == [moment]
    check_unharmed(noted, "Odd: no service)", curve, trained)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's and tensorflow's own code
def test_numbers_that_are_none_are_not_drawn(tmp_path: Path) -> None:
    """The tracker would raise, for a histogram without a single number."""
    noted: list[str] = []
    engine = Engine("tensorboard", tmp_path, note=noted.append)
    engine.watch("training", {"steps": 3})
    spoiled = torch.tensor([1.0, torch.inf])
    engine.histograms({"no": torch.full((3,), torch.nan), "some": spoiled, "empty": spoiled[:0], "all": spoiled[:1]}, 1)
    engine.end()
    assert noted == []
    assert read_back(tmp_path).Tags()["histograms"] == ["all"]

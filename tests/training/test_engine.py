"""Without a launcher there is one process; what a tracker lacks is said at once. Several: see test_processes.py."""

from pathlib import Path

import pytest
import torch

from slimline.errors import SlimlineError
from slimline.training.engine import Engine, check_tracker, processes
from slimline.training.plan import Plan
from slimline.training.recover import recover
from slimline.training.workspace import Workspace
from tests.training.small import Made, curves, layers, squared


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

"""A workspace with a folder gives every step one of its own; without one there is none."""

from pathlib import Path

from slimline.training.hook import Hook
from slimline.training.workspace import Workspace


def test_rooms_inside_are_below_the_folder_and_the_same_else(tmp_path: Path) -> None:
    told: list[str] = []
    workspace = Workspace(tmp_path, 5.0, "tensorboard", note=told.append, hooks=(hook := Hook(),))
    inside = workspace.inside("01-Distill").inside("x")
    assert inside.folder == tmp_path / "01-Distill" / "x" and workspace.folder == tmp_path
    assert (inside.checkpoint_s, inside.tracker, inside.hooks) == (5.0, "tensorboard", (hook,))
    inside.note("a line")
    assert told == ["a line"] and list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_kept_and_nobody_is_told() -> None:
    workspace = Workspace()
    assert workspace.inside("x") == workspace and workspace.folder is None and workspace.tracker == ""
    workspace.step(1, 2)
    workspace.note("a line")

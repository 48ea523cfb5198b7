"""Where a method works: who is told, and where what must survive a crash is kept."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from slimline.training.hook import Hook

Progress = Callable[[int, int], None]
"""Told how many of how many steps are done."""


def _silent(*_: object) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Workspace:
    """What a method is given beside the network and the task; methods that do not train need none of it."""

    folder: Path | None = None
    """Checkpoints and event files go here; without a folder there are none."""
    checkpoint_s: float = 30.0
    """Seconds of training between checkpoints."""
    tracker: str = ""
    """A tracker that Accelerate knows by this name, such as ``tensorboard``; none when empty."""
    step: Progress = _silent
    note: Callable[[str], None] = _silent
    """Told one line worth keeping."""
    hooks: tuple[Hook, ...] = ()
    """What is done at every step besides, where the method trains."""

    def inside(self, name: str) -> "Workspace":
        """The same, in a folder of its own below this one."""
        return self if self.folder is None else replace(self, folder=self.folder / name)

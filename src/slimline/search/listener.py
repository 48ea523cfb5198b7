"""Who watches a search: the command line, a test, or nobody."""

from typing import Protocol


class Listener(Protocol):
    """Told what the search is doing."""

    def stage(self, title: str) -> None:
        """A new stage begins."""

    def note(self, text: str) -> None:
        """One line worth keeping."""

    def step(self, done: int, total: int, label: str) -> None:
        """Progress inside a stage."""


class Silent:
    """A listener that does nothing."""

    def stage(self, title: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def step(self, done: int, total: int, label: str) -> None:
        """Nothing."""

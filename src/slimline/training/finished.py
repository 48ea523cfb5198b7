"""Trainings that ended, kept until what they are part of has ended too: hours of work outlive a later failure."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from slimline import __version__
from slimline.network import container
from slimline.network.network import Network
from slimline.training.checkpoint import FILE
from slimline.training.curve import Curve
from slimline.training.engine import Engine, processes

STEM = "finished-"
TOLD = ".json"


@dataclass(frozen=True)
class Finished:
    """What a training gave, in a file whose name says what it was made from.

    Args:
        folder: of the method's workspace.
        made_from: everything that decides the result.
    """

    folder: Path
    made_from: Sequence[str]

    @property
    def path(self) -> Path:
        """The network's file; beside it lies what is told about it."""
        name = sha256(json.dumps([*self.made_from, __version__]).encode()).hexdigest()[:16]
        return self.folder / f"{STEM}{name}.slim"

    def read(self) -> tuple[Network, dict[str, Any]] | None:
        """The network and what was told, where the training ended before. Every process is given the same answer.

        Raises:
            SlimlineError: the file is damaged.
        """
        path = self.path
        there = path.exists()
        if processes()[1] > 1:  # the main process decides: another one may look while the file is being written
            there = bool(Engine().from_main(float(there)))
        if not there:
            return None
        told = json.loads(path.with_suffix(TOLD).read_text(encoding="utf-8"))
        told["curves"] = tuple((method, Curve(**curve)) for method, curve in told["curves"])
        return container.load(path), told

    def keep(self, network: Network, changed: Sequence[str], skipped: dict[str, str], curves: Any) -> str:
        """Write the files. Returns nothing, or why they cannot be written: that does not end anything."""
        path = self.path
        if processes()[0] != 0:
            return ""
        told = {"changed": list(changed), "skipped": skipped, "curves": [(m, asdict(curve)) for m, curve in curves]}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(TOLD).write_text(json.dumps(told), encoding="utf-8")
            container.save(network, path)  # last, since this file says that there is something to read
        except OSError as error:
            return str(error.strerror or error)
        return ""


def forget_finished(folder: Path) -> None:
    """Remove what was kept in a folder and those below it, checkpoints too; a file that stays does no harm."""
    for path in [*folder.rglob(f"{STEM}*"), *folder.rglob(FILE)]:
        with suppress(OSError):
            path.unlink()

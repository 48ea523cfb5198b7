"""The memory of an optimisation: every finished step and trial, in SQLite, safe against `kill -9`."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slimline.errors import SlimlineError

SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (key TEXT PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL, seconds REAL NOT NULL);
CREATE TABLE IF NOT EXISTS trials (id TEXT PRIMARY KEY, place INTEGER NOT NULL, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass
class Trial:
    """A recipe in a runtime, and what was measured of its artifact. Scores are on the search split."""

    id: str
    stage: str
    runtime: str
    variant: str
    precision: str
    recipe: list[str]
    network: str
    """Path of the `.slim` file, relative to the run's folder."""
    artifact: str
    size_bytes: int
    macs: int
    parameters: int
    score: float | None = None
    drop: float | None = None
    drop_sd: float | None = None
    """Standard deviation over the samples of what each lost."""
    latency_ms: float | None = None
    seconds: float = 0.0
    status: str = "kept"
    why: str = ""
    refused: bool = False
    """The runtime could not load or run the file; ``why`` holds what it said."""
    recipe_yaml: str = field(default="", repr=False)

    @property
    def place(self) -> tuple[str, str]:
        """(runtime, variant)."""
        return self.runtime, self.variant

    @property
    def label(self) -> str:
        """``openvino[bf16]``."""
        return f"{self.runtime}[{self.variant}]" if self.variant else self.runtime


class Study:
    """A SQLite file. A step is stored once under a key made of its name and inputs; asking again replays it."""

    def __init__(self, path: Path, identity: dict[str, Any], resume: bool) -> None:
        """Open a study.

        Raises:
            SlimlineError: a study of something else is there, or of the same and ``resume`` was not asked for.
        """
        self.check(path, identity, resume)
        try:
            self.connection = sqlite3.connect(path, isolation_level=None)
            self.connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + SCHEMA)
        except sqlite3.Error as error:
            raise SlimlineError(f"{path} cannot be used as a study ({error}): choose another --out.") from error
        self._set_fact("identity", identity)
        self.before = float(self._fact("elapsed") or 0.0)
        self.started = time.monotonic()
        self.replayed: list[str] = []

    @staticmethod
    def check(path: Path, identity: dict[str, Any], resume: bool) -> None:
        """Refuse to go on where a study of something else is, before anything in its folder is overwritten.

        Args:
            identity: all of it, or what of it is known already.

        Raises:
            SlimlineError: such a study is there, or one of the same and ``resume`` was not asked for.
        """
        if not path.exists():
            return
        if not resume:
            raise SlimlineError(f"{path.parent} already holds a study: pass --resume to continue it, or another --out.")
        try:
            stored = Study.stored_fact(path, "identity")
        except sqlite3.Error as error:
            raise SlimlineError(f"{path} cannot be used as a study ({error}): choose another --out.") from error
        changed = [] if stored is None else [k for k in identity if stored.get(k) != identity[k]]
        if changed:
            raise SlimlineError(
                f"{path.parent} holds a study of something else (different {', '.join(changed)}): "
                "resume with the same network, data, budget and seed, or choose another --out."
            )

    def elapsed(self) -> float:
        """Seconds of search, those of earlier sessions included."""
        return self.before + time.monotonic() - self.started

    def once(self, name: str, inputs: Any, compute: Callable[[], Any]) -> Any:
        """The JSON value of a step: from the store when it was finished before, else computed and stored."""
        key = hashlib.sha256(json.dumps([name, inputs], sort_keys=True).encode()).hexdigest()
        row = self.connection.execute("SELECT value FROM steps WHERE key = ?", (key,)).fetchone()
        if row is not None:
            self.replayed.append(name)
            return json.loads(row[0])
        started = time.monotonic()
        value = json.dumps(compute())
        seconds = time.monotonic() - started
        self.connection.execute("INSERT INTO steps VALUES (?, ?, ?, ?)", (key, name, value, seconds))
        self._set_fact("elapsed", self.elapsed())
        return json.loads(value)

    def save_trial(self, trial: Trial) -> None:
        """Store a trial or what became of it."""
        count = self.connection.execute("SELECT COUNT(*) FROM trials").fetchone()[0]
        place = self.connection.execute("SELECT place FROM trials WHERE id = ?", (trial.id,)).fetchone()
        self.connection.execute(
            "INSERT OR REPLACE INTO trials VALUES (?, ?, ?)",
            (trial.id, place[0] if place else count, json.dumps(asdict(trial))),
        )

    def trials(self) -> list[Trial]:
        """Every trial, in the order in which they were made."""
        rows = self.connection.execute("SELECT value FROM trials ORDER BY place").fetchall()
        return [Trial(**json.loads(row[0])) for row in rows]

    def close(self) -> None:
        self._set_fact("elapsed", self.elapsed())
        self.connection.close()

    @staticmethod
    def stored_fact(path: Path, name: str) -> Any:
        """One fact of a study on disk, without opening the study for work."""
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set_fact(self, name: str, value: Any) -> None:
        """Store something about the whole study."""
        self._set_fact(name, value)

    def _fact(self, name: str) -> Any:
        row = self.connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _set_fact(self, name: str, value: Any) -> None:
        self.connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

"""What the terminal shows while a study runs, and the result at its end."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich import box
from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from slimline.report import wording
from slimline.report.apply import Applied
from slimline.report.certificate import Certificate
from slimline.report.comparison import asked, comparison, headline, speed_rows

COLOURS = {"PASS": "green", "FAIL": "red", "CAN'T TELL": "yellow"}
LINES_PER_STAGE = 10
"""At most so many lines of progress for one label where nothing can be redrawn."""


class Console:
    """A line per stage, a bar for the step at work, and the time left of the budget.

    Where the output is not a terminal every line is plain and final, so a log file stays readable. Use it as a context
    manager: leaving it, also by Ctrl-C, gives the terminal back. Names are shown as they are, never read as markup.

    Args:
        budget_s: seconds the whole run may take; None where there is no limit.
        file: where to write; the standard output when absent.
        clock: seconds since some fixed moment.
    """

    def __init__(
        self, budget_s: float | None = None, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._terminal = _terminal(file)
        self._budget_s, self._clock = budget_s, clock
        self._start = self._stage_start = clock()
        self._stage = ""
        self._step: tuple[int, int, str] | None = None
        self._step_began = self._start
        """When the work on the present label began, and how much of it was done then."""
        self._done_then = 0
        self._printed: tuple[str, int] | None = None
        self._live: Live | None = None

    def __enter__(self) -> "Console":
        if self._terminal.is_terminal:
            self._live = Live(console=self._terminal, get_renderable=self._render, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_stage(completed=kind is None)
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, title: str) -> None:
        """End the stage at work and begin the next one."""
        self._finish_stage(completed=True)
        self._stage, self._stage_start, self._step, self._printed = title, self._clock(), None, None
        if self._live is None:
            self._line(f"[{self._times()}] {title}")

    def note(self, text: str) -> None:
        """A line that stays."""
        self._line(f"  {text}")

    def step(self, done: int, total: int, label: str) -> None:
        """``done`` of ``total`` pieces of work named ``label``; on a terminal this redraws one line."""
        if self._step is None or self._step[2] != label or done < self._step[0]:
            self._step_began, self._done_then = self._clock(), done
        self._step = (done, total, label)
        if self._live is not None:
            return
        tenth = done * LINES_PER_STAGE // total if total > 0 else 0
        if self._printed != (label, tenth):
            self._printed = (label, tenth)
            self._line(f"  [{self._times()}] {label} {done}/{total}{self._left(done, total)}")

    def _left(self, done: int, total: int) -> str:
        """The time that the step at work will still take at the speed it has had; empty before there is one."""
        spent, made = self._clock() - self._step_began, done - self._done_then
        return f", {_clock_face(spent / made * (total - done))} to go" if made > 0 and done < total else ""

    def _line(self, text: str, style: str = "") -> None:
        # A log file must not be cut at a width it does not have.
        self._terminal.print(Text(text, style=style), soft_wrap=not self._terminal.is_terminal)
        if self._live is not None:
            self._live.refresh()  # printing repeats the redrawn line as it was last

    def _finish_stage(self, completed: bool) -> None:
        if self._stage and self._live is not None:
            sign = "\N{CHECK MARK}" if completed else "\N{MULTIPLICATION SIGN}"
            took = wording.duration(self._clock() - self._stage_start)
            self._line(f"{sign} {self._stage}  {took}", "" if completed else "yellow")
        self._stage = ""

    def _times(self) -> str:
        """Elapsed, and what is left of the budget."""
        elapsed = self._clock() - self._start
        if self._budget_s is None:
            return _clock_face(elapsed)
        return f"{_clock_face(elapsed)}, {_clock_face(max(0.0, self._budget_s - elapsed))} left"

    def _render(self) -> RenderableType:
        """The line that is redrawn: the stage, the bar, the count and the times."""
        if not self._stage:
            return Text(self._times(), style="dim")
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, max_width=32)
        cells: list[RenderableType] = [Text(self._stage, style="bold", overflow="ellipsis")]
        if self._step is not None:
            done, total, label = self._step
            grid.add_column(width=16)
            grid.add_column(no_wrap=True, overflow="ellipsis")
            cells.append(ProgressBar(total=max(total, 1), completed=done, width=16))
            cells.append(Text(f"{done}/{total}{self._left(done, total)} {label}", overflow="ellipsis"))
        grid.add_column(no_wrap=True, min_width=len(self._times()))
        cells.append(Text(self._times(), style="dim"))
        grid.add_row(*cells)
        return grid


def final_table(certificate: Certificate, file: TextIO | None = None) -> None:
    """Print the original against the best, the measured ratios, the verdict's sentence and the limits that were met.

    ``file`` is where to write; the standard output when absent.
    """
    terminal, verdict = _terminal(file), certificate.verdict.value
    table = _table(("", "original", "best", "change"))
    for row in comparison(certificate):
        table.add_row(*(Text(cell) for cell in (row.what, row.original, row.best, row.change)))
    speeds = _table(("speed of the best against", "ratio", "95% interval"))
    for row in speed_rows(certificate):
        speeds.add_row(*(Text(cell) for cell in (row.what, row.original, row.best)))
    badge = Text.assemble((f" {verdict} ", f"bold reverse {COLOURS[verdict]}"), " ", (headline(certificate), "bold"))
    parts: list[RenderableType] = [Text(), table, Text(), speeds, Text(), badge]
    parts += [Text(f"  {limit}") for limit in certificate.limits]
    parts.append(Text(f"Asked for {asked(certificate)}.", style="dim"))
    terminal.print(Group(*parts), soft_wrap=not terminal.is_terminal)


def applied_table(applied: Applied, file: TextIO | None = None) -> None:
    """Print the network before and after a recipe, and where the files are."""
    terminal, (before, after) = _terminal(file), applied.versions
    table = _table(("", before.what, after.what))
    rows = [
        ("size", wording.size(before.size_bytes), wording.size(after.size_bytes)),
        ("MACs per sample", wording.count(before.macs), wording.count(after.macs)),
        ("parameters", wording.count(before.parameters), wording.count(after.parameters)),
    ]
    if before.score is not None and after.score is not None:
        rows.append((f"score, {applied.samples:,} samples", f"{before.score:.4f}", f"{after.score:.4f}"))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    parts: list[RenderableType] = [table]
    parts += [Text(f"left alone: {name}: {reason}") for name, reason in applied.outcome.skipped.items()]
    parts += [Text(str(path)) for path in (applied.path, applied.page) if path is not None]
    terminal.print(Group(*parts), soft_wrap=not terminal.is_terminal)


def _terminal(file: TextIO | None) -> Terminal:
    """Names such as ``openvino[bf16]`` are shown as they are, never read as markup."""
    return Terminal(file=file, highlight=False, markup=False, emoji=False)


def _table(heads: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, head in enumerate(heads):
        table.add_column(
            head, justify="left" if number == 0 else "right", style="bold" if head in ("best", "ratio") else ""
        )
    return table


def _clock_face(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"

"""The terminal: plain lines in a log, a redrawn line on a terminal, names exactly as they are."""

import io
import re

import pytest

from slimline.report.console import Console, final_table
from tests.report.fixture import certificate, certificate_data


class Clock:
    """Time that moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Tty(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_plain_lines_with_elapsed_and_time_left() -> None:
    file, clock = io.StringIO(), Clock()
    with Console(600, file, clock) as console:
        console.stage("originals in every runtime")
        clock.now += 65
        console.stage("int8 in openvino[bf16]")
        console.note("0.41 ms [bold]not markup[/bold] :smile:")
        clock.now += 700
        console.step(1, 4, "openvino[bf16]")
    assert file.getvalue().splitlines() == [
        "[0:00, 10:00 left] originals in every runtime",
        "[1:05, 8:55 left] int8 in openvino[bf16]",
        "  0.41 ms [bold]not markup[/bold] :smile:",
        "  [12:45, 0:00 left] openvino[bf16] 1/4",
    ]


def test_a_log_gets_few_lines_however_many_steps_there_are() -> None:
    file = io.StringIO()
    with Console(file=file, clock=Clock()) as console:
        console.stage("training")
        for done in range(1001):
            console.step(done, 1000, "samples")
    lines = file.getvalue().splitlines()
    assert len(lines) == 1 + 11
    assert lines[-1] == "  [0:00] samples 1000/1000"


def test_a_long_line_of_a_log_is_not_cut() -> None:
    file, text = io.StringIO(), "word " * 60 + "end"
    with Console(file=file) as console:
        console.note(text)
    assert file.getvalue() == f"  {text}\n"


def test_a_terminal_keeps_stages_and_notes_and_gets_its_cursor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    file, clock = Tty(), Clock()
    with Console(600, file, clock) as console:
        console.stage("int8")
        console.step(3, 4, "openvino[bf16]")
        clock.now += 12
        console.note("kept openvino[bf16]")
    shown = file.getvalue()
    assert "kept openvino[bf16]" in shown
    assert "\N{CHECK MARK} int8  12 s" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_the_redrawn_line_shows_stage_count_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    file, clock = Tty(), Clock()
    with Console(600, file, clock) as console:
        console.stage("int8")
        console.step(3, 4, "trials")
        clock.now += 12
        console.note("redraw")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert re.search(r"int8 .*3/4 trials +0:12, 9:48 left", plain)


def test_ctrl_c_gives_the_terminal_back_and_marks_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    file = Tty()
    with pytest.raises(KeyboardInterrupt), Console(None, file, Clock()) as console:
        console.stage("widths")
        raise KeyboardInterrupt
    shown = file.getvalue()
    assert "\N{MULTIPLICATION SIGN} widths" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_the_final_table_holds_the_certificate_s_numbers() -> None:
    data = certificate_data() | {"limits": ["A limit [with brackets]."]}
    file = io.StringIO()
    final_table(certificate(data), file)
    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    times = "\N{MULTIPLICATION SIGN}"
    assert "Score (accuracy) 91.30% 91.09% 0.21 points lost" in lines
    assert f"Size on disk 4.93 MB 433 kB 11.4{times} smaller" in lines
    assert "Latency, openvino 0.552 ms 0.112 ms" in lines
    assert f"the original in its best runtime, openvino 4.93{times} 4.71{times} to 5.16{times}" in lines
    assert next(line for line in lines if line.startswith("PASS")).startswith("PASS 4.9 times faster than the original")
    assert "A limit [with brackets]." in lines


def test_the_final_table_keeps_brackets_in_names() -> None:
    data = certificate_data()
    data["best"]["runtime"] = "openvino[bf16]"
    file = io.StringIO()
    final_table(certificate(data), file)
    assert "Latency, openvino[bf16]" in file.getvalue()

"""The process that converts: what is missing, what fails, what never ends, each in one sentence."""

import sys
import time
from pathlib import Path

import pytest

from slimline.errors import SlimlineError
from slimline.sources import conversion
from slimline.sources.conversion import Conversion, convert, environment, require

HANGS = "import sys, time; print('reading'); sys.stdout.flush(); time.sleep(60)"
SEGFAULTS = "import os, signal, sys; print('half way'); sys.stdout.flush(); os.kill(os.getpid(), signal.SIGSEGV)"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
RAISES = "raise RuntimeError('no such thing')"
SILENT = "pass"
NOT_OURS = "import pathlib, sys; pathlib.Path(sys.argv[1], 'reply.json').write_text('[1]')"
REFUSES = """import pathlib, sys; pathlib.Path(sys.argv[1], 'reply.json').write_text('{"error": "is a stone."}')"""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every extra were installed: the worker is replaced anyway."""
    monkeypatch.setattr(conversion, "EXTRAS", {"keras": ("json",), "tensorflow": ("json",)})


def run(code: str, folder: Path, seconds: float = 30.0) -> dict[str, object]:
    source = folder / "model.keras"
    return convert(Conversion("keras", source, "keras", command=("-c", code), seconds=seconds), folder)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            SEGFAULTS,
            r"to ONNX crashed \(SIGSEGV\), which a damaged file may cause; it last said: half way\.$",
        ),
        (KILLED, r"was killed, most likely since memory ran out\.$"),
        (RAISES, r"ended with exit code 1; it last said: RuntimeError: no such thing\.$"),
        (SILENT, r"ended with exit code 0\.$"),
        (NOT_OURS, r"ended with exit code 0\.$"),
        (REFUSES, r"model\.keras is a stone\.$"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_a_converter_that_fails_is_one_sentence(code: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=sentence) as error:
        run(code, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("installed")
def test_a_converter_that_hangs_is_stopped(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(SlimlineError, match=r"was stopped after 0\.5 s"):
        run(HANGS, tmp_path, seconds=0.5)
    assert time.monotonic() - start < 30  # it would sleep for 60


@pytest.mark.parametrize("extra", ["keras", "tensorflow"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in conversion.EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tf2onnx" else object())
    sentence = rf"x\.pb cannot be read, since tf2onnx is not installed: pip install 'slimline\[{extra}\]'\.$"
    with pytest.raises(SlimlineError, match=sentence):
        require(extra, "x.pb")


def test_the_users_settings_do_not_reach_the_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    fixed = environment()
    assert fixed["KERAS_BACKEND"] == "tensorflow"
    assert fixed["CUDA_VISIBLE_DEVICES"] == "-1"
    assert fixed["PYTHONPATH"].endswith(":/elsewhere")
    assert (Path(fixed["PYTHONPATH"].split(":")[0]) / "slimline").is_dir()

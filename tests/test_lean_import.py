"""Importing slimline is cheap, and works without the packages that are optional."""

import subprocess
import sys
from collections.abc import Iterable

import pytest

RUNTIMES = {"onnx", "onnxruntime", "onnxscript", "openvino"}
OPTIONAL = {"openvino", "keras", "tensorflow", "tf2onnx", "transformers", "kornia"}
"""What only an extra of pyproject.toml installs."""

EVERY_MODULE = """
import importlib, pkgutil, slimline
for module in pkgutil.walk_packages(slimline.__path__, "slimline."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def loaded_by(code: str, without: Iterable[str] = ()) -> set[str]:
    """Top-level modules that ``code`` loads in a fresh interpreter where ``without`` cannot be imported."""
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in sorted(without))
    script = f"import sys\n{blocked}{code}\nprint(*(name for name, module in sys.modules.items() if module))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_slimline_loads_no_runtime() -> None:
    loaded = loaded_by("import slimline")
    assert "slimline" in loaded
    assert not loaded & (RUNTIMES | {"scipy", "jinja2"})


def test_a_runner_process_does_not_pay_for_torch() -> None:
    loaded = loaded_by("import slimline.measure.worker")
    assert "numpy" in loaded
    assert not loaded & (RUNTIMES | {"torch", "scipy", "jinja2", "rich", "typer"})


def test_every_public_name_is_there() -> None:
    loaded_by("import slimline\nfor name in slimline.__all__: getattr(slimline, name)", without=OPTIONAL)


def test_every_module_can_be_imported_without_the_extras() -> None:
    assert not loaded_by(EVERY_MODULE, without=OPTIONAL) & OPTIONAL


def test_the_check_sees_what_is_loaded_and_what_is_missing() -> None:
    assert "yaml" in loaded_by("import yaml")
    assert "yaml" not in loaded_by("import json")
    with pytest.raises(AssertionError, match="import of openvino halted"):
        loaded_by("import openvino", without={"openvino"})

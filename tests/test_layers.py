"""Imports inside slimline point one way, as in section 3 of DESIGN.md, and nothing imports what reads pickles."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
LOW = {"errors", "numerics", "network", "scores", "task"}
MIDDLE = LOW | {"sources", "methods", "training", "runtimes", "measure"}
MAY_IMPORT = {
    "errors": set(),
    "numerics": {"errors"},
    "network": {"errors", "numerics"},
    "scores": {"errors", "numerics", "network"},
    "task": {"errors", "numerics", "network", "scores"},
    "sources": LOW,
    "training": LOW,
    "runtimes": LOW,
    "methods": LOW | {"training"},
    "measure": LOW | {"runtimes"},
    "search": MIDDLE,
    "report": MIDDLE | {"search"},
    "demo": MIDDLE | {"search", "slimline"},
    "slimline": MIDDLE | {"search", "report", "demo"},
    "cli": MIDDLE | {"search", "report", "demo", "slimline"},
    "__main__": {"cli"},
}
READS_PICKLES = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def imports(node: ast.AST) -> Iterator[str]:
    """Dotted names of what ``node`` imports, inside functions too, but not for type checking only."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for statement in node.orelse:
            yield from imports(statement)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        yield from ("." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


def room(module: str) -> str:
    """``slimline.network.trace`` -> ``network``; the package itself, and names that are no room, -> ``slimline``."""
    first = (module.split(".") + [""])[1]
    return first if first in MAY_IMPORT else "slimline"


def technique(module: str) -> str | None:
    """``slimline.methods.prune.l1`` -> ``prune``: the folder whose methods know each other."""
    parts = module.split(".")
    is_folder = parts[1:2] == ["methods"] and len(parts) > 2 and (SRC / "/".join(parts[:3])).is_dir()
    return parts[2] if is_folder else None


def wrong(module: str, source: str) -> list[str]:
    """What ``module`` imports and must not."""
    found = []
    for name in imports(ast.parse(source)):
        if name.startswith(".") or name.split(".")[0] in READS_PICKLES:
            found.append(name)
        elif name.split(".")[0] == "slimline" and name != "slimline.__version__":
            ours, theirs = room(module), room(name)
            sideways = technique(name) not in (None, technique(module)) and ours == "methods"
            if sideways or (theirs != ours and theirs not in MAY_IMPORT[ours]):
                found.append(name)
    return found


def modules() -> dict[str, Path]:
    paths = {".".join(p.relative_to(SRC).with_suffix("").parts): p for p in sorted(SRC.rglob("*.py"))}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def test_imports_point_one_way() -> None:
    found = {name: bad for name, path in modules().items() if (bad := wrong(name, path.read_text()))}
    assert not found, "\n" + "\n".join(f"{name} must not import {', '.join(bad)}" for name, bad in found.items())


def test_every_room_has_a_place() -> None:
    rooms = {name.split(".")[1] for name in modules() if "." in name}
    assert rooms <= set(MAY_IMPORT), f"give {sorted(rooms - set(MAY_IMPORT))} a place in MAY_IMPORT and in DESIGN.md"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("slimline.training.recover", "from slimline.methods.method import Method"),
        ("slimline.runtimes.registry", "def f():\n    import slimline.methods.recipe"),
        ("slimline.measure.latency", "from slimline import methods"),
        ("slimline.numerics.affine", "from slimline.network.network import Network"),
        ("slimline.search.optimize", "from slimline.report.console import Console"),
        ("slimline.search.optimize", "import slimline"),
        ("slimline.report.html", "from slimline import cli"),
        ("slimline", "import slimline.cli"),
        ("slimline.methods.prune.l1", "from slimline.methods.quantize.static import QuantizeStatic"),
        ("slimline.methods.recipe", "from slimline.methods import prune"),
        ("slimline.network.trace", "if TYPE_CHECKING:\n    pass\nelse:\n    from slimline.task import Task"),
        ("slimline.network.trace", "from ..task import Task"),
        ("slimline.scores", "from slimline.task import Task"),
        ("slimline.sources.torch", "from pickle import loads"),
    ],
)
def test_wrong_imports_are_seen(module: str, source: str) -> None:
    assert len(wrong(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "slimline.network.trace",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from slimline.task import Task",
        ),
        ("slimline.methods.prune.l1", "from slimline.methods.prune.channels import PruneChannels"),
        ("slimline.methods.distill.logits", "from slimline.training.recover import recover"),
        ("slimline.report.certificate", "from slimline import __version__"),
        ("slimline.demo.job", "import slimline as sl"),
        ("slimline.__main__", "from slimline.cli import main"),
    ],
)
def test_right_imports_pass(module: str, source: str) -> None:
    assert wrong(module, source) == []

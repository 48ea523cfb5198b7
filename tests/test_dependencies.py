"""What the package imports, what pyproject.toml declares, what CONTRIBUTING.md explains and what CI pins agree."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORT_NAME = {"pyyaml": "yaml", "tensorflow-cpu": "tensorflow", "protobuf": "google"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[ ;]", line)[0].lower() for line in requirements}


def declared() -> tuple[set[str], set[str]]:
    """Packages that slimline runs with (core and runtimes) and those only for developers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: names(lines) for name, lines in project["optional-dependencies"].items()}
    development = extras.pop("dev")
    return names(project["dependencies"]).union(*extras.values()), development


def imported() -> set[str]:
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"slimline", "huggingface_hub"}


def test_declared_is_what_is_imported() -> None:
    runs_with = {IMPORT_NAME.get(name, name) for name in declared()[0]}
    assert imported() - runs_with == set(), "imported and not declared"
    assert runs_with - imported() == set(), "declared and not imported"


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    explained = {name.lower() for name in re.findall(r"^\| `([\w-]+)` \| \S", text, re.MULTILINE)}
    assert explained == set.union(*declared())


def test_every_dependency_is_pinned_for_ci() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in lines)
    assert set.union(*declared()) <= names(lines)
    assert len(names(lines)) == len(lines)

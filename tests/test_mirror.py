"""Every source file has a test file of its own, in the same place of the tree."""

from pathlib import Path

TESTS = Path(__file__).parent
SRC = TESTS.parent / "src" / "slimline"
NEEDS_NONE = {"__init__.py", "__main__.py"}


def test_every_source_file_has_its_test_file() -> None:
    sources = [p.relative_to(SRC) for p in sorted(SRC.rglob("*.py")) if p.name not in NEEDS_NONE]
    assert sources, f"no source file under {SRC}"
    mirrors = [TESTS / p.parent / f"test_{p.name}" for p in sources if p.parts[0] != "demo"]
    missing = [str(p.relative_to(TESTS.parent)) for p in mirrors if not p.is_file()]
    assert not missing, "these test files are missing:\n" + "\n".join(missing)

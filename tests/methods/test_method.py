"""Hyperparameters are checked where they are given; the registry finds every method and hides no broken file."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slimline.methods
from slimline.errors import SlimlineError
from slimline.methods.distill.distill import Distill
from slimline.methods.method import Method, Outcome, check_names, needs_data, param, registry
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.quantize.static import QuantizeStatic
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace
from tests.toys import toy, toy_task


@dataclass(frozen=True)
class Example(Method):
    """A method with one hyperparameter of every kind."""

    share: float = param(0.5, low=0.0, high=1.0, doc="a number")
    count: int = param(3, low=1, high=9, doc="a whole number")
    kind: str = param("a", choices=("a", "b"), doc="one of a few")
    by_name: dict[str, int] = param({"x": 1}, doc="numbers by name")
    names: tuple[str, ...] = param(("p", "q"), doc="names")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        return Outcome(network.copy(), [], {})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"share": 1.01}, r"Example\(share=1.01\) is out of range: it lies in \[0.0, 1.0\]"),
        ({"share": -1}, "out of range"),
        ({"share": float("nan")}, "out of range"),
        ({"share": "half"}, r"Example\(share='half'\) is not a number"),
        ({"share": True}, "is not a number"),
        ({"count": 0}, "out of range"),
        ({"count": 2.5}, "is not a whole number"),
        ({"kind": "c"}, r"Example\(kind='c'\): use one of 'a', 'b'"),
        ({"by_name": 3}, "is not a mapping"),
        ({"names": "p"}, "is not a list"),
    ],
)
def test_a_wrong_hyperparameter_is_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        Example(**values)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("conv1", "cnov2"), r"only names 'cnov2', which is no layer; near names: conv2, conv1"),
        (("zzz",), r"only names 'zzz', which is no layer; near names: conv1, conv2, fc"),
    ],
)
def test_a_name_that_matches_nothing_is_told_with_those_near_it(names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        check_names("only", names, iter(("conv1", "conv2", "fc", "head")), "layer")
    check_names("only", ("conv1", "head"), iter(("conv1", "conv2", "fc", "head")), "layer")


def test_the_ends_of_a_range_belong_to_it() -> None:
    assert [Example(share=x).share for x in (0.0, 1.0, 1)] == [0.0, 1.0, 1]
    assert [Example(count=n).count for n in (1, 9)] == [1, 9]


def test_a_default_is_not_shared_between_two_methods() -> None:
    one, other = Example(), Example()
    one.by_name["y"] = 2
    assert other.by_name == {"x": 1}


def test_a_list_counts_as_the_tuple_it_stands_for() -> None:
    assert Example(names=["p", "q"]) == Example()  # type: ignore[arg-type]
    assert Example(names=["p", "q"]).changed_fields() == {}  # type: ignore[arg-type]


def test_numbers_of_numpy_become_plain_ones() -> None:
    made = Example(share=np.float32(0.25), count=np.int64(4))  # type: ignore[arg-type]
    assert made == Example(share=0.25, count=4) and type(made.share) is float and type(made.count) is int
    with pytest.raises(SlimlineError, match="out of range"):
        Example(share=np.float32(1.5))  # type: ignore[arg-type]


def test_only_what_was_changed_is_written() -> None:
    assert Example().changed_fields() == {} and Example().line() == "Example()"
    assert Example(count=4, kind="b").changed_fields() == {"count": 4, "kind": "b"}
    assert Example(share=0.5, count=4).line() == "Example(count=4)"


@pytest.mark.parametrize("cls", registry().values())
def test_every_hyperparameter_says_what_it_is(cls: type[Method]) -> None:
    assert all(f.metadata["doc"] for f in fields(cls))


def test_the_registry_holds_the_methods() -> None:
    found = registry()
    assert {"FoldBatchNorm", "PruneChannels", "QuantizeStatic", "Distill"} <= set(found)
    assert all(name == cls.__name__ and issubclass(cls, Method) for name, cls in found.items())
    assert "Example" not in found


def test_a_method_file_that_cannot_be_imported_fails_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.setattr(slimline.methods, "__path__", [*slimline.methods.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        registry()
    sys.modules.pop("slimline.methods.broken", None)


@pytest.mark.parametrize("method", [Distill(), QuantizeStatic(), PruneChannels()])
def test_a_method_that_needs_data_says_so(method: Method) -> None:
    with pytest.raises(SlimlineError, match="needs data: pass a Task"):
        method.apply(toy())


def test_training_samples_come_first_and_validation_samples_stand_in() -> None:
    network = toy()
    assert len(needs_data("X", toy_task(train=64, validate=80), network)) == 64
    without = Task(validate={"image": toy_task(validate=80).validate["image"]})
    assert len(needs_data("X", without, network)) == 80

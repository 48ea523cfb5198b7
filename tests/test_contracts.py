"""What holds for every method there is; a new one is tested as soon as it is registered."""

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, registry
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network import container
from slimline.network.network import Network
from slimline.task import Task
from tests.contract_networks import ONLY_REWRITE, network_for
from tests.toys import patterns, toy, toy_task

METHODS = sorted(registry().items())
KNOWN = {"data", "float weights", "int weights"}


def has(method: Method | type[Method], name: str) -> bool:
    return any(f.name == name for f in fields(method))


def made(cls: type[Method]) -> Method:
    """A method with its defaults, shortened where it trains."""
    values: dict[str, Any] = {"epochs": 0.5} if has(cls, "epochs") else {}
    return cls(**values)


def only(condition: Callable[[type[Method]], bool]) -> pytest.MarkDecorator:
    """Every registered method of which something is true, as ``method``."""
    chosen = [cls for _, cls in METHODS if condition(cls)]
    return pytest.mark.parametrize("method", [made(cls) for cls in chosen], ids=[cls.__name__ for cls in chosen])


@pytest.fixture(params=[cls for _, cls in METHODS], ids=[name for name, _ in METHODS])
def method(request: pytest.FixtureRequest) -> Method:
    """Every registered method."""
    return made(request.param)


def apply(method: Method, network: Network) -> Outcome:
    task: Task = toy_task(train=128).with_original(network)
    return method.apply(network, task)


def state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.weights().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        t.dtype is other[n].dtype and torch.equal(t, other[n]) for n, t in one.items()
    )


def answers(network: Network) -> Tensor:
    return network.run({"image": torch.from_numpy(patterns(33, seed=11)[0])})[0]


def test_there_are_methods() -> None:
    assert len(METHODS) >= 4


def test_the_network_given_stays_as_it_was(method: Method) -> None:
    network = network_for(method)
    weights, code, examples = state(network), network.module.code, dict(network.examples)
    grads = {name: t.requires_grad for name, t in network.weights().items()}
    history = list(network.history)
    outcome = apply(method, network)
    assert same(weights, state(network)) and network.module.code == code and network.history == history
    assert examples.keys() == network.examples.keys()
    assert all(torch.equal(examples[n], x) for n, x in network.examples.items())
    assert grads == {name: t.requires_grad for name, t in network.weights().items()}
    assert all(t.grad is None for t in network.weights().values() if t.is_leaf)
    ours = {t.data_ptr() for t in network.weights().values()}
    assert not ours & {t.data_ptr() for t in outcome.network.weights().values()}, "the result shares memory with it"


def test_it_does_something_and_says_what(method: Method) -> None:
    network = network_for(method)
    outcome = apply(method, network)
    assert outcome.changed and all(isinstance(name, str) for name in outcome.changed)
    if type(method).__name__ in ONLY_REWRITE:
        assert outcome.network.module.code != network.module.code
    else:
        assert not same(state(network), state(outcome.network))
    assert all(name and reason for name, reason in outcome.skipped.items())


def test_the_same_seed_gives_the_same_result(method: Method) -> None:
    one, other = (apply(method, network_for(method)).network for _ in range(2))
    assert same(state(one), state(other)) and one.module.code == other.module.code


@only(lambda cls: has(cls, "seed"))
def test_another_seed_gives_another_result(method: Method) -> None:
    values: dict[str, Any] = {"seed": 1}
    one, other = (apply(m, network_for(method)).network for m in (method, replace(method, **values)))
    assert not same(state(one), state(other))


def test_invariants_hold_and_the_mode_is_that_of_inference(method: Method) -> None:
    network = network_for(method)
    result = apply(method, network).network
    result.verify()
    assert not result.is_training()
    assert result.input_names == network.input_names and result.output_names == network.output_names
    assert answers(result).shape == (33, 4) and torch.isfinite(answers(result)).all()


def test_saved_and_loaded_it_is_the_same(method: Method, tmp_path: Path) -> None:
    result = apply(method, network_for(method)).network
    again = container.load(container.save(result, tmp_path / "result.slim"))
    assert same(state(result), state(again)) and torch.equal(answers(result), answers(again))


def test_a_recipe_reads_back_from_yaml(method: Method) -> None:
    assert Recipe.from_yaml(Recipe([method]).to_yaml()) == Recipe([method])
    assert Recipe.from_yaml(Recipe([method]).to_yaml()).methods[0].line() == method.line()


def test_every_hyperparameter_survives_yaml(method: Method) -> None:
    """Each one set to something that is not its default: another choice, or the end of its range."""
    for f in fields(method):
        value = getattr(method, f.name)
        limits = f.metadata
        others = [c for c in limits["choices"] if c != value]
        if isinstance(value, (int, float)):
            ends = [limits["low"], limits["high"], value + 1]
            others = [type(value)(x) for x in ends if abs(x) != float("inf") and x != value]
        elif isinstance(value, tuple):
            others = [value[:1] or ("stem",)]
        elif not limits["choices"]:
            others = [{"stem": 8}]
        changed = replace(method, **{f.name: others[0]})
        assert Recipe.from_yaml(Recipe([changed]).to_yaml()) == Recipe([changed]) != Recipe([method])
        assert f"{f.name}=" in changed.line()


@only(lambda cls: "float weights" in cls.needs)
def test_float_weights_are_asked_for_in_a_sentence(method: Method) -> None:
    """Behind a quantisation in the recipe, and for a network that was quantised before."""
    name = type(method).__name__
    with pytest.raises(SlimlineError, match=f"{name} needs float weights: put it before the quantisation"):
        Recipe([QuantizeStatic(), method]).apply(toy(), toy_task())
    quantised = Recipe([FoldBatchNorm(), QuantizeStatic()]).apply(toy(), toy_task()).network
    with pytest.raises(SlimlineError, match=f"{name} needs float weights, but the network is quantised already"):
        Recipe([method]).apply(quantised, toy_task())


@only(lambda cls: "data" in cls.needs)
def test_data_are_asked_for_in_a_sentence(method: Method) -> None:
    with pytest.raises(SlimlineError, match="needs data: pass a Task"):
        method.apply(toy())


def test_it_states_what_it_needs_and_leaves(method: Method) -> None:
    assert method.needs | method.leaves <= KNOWN
    left = {str(t.dtype) for t in apply(method, network_for(method)).network.weights().values()}
    assert ("torch.int8" in left) == ("int weights" in method.leaves)


def test_it_works_on_what_the_others_leave(method: Method) -> None:
    """After pruning and folding the graph has other shapes and other operators."""
    before = Recipe([PruneChannels(keep=0.5, importance="l1"), FoldBatchNorm()]).apply(network_for(method)).network
    outcome = apply(method, before)
    outcome.network.verify()
    assert torch.isfinite(answers(outcome.network)).all()


def test_its_papers_are_named_in_its_file(method: Method) -> None:
    """Each citation is surname, year, word; surname and year stand in the file's docstring with a place to find it."""
    text = inspect.getdoc(sys.modules[type(method).__module__]) or ""
    assert method.cites and re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.", text)
    for citation in method.cites:
        match = re.fullmatch(r"([a-z]+)(\d{4})[a-z]+", citation)
        assert match is not None, f"{citation} is not surname, year, word"
        surname, year = match.groups()
        assert surname in text.lower() and f"({year})" in text, f"{citation} is not in the docstring"
    assert "Helps:" in text and "Does not:" in text


def test_it_is_final_and_frozen(method: Method) -> None:
    assert type(method).__subclasses__() == [] and type(method).__bases__ == (Method,)
    with pytest.raises(AttributeError):
        method.anything = 1  # type: ignore[attr-defined]

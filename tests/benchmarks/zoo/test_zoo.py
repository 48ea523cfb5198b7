"""Every architecture builds the same network again, whose weights all matter and whose samples stay apart."""

import functools

import pytest
import torch
from torch import Tensor, nn

from zoo import FROM_TRANSFORMERS, Architecture, architectures

BY_NAME = {a.name: a for a in architectures()}
PRETRAINED = {a.name for family in FROM_TRANSFORMERS for a in family.architectures()}
FAST = ("resnet_basic", "vit_eager", "vit_sdpa", "bert_eager", "bert_sdpa", "patchtst")
LARGEST = 1_500_000
EVERY = [
    pytest.param(name, marks=pytest.mark.slow) if name in PRETRAINED and name not in FAST else name for name in BY_NAME
]


@functools.cache
def made(name: str) -> nn.Module:
    if name in PRETRAINED:
        pytest.importorskip("transformers").logging.set_verbosity_error()
    return BY_NAME[name].build()


def outputs(module: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        found = module(**inputs)
    return list(found.values()) if isinstance(found, dict) else [found]


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    every = architectures()
    assert len(every) >= 48 and len({a.name for a in every}) == len(every)
    assert all(a.name.isidentifier() and a.name == a.name.lower() and a.family for a in every)
    assert all(isinstance(a, Architecture) for a in every)


@pytest.mark.parametrize("name", EVERY)
def test_building_it_again_gives_the_same_numbers_and_leaves_the_generator_alone(name: str) -> None:
    one = made(name)
    before = torch.random.get_rng_state()
    again = BY_NAME[name].build()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(part.training for part in again.modules())
    pairs = zip(one.state_dict().items(), again.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    for inputs in (BY_NAME[name].inputs(1), BY_NAME[name].inputs(3)):
        same = BY_NAME[name].inputs(len(next(iter(inputs.values()))))
        assert inputs.keys() == same.keys() and all(torch.equal(inputs[key], same[key]) for key in inputs)


@pytest.mark.parametrize("name", EVERY)
def test_it_is_small_and_no_weight_is_the_same_everywhere(name: str) -> None:
    module = made(name)
    parameters = dict(module.named_parameters())
    assert 0 < sum(p.numel() for p in parameters.values()) < LARGEST
    constant = [key for key, p in parameters.items() if p.numel() > 1 and p.min() == p.max()]
    zero_or_one = [key for key, p in parameters.items() if bool(((p == 0) | (p == 1)).all())]
    assert not constant and not zero_or_one
    statistics = [b for key, b in module.named_buffers() if key.endswith(("running_mean", "running_var"))]
    assert all(b.isfinite().all() and b.min() != b.max() for b in statistics if b.numel() > 1)


@pytest.mark.parametrize("name", EVERY)
def test_the_answer_depends_on_the_sample_and_on_no_other_one(name: str) -> None:
    module, inputs = made(name), BY_NAME[name].inputs(3)
    together = outputs(module, inputs)
    assert together and all(isinstance(x, Tensor) and x.is_floating_point() and len(x) == 3 for x in together)
    alone = [outputs(module, {key: value[i : i + 1] for key, value in inputs.items()}) for i in range(3)]
    for index, whole in enumerate(together):
        parts = torch.cat([sample[index] for sample in alone])
        assert float((parts - whole).norm()) < 1e-4 * float(whole.norm())
        assert float(whole.std(0).norm()) > 1e-3 * float(whole.norm())


@pytest.mark.parametrize("stem", ["vit", "bert"])
def test_both_forms_of_attention_are_there_and_answer_alike(stem: str) -> None:
    from slimline.network.trace import trace

    found = {}
    inputs = BY_NAME[f"{stem}_sdpa"].inputs(3)
    for form in ("sdpa", "eager"):
        network = trace(made(f"{stem}_{form}"), BY_NAME[f"{stem}_{form}"].inputs(2))
        operators = {str(node.target) for node in network.module.graph.nodes}
        assert ("aten.scaled_dot_product_attention.default" in operators) == (form == "sdpa")
        assert {"aten.matmul.default", "aten.softmax.int"} <= operators or form == "sdpa"
        found[form] = network.run(inputs)[0]
    assert float((found["sdpa"] - found["eager"]).norm()) < 1e-5 * float(found["eager"].norm())

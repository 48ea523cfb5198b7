"""Only the same network on the same samples is remembered."""

import torch

from slimline.methods.remembered import Remembered
from slimline.network.surgery import set_weight
from slimline.task import Samples
from tests.toys import patterns, toy


def test_a_copy_shares_and_another_network_or_other_samples_begin_anew() -> None:
    memory = Remembered[int]()
    samples = Samples({"image": patterns(20, seed=0)[0]})
    memory.of(toy(), samples)["a"] = 1
    assert memory.of(toy(), samples) == {"a": 1}
    other = toy()
    set_weight(other, "head.bias", torch.ones(4))
    assert memory.of(other, samples) == {}
    memory.of(toy(), samples)["a"] = 2
    assert memory.of(toy(), samples.take(slice(0, 10))) == {}
    assert memory.of(toy(), samples) == {}

"""A `.slim` file gives back the same network; a damaged one gives a sentence."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.methods.quantize.static import QuantizeStatic
from slimline.network.axes import axis_groups, prune
from slimline.network.container import load, save
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from tests.network.networks import NETWORKS, differences, identical, network_of, random_halves, samples

NAME = "flatten"


def quantised() -> Network:
    task = Task(validate={"x": samples(NAME, 32).numpy()})
    return QuantizeStatic().apply(network_of(NAME), task).network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_network_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    network = network_of(name)
    pruned = prune(network, found := axis_groups(network), random_halves(found, 0))
    pruned.history.append("PruneChannels(keep=0.5)")
    for i, saved in enumerate((network, pruned)):
        path = tmp_path / f"{i}.slim"
        assert save(saved, path) == path
        loaded = load(path)
        assert differences(saved, loaded) == []
        assert identical(loaded.run({"x": samples(name, 3)})[0], saved.run({"x": samples(name, 3)})[0])


def test_a_quantised_network_comes_back_bit_for_bit(tmp_path: Path) -> None:
    network = quantised()
    assert torch.int8 in {t.dtype for t in network.weights().values()}
    assert differences(network, load(save(network, tmp_path / "q.slim"))) == []


def test_arguments_that_json_does_not_know(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.masked_fill(x > 0, -math.inf).clamp(min=-math.inf).to(torch.float64)
            x = torch.full_like(x, math.nan).nan_to_num(2.0) + x.nan_to_num(neginf=3.0)
            return x.contiguous(memory_format=torch.channels_last)

    network = trace(Odd(), [torch.randn(2, 3, 4, 4)])
    loaded = load(save(network, tmp_path / "odd.slim"))
    assert differences(network, loaded) == []
    assert loaded.run({"x": torch.ones(1, 3, 4, 4)})[0].tolist() == torch.full((1, 3, 4, 4), 5.0).tolist()


def test_a_loaded_network_still_trains(tmp_path: Path) -> None:
    loaded = load(save(network_of("plain adds"), tmp_path / "a.slim")).set_training_(True)
    loaded.module(samples("plain adds", 4))[0].square().sum().backward()
    gradients = [p.grad for p in loaded.module.parameters()]
    assert gradients and all(g is not None for g in gradients)


def test_a_network_loads_without_the_class_it_was_made_from(tmp_path: Path) -> None:
    path = save(network_of("plain adds"), tmp_path / "a.slim")
    program = (
        "import json, sys, torch\n"
        "from pathlib import Path\n"
        "from slimline.network.container import load\n"
        "x = torch.linspace(-1, 1, 3 * 3 * 8 * 8).reshape(3, 3, 8, 8)\n"
        "print(json.dumps(load(Path(sys.argv[1])).run({'x': x})[0].tolist()))\n"
        "assert not [name for name in sys.modules if name.startswith('tests')]\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    x = torch.linspace(-1, 1, 3 * 3 * 8 * 8).reshape(3, 3, 8, 8)
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), network_of("plain adds").run({"x": x})[0])


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.slim"
    path.write_text("an earlier file")
    save(network_of(NAME), path)
    assert differences(network_of(NAME), load(path)) == []
    assert [p.name for p in tmp_path.iterdir()] == ["a.slim"]


def test_what_is_no_slim_file(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=r"absent\.slim does not exist"):
        load(tmp_path / "absent.slim")
    with pytest.raises(SlimlineError, match="does not exist or is not a file"):
        load(tmp_path)


@pytest.mark.parametrize("make", [lambda: network_of(NAME), quantised], ids=["float", "quantised"])
def test_a_truncated_file_gives_a_sentence(make: Callable[[], Network], tmp_path: Path) -> None:
    data = save(make(), tmp_path / "a.slim").read_bytes()
    cut = tmp_path / "cut.slim"
    for length in (
        0,
        1,
        3,
        10,
        21,
        22,
        100,
        len(data) // 4,
        len(data) // 2,
        len(data) - 22,
        len(data) - 2,
        len(data) - 1,
    ):
        cut.write_bytes(data[:length])
        with pytest.raises(SlimlineError, match=r"cut\.slim is not a readable \.slim file") as caught:
            load(cut)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "flips"), [(lambda: network_of(NAME), 200), (quantised, 50)], ids=["float", "quantised"]
)
def test_a_flipped_byte_gives_a_sentence_or_the_same_network(
    make: Callable[[], Network], flips: int, tmp_path: Path
) -> None:
    network = make()
    data = save(network, tmp_path / "a.slim").read_bytes()
    generator, refused, flipped = random.Random(0), 0, tmp_path / "flipped.slim"
    directory = data.index(b"PK\x01\x02")  # half of the flips go into the table of contents, a small part of the file
    for number in range(flips):
        place = generator.randrange(directory if number % 2 else 0, len(data))
        changed = bytearray(data)
        changed[place] ^= generator.randrange(1, 256)
        flipped.write_bytes(changed)
        try:
            assert differences(network, load(flipped)) == [], f"byte {place} made another network"
        except SlimlineError:
            refused += 1
    assert refused > flips // 2


def test_what_cannot_be_stored_is_refused_when_saving(tmp_path: Path) -> None:
    network = network_of(NAME)
    first = next(n for n in network.module.graph.nodes if n.op == "call_function")
    first.target = torch.relu
    with pytest.raises(SlimlineError, match="cannot be stored in a .slim file"):
        save(network, tmp_path / "a.slim")
    network = network_of(NAME)
    first = next(n for n in network.module.graph.nodes if n.op == "call_function")
    first.args = (*first.args, {1, 2})
    with pytest.raises(SlimlineError, match="argument of type set"):
        save(network, tmp_path / "a.slim")
    assert not list(tmp_path.iterdir())

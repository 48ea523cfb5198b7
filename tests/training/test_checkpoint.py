"""What is written comes back to the bit, in one file that is always whole."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.training.checkpoint import (
    FILE,
    optimizer_tensors,
    read_checkpoint,
    remove_checkpoint,
    restore_optimizer_,
    write_checkpoint,
)


def test_tensors_and_facts_come_back_as_they_were(tmp_path: Path) -> None:
    x = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "plain": x,
        "the same": x,
        "a part of it": x[1:],
        "an overlapping part": x.flatten()[2:9],
        "transposed": x.T,
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "one number": torch.tensor(7, dtype=torch.int64),
        "nothing": torch.zeros(0, 3),
        "half": torch.tensor([1.5, torch.inf, torch.nan], dtype=torch.bfloat16),
        "a weight": nn.Parameter(torch.randn(2)),
    }
    facts = {"step": 3, "losses": [0.1, 1 / 3, 1e-300], "none": None, "text": "ümlaut \n"}
    assert write_checkpoint(tmp_path / "new" / "folder", tensors, facts) == ""
    stored = read_checkpoint(tmp_path / "new" / "folder")
    assert stored is not None and stored[1] == facts and stored[0].keys() == tensors.keys()
    for name, tensor in stored[0].items():
        assert tensor.dtype is tensors[name].dtype and tensor.shape == tensors[name].shape
        assert torch.equal(tensor.nan_to_num(), tensors[name].detach().nan_to_num())


def test_a_new_checkpoint_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for step in range(3):
        write_checkpoint(tmp_path, {"x": torch.full((4,), float(step))}, {"step": step})
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    stored = read_checkpoint(tmp_path)
    assert stored is not None and stored[1] == {"step": 2} and stored[0]["x"].tolist() == [2.0] * 4


def test_a_crash_while_writing_leaves_the_old_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"x": torch.ones(4)}, {"step": 1})
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / f"{FILE}.partial").write_bytes(whole[:20])  # what a crash leaves behind
    stored = read_checkpoint(tmp_path)
    assert stored is not None and stored[1] == {"step": 1}
    write_checkpoint(tmp_path, {"x": torch.zeros(4)}, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_without_a_checkpoint_there_is_none_and_removing_it_is_no_error(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None and read_checkpoint(tmp_path / "missing") is None
    remove_checkpoint(tmp_path)
    remove_checkpoint(tmp_path / "missing")
    (tmp_path / "file").write_text("mine")
    assert read_checkpoint(tmp_path / "file") is None
    remove_checkpoint(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_where_nothing_can_be_written_it_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "Not a directory" in write_checkpoint(tmp_path / "file" / "below", {}, {})
    (tmp_path / FILE).mkdir()
    assert "Is a directory" in write_checkpoint(tmp_path, {"x": torch.ones(4)}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "file"]


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_file_that_ends_too_early_is_damaged_wherever_it_ends(cut: int, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"x": torch.arange(20.0)}, {"step": 1})
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) - 1 - cut])
    with pytest.raises(SlimlineError, match=r"is damaged .*: delete it, and training begins anew\.$"):
        read_checkpoint(tmp_path)


def test_a_pickle_in_its_place_is_not_opened(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(3)}, tmp_path / FILE)
    with pytest.raises(SlimlineError, match="is damaged"):
        read_checkpoint(tmp_path)


def steps(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        for parameter in parameters:
            parameter.grad = torch.sin(parameter.detach() * (step + 1)) + 0.1
        optimizer.step()


def weights() -> list[nn.Parameter]:
    """Two axes, one, none, and four channels last; one that never gets a gradient comes with `optimizers`."""
    generator = torch.Generator().manual_seed(0)
    shapes: list[tuple[int, ...]] = [(3, 2), (4,), (), (2, 3, 3, 3)]
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    tensors[3] = tensors[3].contiguous(memory_format=torch.channels_last)
    return [nn.Parameter(tensor) for tensor in tensors]


def make(kind: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    groups = [{"params": parameters[:2]}, {"params": [nn.Parameter(torch.ones(2)), *parameters[2:]]}]
    if kind == "sgd":
        return torch.optim.SGD(groups, 0.1, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, 0.1) if kind == "adamw" else torch.optim.RMSprop(groups, 0.1, momentum=0.9)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "rmsprop"])
@pytest.mark.parametrize("before", [0, 3])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(kind: str, before: int, tmp_path: Path) -> None:
    whole = weights()
    optimizer = make(kind, whole)
    steps(whole, optimizer, 0, before)
    stored: dict[str, Tensor] = {f"w{i}": w for i, w in enumerate(whole)} | optimizer_tensors(optimizer)
    write_checkpoint(tmp_path, stored, {})
    steps(whole, optimizer, before, 8)
    found = read_checkpoint(tmp_path)
    assert found is not None
    taken = [nn.Parameter(w.detach().clone().copy_(found[0].pop(f"w{i}"))) for i, w in enumerate(weights())]
    again = make(kind, taken)
    restore_optimizer_(again, found[0])
    for parameter in taken:
        for value in again.state[parameter].values():
            assert value.ndim == 0 or value.stride() == parameter.stride()
    steps(taken, again, before, 8)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(taken, whole, strict=True))


def test_facts_are_readable_text(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"x": torch.ones(1)}, {"step": 3})
    raw = (tmp_path / FILE).read_bytes()
    head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(head["__metadata__"]["facts"]) == {"step": 3}

"""A hostile `.slim` file gives a sentence, and nothing in it runs."""

import hashlib
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from slimline.errors import SlimlineError
from slimline.network.container import load, save
from tests.network.networks import differences, identical, network_of

NAME = "flatten"
Head = dict[str, Any]
Graph = list[dict[str, Any]]


def rewritten(
    path: Path,
    graph: Callable[[Graph], Any] = lambda g: None,
    head: Callable[[Head], Any] = lambda h: None,
    weights: bytes | None = None,
    extra: dict[str, bytes] | None = None,
) -> Path:
    """A `.slim` file with other contents and the right checksums, as an attacker would write it."""
    save(network_of(NAME), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    nodes, top = json.loads(parts["graph.json"]), json.loads(parts["network.json"])
    graph(nodes)
    parts["graph.json"] = json.dumps(nodes).encode()
    parts["weights.safetensors"] = parts["weights.safetensors"] if weights is None else weights
    top["sha256"] = {name: hashlib.sha256(parts[name]).hexdigest() for name in ("graph.json", "weights.safetensors")}
    head(top)
    parts["network.json"] = json.dumps(top).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**parts, **(extra or {})}.items():
            archive.writestr(name, data)
    return path


def node(graph: Graph, op: str = "call_function") -> dict[str, Any]:
    """The first node of that kind."""
    return next(n for n in graph if n["op"] == op)


def test_the_rewriting_itself_is_harmless(tmp_path: Path) -> None:
    assert differences(network_of(NAME), load(rewritten(tmp_path / "a.slim"))) == []


@pytest.mark.parametrize(
    "target",
    [
        "aten.from_file.default", "aten.set_.source_Tensor", "aten.nothing.default", "aten.relu", "aten.relu.nothing",
        "os.system", "builtins.eval", "builtins.exec", "posix.system", "torch.load", "operator.attrgetter",
        "operator.methodcaller", "operator.call", "prims.add.default", "profiler._record_function_enter.default",
        "aten.__getattribute__.__call__", "aten.__class__.__call__", "aten.__init__.__getattribute__",
        "aten.__setattr__.__call__", "aten.__dict__.update", "aten.relu.__call__", "aten.name.upper", "aten..default",
        "quantized_decomposed.__class__.__call__", "quantized_decomposed.nothing.default",
        "torch.ops.aten.relu.default",
        "aten.relu.default); import os; os.system('touch executed'", "", ".", "aten", "__builtins__.eval.x",
    ],
)  # fmt: skip
def test_operators_outside_the_list_are_refused(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def ask(graph: Graph) -> None:
        node(graph)["target"] = target

    path = rewritten(tmp_path / "a.slim", graph=ask)
    with pytest.raises(SlimlineError, match="which is not (allowed|a plain identifier)"):
        load(path)
    assert not (tmp_path / "executed").exists()


CODE = [
    "x); import os; os.system('touch executed'); (y",
    "x\nimport os",
    "__import__('os').system('touch executed')",
    "a b",
    "a-b",
    "1a",
    "é",
    "class",
    "None",
    "",
]


@pytest.mark.parametrize("name", CODE)
@pytest.mark.parametrize("op", ["call_function", "placeholder", "get_attr", "output"])
def test_names_that_are_code_are_refused(name: str, op: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(tmp_path / "a.slim", graph=lambda g: node(g, op).update(name=name))
    with pytest.raises(SlimlineError, match="not a plain identifier"):
        load(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", CODE)
def test_arguments_and_inputs_whose_name_is_code_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for edit in (
        lambda g: node(g)["kwargs"].update({name: 1}),
        lambda g: node(g, "placeholder").update(target=name),
    ):
        with pytest.raises(SlimlineError, match="not (a )?plain identifier|which is not allowed"):
            load(rewritten(tmp_path / "a.slim", graph=edit))
    with pytest.raises(SlimlineError):
        load(rewritten(tmp_path / "a.slim", graph=lambda g: node(g, "get_attr").update(target=name)))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["torch", "device", "self", "print", "_operator", "super", "inf"])
def test_names_that_hide_what_the_code_needs_do_no_harm(name: str, tmp_path: Path) -> None:
    """Such a network either loads, as it is only a name, or is refused with a sentence."""

    def rename(graph: Graph) -> None:
        text = json.dumps(graph).replace(json.dumps(node(graph)["name"]), json.dumps(name))
        graph[:] = json.loads(text)

    path = rewritten(tmp_path / "a.slim", graph=rename)
    try:
        loaded = load(path)
    except SlimlineError:
        return
    assert identical(loaded.run(loaded.examples)[0], network_of(NAME).run(loaded.examples)[0])


HOSTILE: dict[str, Callable[[Graph], Any]] = {
    "a module is called": lambda g: node(g).update(op="call_module", target="stem"),
    "a method is called": lambda g: node(g).update(op="call_method", target="numpy"),
    "an unknown kind": lambda g: node(g).update(op="exec"),
    "an unknown argument": lambda g: node(g)["args"].append({"eval": "1 + 1"}),
    "two kinds in one": lambda g: node(g)["args"].append({"node": "x", "torch": "int8"}),
    "a function of torch": lambda g: node(g)["args"].append({"torch": "load"}),
    "a path into torch": lambda g: node(g)["args"].append({"torch": "hub.load"}),
    "no device": lambda g: node(g)["args"].append({"device": "mars"}),
    "a node that comes later": lambda g: node(g)["args"].__setitem__(0, {"node": "output"}),
    "a weight that is not there": lambda g: node(g, "get_attr").update(target="absent.weight"),
    "a special attribute": lambda g: node(g, "get_attr").update(target="__class__.__init__"),
    "no output": lambda g: g.pop(),
    "an output of nothing": lambda g: node(g, "output").update(args=[[]]),
    "an output that is a number": lambda g: node(g, "output").update(args=[[1]]),
    "a name twice": lambda g: g[-2].update(name=g[-3]["name"]),
    "an empty node": lambda g: g.__setitem__(slice(0, 1), [{}]),
    "a division by zero": lambda g: node(g).update(target="operator.floordiv", args=[1, 0], kwargs={}),
    "a string without end": lambda g: node(g).update(target="operator.mul", args=["x" * 99, 10**17], kwargs={}),
    "a wrong number of arguments": lambda g: node(g).update(args=[]),
    "a huge number": lambda g: node(g)["args"].append(10**40),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_graph_gives_a_sentence(case: str, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.slim", graph=HOSTILE[case])
    with pytest.raises(SlimlineError, match=r"a\.slim"):
        load(path)


HEADS: dict[str, Callable[[Head], Any]] = {
    "a wrong checksum": lambda h: h["sha256"].update({"weights.safetensors": "0" * 64}),
    "a checksum of another part": lambda h: h["sha256"].update({"/etc/passwd": "0" * 64}),
    "no checksums": lambda h: h.pop("sha256"),
    "checksums of nothing": lambda h: h.update(sha256={}),
    "no inputs": lambda h: h.update(inputs=[]),
    "an input without example": lambda h: h.update(inputs=["x", "y"]),
    "two outputs": lambda h: h.update(outputs=["a", "b"]),
    "a newer version": lambda h: h.update(version=2),
    "numbers as history": lambda h: h.update(history=3),
    "a list": lambda h: h.clear(),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_wrong_head_gives_a_sentence(case: str, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.slim", head=HEADS[case])
    with pytest.raises(SlimlineError, match=r"a\.slim"):
        load(path)


class Explosion:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    bomb = pickle.dumps(Explosion(marker))
    whole = tmp_path / "whole.slim"
    whole.write_bytes(bomb)
    checkpoint = tmp_path / "checkpoint.slim"
    torch.save({"x": Explosion(marker)}, checkpoint)
    inside = rewritten(tmp_path / "inside.slim", weights=bomb)
    for path in (whole, checkpoint, inside):
        with pytest.raises(SlimlineError):
            load(path)
    assert not marker.exists()
    pickle.loads(bomb)
    assert marker.exists()  # it would have exploded


@pytest.mark.parametrize("member", ["../outside.py", "/tmp/outside.py", "sitecustomize.py", "graph.json/../x"])
def test_other_members_are_refused_and_not_unpacked(member: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = rewritten(folder / "a.slim", extra={member: b"raise SystemExit"})
    with pytest.raises(SlimlineError, match="it holds"):
        load(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.slim", "inner"]


def claimed(path: Path, size: int, deflated: bool = True) -> Path:
    """The file with another unpacked size of its first large part in the zip's table of contents."""
    save(network_of(NAME), path)
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    while struct.unpack_from("<H", data, place + 10)[0] != (zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED):
        place = data.index(b"PK\x01\x02", place + 1)
    struct.pack_into("<I", data, place + 24, size)
    path.write_bytes(data)
    return path


def test_a_part_that_claims_to_unpack_to_a_gigabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=f"would unpack to {2**30} bytes"):
        load(claimed(tmp_path / "a.slim", 2**30))
    for deflated in (False, True):
        with pytest.raises(SlimlineError):
            load(claimed(tmp_path / "a.slim", 10, deflated))
    # what is not deflated cannot grow: the claim is wrong, the content whole
    assert differences(network_of(NAME), load(claimed(tmp_path / "a.slim", 2**30, deflated=False))) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(method: int, tmp_path: Path) -> None:
    path, packed = save(network_of(NAME), tmp_path / "a.slim"), io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    path.write_bytes(packed.getvalue())
    with pytest.raises(SlimlineError, match="is packed in a way that slimline does not write"):
        load(path)


def test_deeply_nested_and_unreadable_text_gives_a_sentence(tmp_path: Path) -> None:
    path = save(network_of(NAME), tmp_path / "a.slim")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for text in (b"[" * 100_000, b"\xff\xfe\x00", b"{", b'"' + b"9" * 5000 + b'"', b"9" * 5000, b"null"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**parts, "network.json": text}.items():
                archive.writestr(name, data)
        with pytest.raises(SlimlineError, match=r"a\.slim"):
            load(path)


def test_examples_of_other_shapes_give_a_sentence(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.slim")
    with zipfile.ZipFile(path) as archive:
        tensors = load_tensors(archive.read("weights.safetensors"))
    for example in (torch.zeros(2, 3, 5, 5), torch.zeros(0, 3, 8, 8), torch.tensor(1.0)):
        weights = save_tensors({**tensors, "input:x": example})
        with pytest.raises(SlimlineError, match=r"a\.slim"):
            load(rewritten(path, weights=weights))

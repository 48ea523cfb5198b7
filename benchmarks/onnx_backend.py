"""The ONNX backend node tests that ship with the `onnx` package, through the importer.

    python benchmarks/onnx_backend.py                 every test; writes benchmarks/results/onnx_backend.json
    python benchmarks/onnx_backend.py Conv MaxPool    only these operators; prints what failed and why, writes nothing

A test passes when the imported module returns, for every output, the expected type, the expected shape and the expected
values within the tolerances that the test itself names.
"""

import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

import record
from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.module import OnnxModule
from slimline.sources.onnx.values import NARROW, to_tensor

OUT_OF_SCOPE_OPERATORS = {
    "Optional": "optional type", "OptionalGetElement": "optional type", "OptionalHasElement": "optional type",
    "SequenceEmpty": "sequence type", "SequenceInsert": "sequence type", "SequenceLength": "sequence type",
    "SequenceMap": "sequence type", "SequenceAt": "sequence type", "SequenceConstruct": "sequence type",
    "SequenceErase": "sequence type", "SplitToSequence": "sequence type", "ConcatFromSequence": "sequence type",
    "StringConcat": "string type", "StringNormalizer": "string type", "StringSplit": "string type",
    "RegexFullMatch": "string type", "LabelEncoder": "string type", "ImageDecoder": "decodes image files",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one test."""

    operator: str
    test: str
    status: str
    """passed, failed or out of scope"""
    reason: str = ""


def main(wanted: list[str]) -> None:
    """Run the tests of the named operators, or all, and print a table."""
    started = time.perf_counter()
    outcomes = [run(case) for case in cases() if not wanted or title(case) in wanted]
    for outcome in outcomes:
        if outcome.status == "failed":
            print(f"{outcome.operator:24} {outcome.test:60} {outcome.reason}")
    rows = table(outcomes)
    for row in rows:
        print(
            f"{row['operator']:28} passed {row['passed']:4}  failed {row['failed']:4}  "
            f"out of scope {row['out_of_scope']}"
        )
    summary = {name: sum(row[name] for row in rows) for name in ("passed", "failed", "out_of_scope")}
    summary["rate"] = summary["passed"] / max(1, summary["passed"] + summary["failed"])
    print(summary)
    if not wanted:
        record.write("onnx_backend", summary, rows, [], time.perf_counter() - started)


def cases() -> list[Any]:
    """Every node test of the installed `onnx` package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found: list[Any] = collect_testcases(None)
    return found


def title(case: Any) -> str:
    """The operator that a test is about, also where it is expanded into simpler ones."""
    kinds = [node.op_type for node in case.model.graph.node]
    by_name = {kind.lower(): kind for kind in [*kinds, *(s.name for s in onnx.defs.get_all_schemas())]}
    words = case.name.removeprefix("test_").split("_")
    for count in range(len(words), 0, -1):
        name = "".join(words[:count])
        if name in by_name:
            return by_name[name]
    return str(kinds[-1])


def out_of_scope(case: Any) -> str:
    """Why a test is not about inference in the default domain with tensors; empty when it is."""
    domains = {node.domain for node in case.model.graph.node} - {"", "ai.onnx"}
    if domains:
        return "training" if any("training" in d for d in domains) else f"domain {sorted(domains)[0]}"
    for node in case.model.graph.node:
        if node.op_type in OUT_OF_SCOPE_OPERATORS:
            return OUT_OF_SCOPE_OPERATORS[node.op_type]
    for value in [*case.model.graph.input, *case.model.graph.output]:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            return f"{str(kind).removesuffix('_type')} type"
        if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            return "string type"
    return ""


def run(case: Any) -> Outcome:
    """One test."""
    reason = out_of_scope(case)
    if reason:
        return Outcome(title(case), case.name, "out of scope", reason)
    try:
        module = OnnxModule(build_graph(case.model))
        for inputs, expected in case.data_sets:
            with torch.no_grad():
                found = module(*(to_tensor(array(value)) for value in inputs))
            compare(found, expected, case)
    except (SlimlineError, AssertionError) as error:
        return Outcome(title(case), case.name, "failed", " ".join(str(error).split())[:300])
    except Exception as error:  # a benchmark tells every way of failing apart from passing, and goes on
        return Outcome(title(case), case.name, "failed", f"{type(error).__name__}: {error}"[:300])
    return Outcome(title(case), case.name, "passed")


def array(value: Any) -> Any:
    """The numbers of a test, which holds types that numpy lacks as protobuf."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def compare(found: Iterable[torch.Tensor], expected: Iterable[Any], case: Any) -> None:
    """Raise AssertionError where an output has another type, shape or value than expected."""
    found = tuple(value.detach() for value in found)
    expected = tuple(array(value) for value in expected)
    assert len(found) == len(expected), f"{len(found)} outputs instead of {len(expected)}"
    for ours, theirs in zip(found, expected, strict=True):
        assert tuple(ours.shape) == theirs.shape, f"shape {tuple(ours.shape)} instead of {theirs.shape}"
        wide = theirs.dtype if theirs.dtype not in NARROW else np.dtype(NARROW[theirs.dtype])
        if str(theirs.dtype) not in ("float4_e2m1fn", "float8_e8m0fnu"):
            assert ours.dtype == to_tensor(np.zeros(1, wide)).dtype, f"type {ours.dtype} instead of {theirs.dtype}"
        if theirs.dtype.kind == "c":
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=case.rtol, atol=case.atol)
        else:
            np.testing.assert_allclose(
                ours.to(torch.float64).numpy(), theirs.astype(np.float64), rtol=case.rtol, atol=case.atol
            )


def table(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """One row per operator."""
    rows = []
    for name in sorted({outcome.operator for outcome in outcomes}):
        mine = [outcome for outcome in outcomes if outcome.operator == name]
        count = {status: sum(o.status == status for o in mine) for status in ("passed", "failed", "out of scope")}
        rows.append(
            {
                "operator": name,
                "passed": count["passed"],
                "failed": count["failed"],
                "out_of_scope": count["out of scope"],
                "reasons": sorted({outcome.reason for outcome in mine if outcome.reason}),
            }
        )
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])

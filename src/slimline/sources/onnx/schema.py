"""Nodes against the definitions of their operators, as the `onnx` package knows them."""

from functools import cache
from typing import Any

import onnx
from onnx import defs

from slimline.errors import SlimlineError
from slimline.sources.onnx.limits import quoted, shown

OLDEST_OPSET = 7
"""Before it, broadcasting followed other rules."""
DOMAINS = ("", "ai.onnx")
"""Both are the default domain."""
OPTIONAL = defs.OpSchema.FormalParameterOption.Optional
INTERNAL = "__"
"""Attributes that start so are notes of a tool (onnx, OpSchema::Verify)."""


def opsets_of(model: onnx.ModelProto) -> dict[str, int]:
    """The version of each domain that a model declares; the default domain is ``""``.

    Raises:
        SlimlineError: none is declared for the default domain, or it is newer than the `onnx` package.
    """
    opsets: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain in DOMAINS else entry.domain
        if opsets.setdefault(domain, entry.version) != entry.version:
            raise SlimlineError(f"it declares two versions of the operators of {quoted(domain)}: the file is damaged.")
    newest = defs.onnx_opset_version()
    if "" not in opsets:
        raise SlimlineError("it does not say which version of the ONNX operators it uses: export it again.")
    if opsets[""] > newest:
        raise SlimlineError(
            f"it uses opset {opsets['']} and the installed onnx {onnx.__version__} knows up to {newest}: update onnx "
            "(pip install -U onnx), or export with an older opset."
        )
    return opsets


def refuse_old(model: onnx.ModelProto) -> None:
    """Raise when a model uses operators of before opset 7."""
    opset = opsets_of(model)[""]
    if opset < OLDEST_OPSET:
        raise SlimlineError(
            f"it uses opset {opset}, older than {OLDEST_OPSET}: export it again, or convert it with "
            "onnx.version_converter."
        )


def check_node(node: onnx.NodeProto, opset: int) -> None:
    """Raise unless a node of the default domain has the inputs, outputs and attributes its operator is defined with.

    Operators that ONNX does not know pass: the table of operators decides about them.
    """
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) != len(names):
        raise SlimlineError(f"{label(node)} has the attribute {_twice(names)} twice: the file is damaged.")
    definition = schema(node.op_type, opset) if node.domain in DOMAINS else None
    if definition is None:
        return
    inputs, outputs = _given(node.input), _given(node.output)
    if len(inputs) > definition.max_input:
        raise SlimlineError(f"{label(node)} has {len(inputs)} inputs; at most {definition.max_input} are defined.")
    for position, formal in enumerate(definition.inputs):
        given = position < len(inputs) and inputs[position]
        if position < definition.min_input and not given and formal.option != OPTIONAL:
            raise SlimlineError(f"{label(node)} lacks its input {position} ({formal.name}): the file is damaged.")
    if not outputs or len(outputs) > definition.max_output:
        raise SlimlineError(
            f"{label(node)} has {len(outputs)} outputs; from 1 to {definition.max_output} are defined: "
            "the file is damaged."
        )
    _check_attributes(node, definition)


def _check_attributes(node: onnx.NodeProto, definition: Any) -> None:
    known = definition.attributes
    for attribute in node.attribute:
        if attribute.name.startswith(INTERNAL):
            continue
        if attribute.name not in known:
            raise SlimlineError(
                f"{label(node)} has the attribute {quoted(attribute.name)}, which opset "
                f"{definition.since_version} does not define for it; it defines {', '.join(sorted(known)) or 'none'}."
            )
        wanted = int(known[attribute.name].type.value)
        if wanted != attribute.type:
            raise SlimlineError(
                f"{label(node)}: the attribute {quoted(attribute.name)} has the type {_kind(attribute.type)} instead "
                f"of {_kind(wanted)}: the file is damaged."
            )
    given = {attribute.name for attribute in node.attribute}
    missing = [name for name, spec in known.items() if spec.required and name not in given]
    if missing:
        raise SlimlineError(f"{label(node)} lacks the attribute {missing[0]!r}: the file is damaged.")
    if node.op_type == "Constant" and len(given) != 1:
        raise SlimlineError(f"{label(node)} has {len(given)} values instead of one: the file is damaged.")


def label(node: onnx.NodeProto) -> str:
    """What to call a node in a sentence."""
    return f"the node {shown(node.op_type)} {quoted(node.name or next(iter(node.output), ''))}"


@cache
def schema(kind: str, opset: int) -> Any:
    """The definition of an operator of the default domain for an opset, or None when there is none.

    Some tools write an operator before the opset it came with (ONNX Runtime fuses LayerNormalization into any); it then
    means what it first meant.
    """
    if not defs.has(kind):
        return None
    versions = {s.since_version: s for s in _schemas().get(kind, ()) if not s.deprecated}
    if not versions:
        return None
    return versions[max((v for v in versions if v <= opset), default=min(versions))]


@cache
def _schemas() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for definition in defs.get_all_schemas_with_history():
        if definition.domain in DOMAINS:
            found.setdefault(definition.name, []).append(definition)
    return found


def _given(names: Any) -> list[str]:
    """Names without the empty ones at the end, which say nothing."""
    found = list(names)
    while found and not found[-1]:
        found.pop()
    return found


def _twice(names: list[str]) -> str:
    return quoted(next(name for name in names if names.count(name) > 1))


def _kind(number: int) -> str:
    names = dict(zip(onnx.AttributeProto.AttributeType.values(), onnx.AttributeProto.AttributeType.keys(), strict=True))
    return str(names.get(number, number))

"""Pruning on every architecture of the zoo: half of every group at random, then everything that a user would do next.

    python benchmarks/architectures.py               all; writes benchmarks/results/architectures.json
    python benchmarks/architectures.py vit_sdpa unet only these; prints what was found, writes nothing

An architecture passes when, with half of the channels of every group gone,

    the network verifies and runs at batch 1 and 3,
    one step of gradient descent moves its weights and leaves them finite,
    its ONNX file answers in ONNX Runtime as the network does,
    and, with only those groups pruned whose removal is exact, it answers as the original does with the same slices
    set to zero.

The last is the independent part: it needs no axis rule, only the positions that a group names.
"""

import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import record
from slimline.errors import SlimlineError
from slimline.network.axes import AxisGroups, axis_groups, prune
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.onnxruntime import OnnxRuntime
from slimline.runtimes.runtime import Artifact
from zoo import architectures
from zoo.architecture import Architecture, Inputs

SEED = 0
EXACT = 1e-4
"""Largest difference from the zeroed original, as a share of its largest answer; float32 through dozens of layers."""
RUNTIME = 1e-3
"""Largest difference between ONNX Runtime and torch, in the same unit."""


@dataclass
class Finding:
    """What became of one architecture."""

    architecture: Architecture
    reason: str = ""
    """Why it failed; empty where it passed."""
    figures: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        return {
            "name": self.architecture.name,
            "family": self.architecture.family,
            "passed": not self.reason,
            "reason": self.reason,
            **self.figures,
        }


def main(wanted: list[str]) -> None:
    """Run the named architectures, or all, and print a line for each."""
    started = time.perf_counter()
    findings = []
    for architecture in architectures():
        if not wanted or architecture.name in wanted:
            findings.append(examined(architecture))
            print(line(findings[-1]), flush=True)
    passed = sum(not f.reason for f in findings)
    print(f"{passed} of {len(findings)} pass")
    if wanted:
        return
    summary = {
        "passed": passed,
        "total": len(findings),
        "rate": passed / len(findings),
        "groups": sum(f.figures.get("groups", 0) for f in findings),
        "median_share_of_weights_left": float(
            np.median([f.figures["weights_left"] for f in findings if "weights_left" in f.figures])
        ),
    }
    print(record.write("architectures", summary, [f.row() for f in findings], [SEED], time.perf_counter() - started))


def line(finding: Finding) -> str:
    """One architecture in the terminal."""
    figures = finding.figures
    told = f"{figures.get('groups', 0):4} groups, {figures.get('weights_left', 1):6.1%} of the weights left"
    return f"{finding.architecture.name:28} {'failed: ' + finding.reason if finding.reason else told}"


def examined(architecture: Architecture) -> Finding:
    """Everything that is asked of one architecture, until something fails."""
    finding = Finding(architecture)
    torch.manual_seed(SEED)
    try:
        network = trace(architecture.build(), architecture.inputs(2))
        began = time.perf_counter()
        found = axis_groups(network)
        if not found.groups:
            raise SlimlineError(f"No group was found: {'; '.join(sorted(set(found.frozen.values())))[:300]}.")
        exact = AxisGroups([g for g in found.groups if not g.inexact], found.frozen, found.propagation)
        smaller = prune(network, found, halves(found))
        finding.figures = {
            "groups": len(found.groups),
            "exact_groups": len(exact.groups),
            "seconds": round(time.perf_counter() - began, 2),
            "weights": network.parameter_count(),
            "weights_left": smaller.parameter_count() / network.parameter_count(),
            "left_whole": dict(Counter(found.frozen.values()).most_common(5)),
        }
        runs(smaller, architecture.inputs)
        finding.figures["exact_difference"] = compared_with_zeros(network, exact, architecture.inputs)
        finding.figures["runtime_difference"] = compared_with_runtime(smaller, architecture.inputs)
        trains(smaller)
    except Exception as error:  # whatever goes wrong is the finding
        finding.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return finding


def halves(found: AxisGroups) -> dict[str, np.ndarray]:
    """A random half of every group."""
    generator = np.random.default_rng(SEED)
    return {g.name: np.sort(generator.permutation(g.width)[: max(1, g.width // 2)]) for g in found.groups}


def runs(network: Network, inputs: Inputs) -> None:
    """At batch 1 and 3, with the batch on the first axis of finite answers."""
    for batch in (1, 3):
        for output in network.run(inputs(batch)):
            if len(output) != batch or not torch.isfinite(output.float()).all():
                raise SlimlineError(
                    f"At batch {batch} an output of shape {tuple(output.shape)} is not as it should be."
                )


def compared_with_zeros(network: Network, exact: AxisGroups, inputs: Inputs) -> float | None:
    """Largest difference from the original whose pruned slices are zero; None where no group is exact."""
    if not exact.groups:
        return None
    kept = halves(exact)
    smaller, zeroed = prune(network, exact, kept), network.copy()
    weights = zeroed.weights()
    with torch.no_grad():
        for group in exact.groups:
            for channel in np.setdiff1d(np.arange(group.width), kept[group.name]):
                for (weight, axis), positions in group.slices.items():
                    weights[weight].index_fill_(axis, torch.from_numpy(positions[channel]), 0)
    worst = 0.0
    for batch in (1, 3):
        worst = max(worst, difference(zeroed.run(inputs(batch)), smaller.run(inputs(batch))))
    if worst > EXACT:
        raise SlimlineError(f"It differs by {worst:.1e} from the original with zeros.")
    return worst


def compared_with_runtime(network: Network, inputs: Inputs) -> float:
    """Largest difference between the ONNX file in ONNX Runtime and the network."""
    runtime = OnnxRuntime()
    with tempfile.TemporaryDirectory() as folder:
        path = runtime.export(network, Path(folder))
        runner = runtime.open(Artifact(path, "onnxruntime"), 1)
        worst = 0.0
        for batch in (1, 3):
            given = inputs(batch)
            answers = runner.run({name: value.numpy() for name, value in given.items()})
            worst = max(worst, difference(network.run(given), tuple(map(torch.from_numpy, answers))))
    if worst > RUNTIME:
        raise SlimlineError(f"ONNX Runtime differs by {worst:.1e} from the network.")
    return worst


def difference(expected: tuple[Tensor, ...], got: tuple[Tensor, ...]) -> float:
    """The largest of all outputs, as a share of the largest answer."""
    worst = 0.0
    for one, other in zip(expected, got, strict=True):
        if one.shape != other.shape:
            raise SlimlineError(f"An output has shape {tuple(other.shape)} instead of {tuple(one.shape)}.")
        scale = float(one.double().abs().max().clamp_min(1e-12))
        worst = max(worst, float((one.double() - other.double()).abs().max()) / scale)
    return worst


def trains(network: Network) -> None:
    """One step on the sum of squares of what comes out."""
    student = network.copy().set_training_(True)
    parameters = dict(student.module.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.SGD(parameters.values(), lr=1e-3)
    outputs = student.module(*(student.examples[name] for name in student.input_names))
    loss = torch.stack([(o - 1).square().mean() for o in outputs if o.is_floating_point()]).sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
    optimizer.step()
    if not all(torch.isfinite(p).all() for p in parameters.values()):
        raise SlimlineError("A step of training leaves weights that are not finite.")
    if all(torch.equal(p, before[name]) for name, p in parameters.items()):
        raise SlimlineError("A step of training moves no weight.")
    student.set_training_(False).verify()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    main(sys.argv[1:])

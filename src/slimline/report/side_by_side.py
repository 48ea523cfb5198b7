"""Tables for the commands `measure` and `verify`."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slimline.errors import SlimlineError
from slimline.measure.latency import CERTIFIED, race
from slimline.measure.machine import usable_cores
from slimline.measure.memory import runner_memory
from slimline.network import container
from slimline.report.certificate import Certificate
from slimline.runtimes.registry import get_runtime
from slimline.runtimes.runtime import Array, Artifact
from slimline.search.recheck import recheck
from slimline.sources.source import read_data

DEFAULT_RUNTIME = {".slim": "torch", ".onnx": "onnxruntime"}
MARKS = {True: "[green]holds[/]", False: "[red]does not hold[/]", None: "[yellow]not checked[/]"}


def named_artifact(text: str) -> Artifact:
    """``FILE``, ``FILE@openvino`` or ``FILE@openvino[bf16]``.

    Raises:
        SlimlineError: no such file, or its runtime cannot be told from its ending.
    """
    file, _, label = text.partition("@")
    path = Path(file)
    if not path.exists():
        raise SlimlineError(f"{path} does not exist: check the path.")
    runtime, _, variant = label.rstrip("]").partition("[")
    runtime = runtime or DEFAULT_RUNTIME.get(path.suffix, "")
    if not runtime:
        raise SlimlineError(f"{path} has no runtime of its own: write {path}@onnxruntime, for example.")
    get_runtime(runtime)
    return Artifact(path, runtime, variant)


def compare_files(names: list[str], data: Path | None) -> None:
    """Race files on the same inputs and print a table; ratios are against the first."""
    artifacts = {f"{i + 1} {name}": named_artifact(name) for i, name in enumerate(names)}
    inputs = read_data(data) if data is not None else _example_inputs(list(artifacts.values()))
    inputs.pop("labels", None)
    threads = usable_cores()
    console = Console()
    result = race(artifacts, inputs, CERTIFIED, threads, lambda line: console.print(line, style="dim", markup=False))
    table = Table(
        "file", "runtime", "ms per call", "95 % interval", "times as fast as the first", "bytes", "peak memory"
    )
    first = next(iter(artifacts))
    for label, artifact in artifacts.items():
        latency = result.latency(label)
        ratio = result.ratio(first, label)
        memory = runner_memory(artifact, inputs, threads).value
        table.add_row(
            escape(artifact.path.name), escape(artifact.label), f"{latency.value:.4f}",
            f"{latency.low:.4f} to {latency.high:.4f}",
            "1" if label == first else f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
            f"{artifact.size_bytes:,}", f"{memory / 1e6:.0f} MB",
        )  # fmt: skip
    console.print(table)


def _example_inputs(artifacts: list[Artifact]) -> dict[str, Array]:
    for artifact in artifacts:
        if artifact.path.suffix == ".slim":
            return {name: x.numpy() for name, x in container.load(artifact.path).examples.items()}
    raise SlimlineError(
        "None of the files carries example inputs, and speed on made-up ones misleads: pass --data DATA.npz with one "
        "array per input name."
    )


def recheck_folder(folder: Path) -> bool:
    """Print every check of a run's certificate; whether all that could be checked hold."""
    certificate = Certificate.read(folder / "certificate.json")
    checks = recheck(folder, certificate.model_dump(mode="json"))
    table = Table("claim", "", "found here")
    for check in checks:
        table.add_row(escape(check.what), MARKS[check.holds], escape(check.found))
    Console().print(table)
    return all(check.holds is not False for check in checks)

"""The runtimes by name, and the one way to open an artifact.

Importing this file imports no runtime's package and not torch: a process that only runs an artifact pays for that
artifact's runtime alone.
"""

import difflib

from slimline.errors import SlimlineError
from slimline.runtimes.onnxruntime import OnnxRuntime
from slimline.runtimes.openvino import OpenVino
from slimline.runtimes.runtime import Artifact, Runner, Runtime
from slimline.runtimes.torch_eager import TorchEager

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (TorchEager(), OnnxRuntime(), OpenVino())}


def get_runtime(name: str) -> Runtime:
    """A runtime by its name.

    Raises:
        SlimlineError: no such runtime.
    """
    if name not in RUNTIMES:
        near = difflib.get_close_matches(name.lower(), RUNTIMES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise SlimlineError(f"No runtime is called {name!r}: use one of {', '.join(RUNTIMES)}{hint}")
    return RUNTIMES[name]


def available_runtimes() -> tuple[tuple[Runtime, ...], dict[str, str]]:
    """The runtimes that can be used here, and by name why the others cannot and what to install."""
    reasons = {name: reason for name, runtime in RUNTIMES.items() if (reason := runtime.missing()) is not None}
    return tuple(runtime for name, runtime in RUNTIMES.items() if name not in reasons), reasons


def open_artifact(artifact: Artifact, threads: int) -> Runner:
    """Load an artifact in its runtime; ``threads`` is how many cores it may use.

    Raises:
        SlimlineError: the runtime or the variant is unknown, the runtime is not installed, or the file does not exist
            or cannot be loaded.
    """
    runtime = get_runtime(artifact.runtime)
    if artifact.variant not in runtime.variants:
        named = ", ".join(repr(name) for name in runtime.variants if name) or "none"
        raise SlimlineError(f"{runtime.name} has no variant {artifact.variant!r}: its variants are {named}.")
    reason = runtime.missing()
    if reason is not None:
        raise SlimlineError(reason)
    if not artifact.path.exists():
        raise SlimlineError(f"{artifact.path} does not exist: give the path of an artifact made for {runtime.name}.")
    if threads < 1:
        raise SlimlineError(f"{artifact.label} cannot run on {threads} threads: give at least one.")
    return runtime.open(artifact, threads)

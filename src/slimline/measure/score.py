"""What an exported file computes, for scoring."""

from collections.abc import Mapping

from slimline.measure.process import RunnerProcess
from slimline.runtimes.runtime import Array, Artifact


def artifact_outputs(artifact: Artifact, inputs: Mapping[str, Array], threads: int, batch: int = 64) -> list[Array]:
    """Outputs of the artifact for all samples, from a fresh process; samples on the first axis of each array.

    Raises SlimlineError when the artifact cannot be run.
    """
    with RunnerProcess(artifact, threads) as process:
        process.load(inputs)
        return process.outputs(batch)

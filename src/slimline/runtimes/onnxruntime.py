"""ONNX Runtime on its CPU provider.

Quantised networks are fastest when its optimiser leaves no floating-point operator between the first quantise and the
last dequantise. Looked up in the optimised graph (`SessionOptions.optimized_model_filepath`) of version 1.31:

* conv -> relu -> pair becomes one QLinearConv and add -> relu -> pair one QLinearAdd: a relu (or relu6) between the
  operator and the pair costs nothing when the pair's zero point is 0.
* A convolution or add whose result is not quantised again runs in floating point, and its weights are dequantised in
  every call. So an operator is worth quantising only where a pair follows it. A linear layer is the exception:
  QGemm may leave its result in floating point, so the last layer needs no pair behind it.
* Both inputs of an add need a pair of their own; there is no convolution with a sum inside, as OpenVINO has.
* The global mean stays integer when it is written as GlobalAveragePool (`slimline.runtimes.onnx_operators`) and has a
  pair before and behind it. ReduceMean never does.
* Max pooling and nearest upsampling only move values: they run on integers when the pairs before and behind them share
  scale and zero point, or (max pooling) when there is none before. Two different pairs force them to floating point.
* QGemm asks for an explicit zero point of the weights, even though it is 0.
* uint8 activations with int8 weights use the VNNI instructions; where a processor lacks them, sums of such products
  may saturate (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "U8S8").
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimline.errors import SlimlineError
from slimline.runtimes.runtime import Array, Artifact, Facts, Runner, Runtime

if TYPE_CHECKING:
    from slimline.network.network import Network

ERRORS_ONLY = 3
QUANTIZED_OPS = frozenset(
    {
        "aten.conv1d", "aten.conv2d", "aten.linear", "aten.add", "aten.mul", "aten.mean",
        "aten.adaptive_avg_pool2d", "aten.avg_pool2d", "aten.sigmoid", "aten.leaky_relu",
    }
)  # fmt: skip
"""Operators that become one integer operator; each was seen in the optimised graph."""


class OnnxRuntime(Runtime):
    """The ``onnxruntime`` runtime; its artifact is an ONNX file."""

    name = "onnxruntime"
    file_format = "onnx"
    package = "onnxruntime"
    facts = Facts(quantized_ops=QUANTIZED_OPS, channel_multiple=16)

    def missing(self) -> str | None:
        """None when onnxruntime can be imported."""
        return None if find_spec(self.package) else "onnxruntime is not installed: run `pip install onnxruntime`."

    def export(self, network: "Network", folder: Path) -> Path:
        """Write ``network.onnx``."""
        from slimline.runtimes.onnx_file import write_onnx

        write_onnx(network, folder / "network.onnx")
        return folder / "network.onnx"

    def open(self, artifact: Artifact, threads: int) -> Runner:
        """Optimise the graph for this processor and keep it in memory."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = ERRORS_ONLY
        try:
            session = onnxruntime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a different class for every kind of damage
            raise SlimlineError(
                f"onnxruntime cannot load {artifact.path} ({' '.join(str(error).split())[:200]}): "
                "the file may be damaged or use an operator that it does not have; export it again."
            ) from error
        return OnnxRunner(session)


class OnnxRunner(Runner):
    """A session called with `run`.

    `run` reads contiguous arrays where they are. Binding (`run_with_iobinding`) was 2 microseconds slower per call on a
    network of 40 microseconds, since inputs that change have to be bound again each time.
    """

    def __init__(self, session: Any) -> None:
        self._run = session.run
        self._output_names = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs are fresh arrays."""
        outputs: list[Array] = self._run(self._output_names, inputs)
        return outputs

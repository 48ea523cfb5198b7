"""OpenVINO on the CPU, reading the same ONNX file as ONNX Runtime.

The same quantise/dequantise pairs suit it. Read off the executed graph (`CompiledModel.get_runtime_model`) of version
2026.4: a convolution with the pair, add, relu and second pair behind it is one uint8 primitive, the mean reads
integers, and a linear layer reads integers and writes floating point.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from slimline.errors import SlimlineError
from slimline.runtimes.runtime import Array, Artifact, Facts, Runner, Runtime

if TYPE_CHECKING:
    from slimline.network.network import Network

Shapes = tuple[tuple[int, ...], ...]
COMPILED_AT_MOST = 3
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
QUANTIZED_OPS = frozenset(
    {
        "aten.conv1d", "aten.conv2d", "aten.linear", "aten.add", "aten.mul", "aten.mean",
        "aten.adaptive_avg_pool2d", "aten.avg_pool2d",
    }
)  # fmt: skip
SPARED_OPS = frozenset({"aten.linear"})
"""With integer linear layers 14 of the 38 convolutions of PP-OCRv4's recogniser fell back to floating point in 2026.4;
without them none did, and a call took 4 ms in place of 6."""
ABSORBED_OPS = frozenset(
    {
        "aten.relu", "aten.relu6", "aten.hardtanh", "aten.clamp", "aten.hardswish", "aten.hardsigmoid", "aten.silu",
        "aten.gelu", "aten.sigmoid", "aten.tanh", "aten.elu", "aten.leaky_relu", "aten.mul", "aten.add",
    }
)  # fmt: skip
"""What its convolution runs on the accumulator before it rounds; products and sums only with numbers."""


class OpenVino(Runtime):
    """The ``openvino`` runtime. In a quantised file ``bf16`` touches what is left in floating point."""

    name = "openvino"
    file_format = "onnx"
    package = "openvino"
    facts = Facts(quantized_ops=QUANTIZED_OPS, spared_ops=SPARED_OPS, absorbed_ops=ABSORBED_OPS, channel_multiple=16)
    variants = MappingProxyType(
        {
            "": MappingProxyType({"INFERENCE_PRECISION_HINT": "f32"}),
            "bf16": MappingProxyType({"INFERENCE_PRECISION_HINT": "bf16"}),
        }
    )

    def missing(self) -> str | None:
        """None when openvino can be imported."""
        return None if find_spec(self.package) else "openvino is not installed: run `pip install slimline[openvino]`."

    def export(self, network: "Network", folder: Path) -> Path:
        """Write ``network.onnx``."""
        from slimline.runtimes.onnx_file import write_onnx

        write_onnx(network, folder / "network.onnx")
        return folder / "network.onnx"

    def open(self, artifact: Artifact, threads: int) -> Runner:
        """Read the file; it is compiled at the first call, when the shapes are known."""
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            **self.variants[artifact.variant],
        }
        core = openvino.Core()
        try:
            model = core.read_model(artifact.path)
        except Exception as error:  # openvino raises plain RuntimeError and classes of its own
            raise SlimlineError(
                f"openvino cannot load {artifact.path} ({' '.join(str(error).split())[:200]}): "
                "the file may be damaged or use an operator that it does not have; export it again."
            ) from error
        return OpenVinoRunner(core, model, settings)

    def offered_variants(self) -> tuple[str, ...]:
        """``bf16`` only where the processor has it; openvino would imitate it elsewhere, and slowly."""
        return ("", "bf16") if cpu_flags() & BF16_FLAGS else ("",)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Instruction sets by their Linux names; none where the system does not list them in a file."""
    if not cpuinfo.is_file():
        return set()
    lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")]
    return set(lines[0].partition(":")[2].split()) if lines else set()


class OpenVinoRunner(Runner):
    """One inference request per set of input shapes, used again and again; nothing is copied in or out.

    A model compiled for fixed shapes took 10 to 20 % less time on a small network than one with a free batch axis, so
    it is compiled when shapes are first seen. The last few are kept.
    """

    def __init__(self, core: Any, model: Any, settings: Mapping[str, Any]) -> None:
        from openvino import Tensor

        self._tensor = Tensor
        self._core, self._model, self._settings = core, model, dict(settings)
        self._names = [port.any_name for port in model.inputs]
        self._requests: dict[Shapes, Any] = {}

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs are views of the request's memory, which the next call overwrites."""
        # Memory can only be shared when it is contiguous and, though nothing writes to it, not locked.
        arrays = [a if (a := inputs[name]).flags.carray else a.copy() for name in self._names]
        shapes = tuple(array.shape for array in arrays)
        request = self._requests.get(shapes) or self._compile(shapes)
        for i, array in enumerate(arrays):
            request.set_input_tensor(i, self._tensor(array, shared_memory=True))
        request.infer()
        return [tensor.data for tensor in request.output_tensors]

    def _compile(self, shapes: Shapes) -> Any:
        while len(self._requests) >= COMPILED_AT_MOST:
            del self._requests[next(iter(self._requests))]
        fixed = self._model.clone()
        fixed.reshape({name: list(shape) for name, shape in zip(self._names, shapes, strict=True)})
        self._requests[shapes] = self._core.compile_model(fixed, "CPU", self._settings).create_infer_request()
        return self._requests[shapes]

from pathlib import Path

import numpy as np
import openvino
import pytest

from slimline.runtimes.openvino import COMPILED_AT_MOST, OpenVinoRunner, cpu_flags
from slimline.runtimes.registry import get_runtime, open_artifact
from slimline.runtimes.runtime import Artifact
from tests.runtimes.networks import Quantized, Residual, exported, images, reference, traced


def test_any_batch_in_any_order_gives_the_same_rows(tmp_path: Path) -> None:
    network = traced(Residual())
    runner = open_artifact(exported(network, "openvino", tmp_path), 1)
    assert isinstance(runner, OpenVinoRunner)
    x = images(9)
    expected = reference(network, x)
    for count in (1, 4, 2, 9, 1, 3, 4):
        got = runner.run({"x": x[:count]})[0]
        np.testing.assert_allclose(got, expected[:count], rtol=1e-4, atol=1e-5)
        assert len(runner._requests) <= COMPILED_AT_MOST


def test_convolutions_of_a_quantised_network_run_on_integers(tmp_path: Path) -> None:
    artifact = exported(traced(Quantized()), "openvino", tmp_path)
    compiled = openvino.Core().compile_model(artifact.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        if facts["layerType"].astype(str) in ("Convolution", "FullyConnected"):
            found[node.get_friendly_name()] = facts["runtimePrecision"].astype(str)
    assert len(found) == 3 and set(found.values()) == {"u8"}


def test_bf16_is_offered_where_the_processor_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    runtime = get_runtime("openvino")
    for flags, offered in (("fma avx512f", ("",)), ("avx512f avx512_bf16", ("", "bf16")), ("amx_bf16", ("", "bf16"))):
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\nflags\t\t: fpu {flags}\n")
        monkeypatch.setattr("slimline.runtimes.openvino.cpu_flags", lambda: cpu_flags(cpuinfo))
        assert runtime.offered_variants() == offered
    assert cpu_flags(tmp_path / "absent") == set()


@pytest.mark.skipif(not cpu_flags() & {"avx512_bf16", "amx_bf16"}, reason="this processor has no bf16 instructions")
def test_the_bf16_variant_computes_with_eight_bits_of_precision(tmp_path: Path) -> None:
    network = traced(Residual())
    plain = exported(network, "openvino", tmp_path)
    x = images(8)
    expected = reference(network, x)
    got = open_artifact(Artifact(plain.path, "openvino", "bf16"), 1).run({"x": x})[0]
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 2.0**-5  # more than float32 rounding, and a few times the bf16 rounding of 2**-9

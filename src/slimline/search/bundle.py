"""What the user takes home: the artifact, a card, ten lines that run it, and checksums."""

import hashlib
import shutil
from pathlib import Path

from slimline.errors import SlimlineError
from slimline.runtimes.runtime import Artifact
from slimline.search.study import Trial

OPENERS = {
    "onnxruntime": (
        "import onnxruntime",
        'session = onnxruntime.InferenceSession(here / "{file}")\n    return session.run(None, arrays)',
    ),
    "openvino": (
        "import openvino",
        'hint = {{"INFERENCE_PRECISION_HINT": "{precision}", "PERFORMANCE_HINT": "LATENCY"}}\n'
        '    compiled = openvino.compile_model(here / "{file}", "CPU", hint)\n'
        "    return list(compiled(arrays).values())",
    ),
    "torch": (
        "import torch\nfrom slimline.network.container import load",
        'network = load(here / "{file}")\n'
        "    return [o.numpy() for o in network.run({{k: torch.from_numpy(v) for k, v in arrays.items()}})]",
    ),
}
PREDICT = '''"""Run the network: python predict.py DATA.npz (one array per input name, batch first)."""

import sys
from pathlib import Path

import numpy as np
{imports}

here = Path(__file__).parent


def predict(arrays):
    """Arrays by input name to the list of outputs."""
    {body}


if __name__ == "__main__":
    for output in predict(dict(np.load(sys.argv[1], allow_pickle=False))):
        print(output.shape, output[:4])
'''


def sha256(path: Path) -> str:
    """Checksum of a file, or of every file below a folder in order of their names."""
    total = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(file.read_bytes())
    return total.hexdigest()


def write_bundle(folder: Path, artifact: Path, trial: Trial, card: str) -> Path:
    """Write a deployable folder; it replaces an older one as a whole. Returns the artifact's new path.

    Raises:
        SlimlineError: the folder cannot be written.
    """
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file in Artifact(artifact, trial.runtime).files:  # the file, and its weights where they lie beside it
            shutil.copy2(file, partial / file.name)
        target = partial / artifact.name
        imports, body = OPENERS[trial.runtime]
        body = body.format(file=target.name, precision=trial.variant or "f32")
        (partial / "predict.py").write_text(PREDICT.format(imports=imports, body=body))
        (partial / "recipe.yaml").write_text(trial.recipe_yaml)
        (partial / "CARD.md").write_text(card)
        sums = [f"{sha256(p)}  {p.name}" for p in sorted(partial.iterdir())]
        (partial / "SHA256SUMS").write_text("\n".join(sums) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise SlimlineError(
            f"The result cannot be written to {folder} ({error.strerror}): make room or choose another --out."
        ) from error
    return folder / target.name

"""`slimline optimize examples/cifar_resnet20.py --max-drop 2%`: a user's own job, with 5,085 training images."""

import json
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

from demo import FIELDS
from record import ROOT, write

MINUTES = 5


def main() -> None:
    """Run the example as a user would and keep what its certificate says."""
    started = time.monotonic()
    with TemporaryDirectory() as out:
        job = str(ROOT / "examples" / "cifar_resnet20.py")
        command = [sys.executable, "-m", "slimline.cli", "optimize", job, "--max-drop", "2%", "--time", f"{MINUTES}m"]
        code = subprocess.run([*command, "--out", f"{out}/run"], check=False).returncode
        with open(f"{out}/run/certificate.json", encoding="utf-8") as file:
            certificate = json.load(file)
    summary = {
        "verdict": certificate["verdict"],
        "exit_code": code,
        **{name: certificate["best"][name] for name in FIELDS},
        "n": certificate["splits"]["certify"],
        "search_seconds": certificate["seconds"],
        "noise": certificate["noise"],
        "limits": certificate["limits"],
        "original": certificate["original"],
    }
    print(write("cifar_resnet20", summary, certificate["study"], [certificate["seed"]], time.monotonic() - started))


if __name__ == "__main__":
    main()

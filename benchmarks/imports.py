"""What `import slimline` adds to `import torch`, in fresh processes that take turns."""

import subprocess
import sys
import time

import numpy as np

from record import write

REPEATS = 9
CODE = "import time, torch; t = time.perf_counter(); {} ; print(time.perf_counter() - t)"
LOADS = {
    "import slimline": "import slimline",
    "import slimline and use the public names": "import slimline as s; s.Task, s.Budget, s.load, s.Recipe, s.optimize",
}


def main() -> None:
    """Median and range of the added seconds."""
    started = time.monotonic()
    rows = []
    for repeat in range(REPEATS):
        for what, load in LOADS.items():
            command = [sys.executable, "-c", CODE.format(load)]
            output = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"what": what, "repeat": repeat, "seconds": float(output.stdout)})
    summary = {}
    for what, key in zip(LOADS, ("import_seconds", "all_names_seconds"), strict=True):
        seconds = [r["seconds"] for r in rows if r["what"] == what]
        summary |= {key: round(float(np.median(seconds)), 4), f"{key}_most": round(max(seconds), 4), "n": len(seconds)}
    print(write("imports", summary, rows, [0], time.monotonic() - started))


if __name__ == "__main__":
    main()

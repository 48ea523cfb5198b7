"""Imports damaged copies of files one after another, with an end to its memory; started by test_fuzz.py.

    python fuzz_worker.py FOLDER FIRST COUNT

FOLDER holds NAME.onnx and NAME.npz, example inputs; each seed takes the next file, and every other one the examples.
Prints ``SEED network`` or ``SEED refused 'SENTENCE'``, and lets an exception that nobody foresaw end the process.
"""

import faulthandler
import resource
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from slimline.errors import SlimlineError
from slimline.sources.onnx.network import from_onnx
from tests.sources.onnx.mutations import mutate

MEMORY = 6 * 2**30
"""Bytes of address space beyond what the process has when it begins."""


def main(folder: Path, first: int, count: int) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")  # of numpy, about numbers that overflow
    torch.set_num_threads(1)
    files = sorted(folder.glob("*.onnx"))
    (folder / "damaged").mkdir(exist_ok=True)
    limit_memory()
    for seed in range(first, first + count):
        file = files[seed % len(files)]
        path = folder / "damaged" / file.name
        path.write_bytes(mutate(file.read_bytes(), seed))
        with np.load(file.with_suffix(".npz")) as arrays:
            data = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        print(seed, end=" ", flush=True)
        try:
            from_onnx(path, data if seed // len(files) % 2 else None)
        except SlimlineError as error:
            print(f"refused {str(error)!r}", flush=True)
        else:
            print("network", flush=True)


def limit_memory() -> None:
    """From here on a large allocation fails instead of slowing down the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

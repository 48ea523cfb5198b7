"""Imports damaged copies of a file one after another, with an end to its memory; started by test_fuzz.py.

    python fuzz_worker.py FILE FOLDER FIRST COUNT [DATA.npz]

Prints ``SEED network``, ``SEED refused SENTENCE``, or lets the exception that nobody foresaw end the process.
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


def main(file: str, folder: str, first: str, count: str, data_file: str = "") -> None:
    faulthandler.enable()
    torch.set_num_threads(1)
    content, path = Path(file).read_bytes(), Path(folder) / "model.onnx"
    data = None
    if data_file:
        with np.load(data_file) as arrays:
            data = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    limit_memory()
    warnings.simplefilter("ignore")  # of numpy, about numbers that overflow
    for seed in range(int(first), int(first) + int(count)):
        print(seed, end=" ", flush=True)
        path.write_bytes(mutate(content, seed))
        try:
            from_onnx(path, data if seed % 2 else None)
        except SlimlineError as error:
            print(f"refused {str(error)!r}", flush=True)
        else:
            print("network", flush=True)


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main(*sys.argv[1:])

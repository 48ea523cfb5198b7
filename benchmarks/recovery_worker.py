"""What benchmarks/recovery.py measures in a process of its own: peak memory, and the speed of several processes.

python benchmarks/recovery_worker.py memory {base,original,student,distill}
torchrun --nproc-per-node 2 benchmarks/recovery_worker.py scale STEPS
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import slimline as sl
from slimline.demo.job import HERE, task
from slimline.methods.distill.distill import Distill
from slimline.network.network import Network
from slimline.task import Samples, Task
from slimline.training.batch import Batch
from slimline.training.engine import leave_processes, processes
from slimline.training.epochs import Epochs
from slimline.training.layout import channels_last_
from slimline.training.plan import Plan
from slimline.training.recover import recover
from slimline.training.views import Views

BATCH, STEPS, KEEP = 128, 40, 0.5
RATE = 0.05


def student_network() -> Network:
    """The demo network at half of every width: about a quarter of the MACs."""
    return sl.PruneChannels(keep=KEEP, importance="l1").apply(sl.load(HERE / "network.slim")).network


def samples() -> Samples:
    """The demo's 20,000 training images and labels."""
    train = task().train
    return Samples({"image": train["image"]}, train["labels"])


def cross_entropy(outputs: tuple[torch.Tensor, ...], batch: Batch) -> torch.Tensor:
    """Loss by labels alone."""
    assert batch.labels is not None
    return F.cross_entropy(outputs[0], batch.labels)


def labelled(data: Samples) -> Epochs:
    """Batches without a teacher."""
    views = Views(data.tensors())
    assert data.labels is not None
    labels = torch.from_numpy(data.labels.astype(np.int64))
    return Epochs(views, torch.zeros(1, len(data), 1), "labels", BATCH, labels)


def plain_training(network: Network, data: Samples, steps: int) -> None:
    """A loop as any PyTorch tutorial has it."""
    trained = channels_last_(network.copy().set_training_(True))
    optimizer = torch.optim.SGD(trained.module.parameters(), RATE, momentum=0.9, nesterov=True)
    images, labels = torch.from_numpy(data.inputs["image"]), torch.from_numpy(np.asarray(data.labels))
    for step in range(steps):
        index = torch.from_numpy(np.random.default_rng(step).integers(0, len(data), BATCH))
        loss = F.cross_entropy(
            trained.module(images[index].contiguous(memory_format=torch.channels_last))[0], labels[index]
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def memory(what: str) -> None:
    """Peak resident bytes of this process after doing one thing."""
    data = samples().take(slice(0, 5000))
    original = sl.load(HERE / "network.slim")
    if what == "original":
        images = torch.from_numpy(data.inputs["image"][: BATCH * 8])
        for start in range(0, len(images), BATCH):
            original.run({"image": images[start : start + BATCH]})
    if what == "student":
        plain_training(student_network(), data, STEPS)
    if what == "distill":
        job = Task(validate=data.take(slice(0, 100)), train=data, score="accuracy").with_original(original)
        epochs = STEPS * BATCH / len(data)
        Distill(epochs=epochs, batch=BATCH, label_weight=0.3, judgements=0).apply(student_network(), job)
    # Not from getrusage, which counts what the parent had before this program began.
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    peak = int(line.split()[1]) * 1024
    print(json.dumps({"what": what, "peak_bytes": peak}))


def scale(steps: int) -> None:
    """Seconds of so many training steps, shared by the processes that the launcher started."""
    torch.set_num_threads(1)
    batches, network = labelled(samples()), student_network()
    recover(network, batches, cross_entropy, Plan(3, RATE))
    started = time.monotonic()
    recover(network, batches, cross_entropy, Plan(steps, RATE))
    seconds = time.monotonic() - started
    leave_processes()
    if processes()[0] == 0:
        print(json.dumps({"processes": processes()[1], "seconds": seconds, "steps": steps}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    if sys.argv[1] == "memory":
        memory(sys.argv[2])
    else:
        scale(int(sys.argv[2]))

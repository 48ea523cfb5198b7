"""What keeps recovery from over-fitting a small calibration set: 500 images, the same number of steps, three seeds.

The demo network at half of every width learns from 500 unlabelled images as they are, from views of them that kornia
makes, and with maps of attention beside the logits. Scored on the 10,000 test images; the loss on the training images
and on the test images shows who learnt them by heart.
"""

import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import recovery_worker as worker
import slimline as sl
from record import write
from slimline.demo.job import HERE, task
from slimline.measure.machine import usable_cores
from slimline.network.network import Network
from slimline.task import Samples, Task

IMAGES, STEPS, BATCH, RATE = 500, 400, 50, 0.02
WAYS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "mirrored and shifted": {"augment": "image", "views": 0},
    "mirrored, shifted, rotated, scaled, erased": {"augment": "image,rotate,scale,erase", "views": 0},
    "as they are, maps of attention": {"map_weight": 100.0},
    "mirrored and shifted, maps of attention": {"augment": "image", "views": 0, "map_weight": 100.0},
}
SEEDS = (0, 1, 2)


def main() -> None:
    """Every way with every seed."""
    started = time.monotonic()
    torch.set_num_threads(usable_cores())
    original, student, train = sl.load(HERE / "network.slim"), worker.student_network(), worker.samples()
    test = task().validate
    test = Samples({"image": test["image"]}, test["labels"])
    teacher = answers(original, test)
    rows = []
    for seed in SEEDS:
        few = train.take(np.random.default_rng(seed).choice(len(train), IMAGES, replace=False))
        few = Samples(few.inputs)
        taught = answers(original, few)
        for name, settings in WAYS.items():
            chosen = {key: value for key, value in settings.items() if key != "augment"}
            job = Task(validate=test.take(slice(0, 100)), train=few, augment=settings.get("augment", ""))
            method = sl.Distill(
                epochs=STEPS * BATCH / IMAGES, batch=BATCH, learning_rate=RATE, judgements=0, seed=seed, **chosen
            )
            trained = method.apply(student, job.with_original(original)).network
            given, seen = answers(trained, test), answers(trained, few)
            rows.append(
                {
                    "images": name,
                    "seed": seed,
                    "accuracy": 100 * float((given.argmax(1).numpy() == test.labels).mean()),
                    "kl_train": divergence(seen, taught),
                    "kl_test": divergence(given, teacher),
                }
            )
            print(rows[-1], flush=True)
    whole = 100 * float((teacher.argmax(1).numpy() == test.labels).mean())
    summary: dict[str, Any] = {
        "training_images": IMAGES,
        "steps": STEPS,
        "seeds": len(SEEDS),
        "accuracy_original": whole,
    }
    for name in WAYS:
        mine = [row for row in rows if row["images"] == name]
        for key in ("accuracy", "kl_train", "kl_test"):
            summary[f"{name}: {key}"] = float(np.mean([row[key] for row in mine]))
        summary[f"{name}: accuracy spread"] = float(np.std([row["accuracy"] for row in mine], ddof=1))
    write("augmentation", summary, rows, list(SEEDS), time.monotonic() - started)


def answers(network: Network, samples: Samples) -> torch.Tensor:
    """Logits of all samples."""
    images = torch.from_numpy(samples.inputs["image"])
    return torch.cat([network.run({"image": part})[0] for part in images.split(256)])


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """KL from the teacher's answers to the student's, in nats per image."""
    return float(F.kl_div(student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean"))


if __name__ == "__main__":
    main()

"""A certificate as a real run would leave it: 15 trials, 10 layers, 6 groups, 4 trainings, a small image network."""

import json
from math import cos, exp, pi
from typing import Any

from slimline.report.certificate import Certificate

FOLD, QUANT = "FoldBatchNorm()", "QuantizeStatic(observer=mse)"
WIDTHS = "PruneChannels(widths={'stem': 16, 'stage1': 24, 'stage2': 48, 'stage3': 112, 'block1': 16, 'block2': 40})"


def _prune(keep: float) -> str:
    return f"PruneChannels(keep={keep})"


def _distill(epochs: int) -> str:
    return f"DistillLogits(epochs={epochs})"


def _narrow(keep: float) -> list[str]:
    return [FOLD, _prune(keep), _distill(2), QUANT]


# trial, stage, runtime, precision, recipe, search score, ms, bytes, macs, seconds, status, why
ROWS: list[tuple[Any, ...]] = [
    (0, "originals", "torch", "fp32", [], 0.9142, 1.281, 4_931_204, 40_814_592, 3.1, "original", None),
    (1, "originals", "onnxruntime", "fp32", [], 0.9142, 0.5731, 4_935_880, 40_814_592, 4.0, "original", None),
    (2, "originals", "openvino", "fp32", [], 0.9142, 0.5519, 4_951_331, 40_814_592, 4.4, "original", None),
    (3, "free moves", "onnxruntime", "fp32", [FOLD], 0.9142, 0.5488, 4_897_003, 40_814_592, 3.8, "kept", None),
    (4, "free moves", "openvino[bf16]", "bf16", [FOLD], 0.9139, 0.4106, 4_951_331, 40_814_592, 4.1, "kept", None),
    (5, "int8", "onnxruntime", "int8", [FOLD, QUANT], 0.9127, 0.2874, 1_263_940, 40_814_592, 9.6, "kept", None),
    (6, "int8", "openvino", "int8", [FOLD, QUANT], 0.9131, 0.2562, 1_281_777, 40_814_592, 10.2, "finalist", None),
    (7, "widths", "onnxruntime", "fp32", [FOLD, _prune(0.75), _distill(2)], 0.9118, 0.3391, 2_802_446, 23_330_816, 61.0,
     "dropped", "trial 6 is faster and better"),
    (8, "widths", "openvino", "int8", _narrow(0.75), 0.9104, 0.1894, 741_220, 23_330_816, 64.8, "kept", None),
    (9, "widths", "openvino", "int8", _narrow(0.5), 0.9073, 0.1302, 392_115, 10_616_832, 62.2, "kept", None),
    (10, "widths", "openvino", "int8", _narrow(0.375), 0.8983, 0.0978, 246_802, 6_193_152, 58.7,
     "dropped", "lost 1.59 points on the search split"),
    (11, "widths", "openvino", "int8", _narrow(0.125), 0.7415, 0.0611, 91_077, 1_179_648, 55.3,
     "dropped", "lost 17.27 points on the search split"),
    (12, "widths", "onnxruntime", "int8", _narrow(0.45), 0.9058, 0.1420, 343_518, 8_958_976, 63.1,
     "dropped", "trial 9 is faster and better"),
    (13, "widths", "openvino", "int8", [FOLD, WIDTHS, _distill(12), QUANT], 0.9121, 0.1120, 432_640, 8_204_288, 148.9,
     "best", None),
    (14, "widths", "openvino[bf16]", "bf16", [FOLD, _prune(0.45)], None, None, 1_355_020, 8_958_976, 12.4,
     "dropped", "the export failed: openvino has no bf16 kernel for a layer of 57 channels"),
]  # fmt: skip

SENTENCE = (
    "PASS: 4.9 times faster than the original in its best runtime (openvino, fp32) and 11.4 times smaller; it loses "
    "0.21 points of accuracy on labels, at most 0.74 with 95 % confidence on 3500 samples that the search never read; "
    "1 points were allowed."
)

LAYERS: list[tuple[Any, ...]] = [
    ("stem", "conv2d", [32, 3, 3, 3], [16, 3, 3, 3], 884_736, 442_368, 3_584, 496, None),
    ("stage1.0.conv1", "conv2d", [64, 32, 3, 3], [24, 16, 3, 3], 4_718_592, 884_736, 73_984, 3_552, None),
    ("stage1.0.conv2", "conv2d", [64, 64, 3, 3], [24, 24, 3, 3], 9_437_184, 1_327_104, 147_712, 5_280, None),
    (
        "stage1.0.shortcut",
        "conv2d",
        [64, 32, 1, 1],
        [24, 16, 1, 1],
        524_288,
        98_304,
        8_448,
        480,
        "follows stage1.0.conv2",
    ),
    ("stage2.0.conv1", "conv2d", [128, 64, 3, 3], [48, 24, 3, 3], 4_718_592, 663_552, 295_424, 10_560, None),
    ("stage2.0.conv2", "conv2d", [128, 128, 3, 3], [48, 40, 3, 3], 9_437_184, 1_105_920, 590_336, 17_472, None),
    ("stage2.0.shortcut", "conv2d", [128, 64, 1, 1], [48, 24, 1, 1], 524_288, 73_728, 33_280, 1_344, None),
    ("stage3.0.conv1", "conv2d", [256, 128, 3, 3], [112, 48, 3, 3], 4_718_592, 774_144, 1_180_672, 48_832, None),
    ("stage3.0.dead", "conv2d", [256, 128, 1, 1], None, 524_288, None, 132_096, None, "no output depends on it"),
    ("head", "linear", [10, 256], [10, 112], 2_560, 1_120, 10_280, 1_160, "the classes stay"),
]

GROUPS: list[tuple[Any, ...]] = [
    ("stem", 32, ["stem"], [(8, 1.42), (16, 0.31), (24, 0.09), (32, 0.0)], 0.00091),
    ("stage1", 64, ["stage1.0.conv2", "stage1.0.shortcut"], [(16, 0.88), (32, 0.21), (48, 0.05), (64, 0.0)], 0.00213),
    ("stage2", 128, ["stage2.0.conv2", "stage2.0.shortcut"], [(32, 0.61), (64, 0.18), (96, 0.04), (128, 0.0)], 0.00108),
    ("stage3", 256, ["stage3.0.conv1"], [(64, 0.29), (128, 0.06), (192, 0.01), (256, 0.0)], 0.00052),
    ("block1", 64, ["stage1.0.conv1"], [(16, 0.47), (32, 0.11), (48, 0.03), (64, 0.0)], 0.00187),
    ("block2", 128, ["stage2.0.conv1"], [(32, 0.33), (64, 0.08), (96, 0.02), (128, 0.0)], None),
]  # fmt: skip


def curve_data(name: str, steps: int, trial: int | None, start: float, end: float, /, **changes: Any) -> dict[str, Any]:
    """A training run as the JSON holds it: a falling loss every 20 steps, and 5 scores from ``start`` to ``end``."""
    windows = list(range(20, steps + 1, 20))
    judged = [0, *(steps * k // 4 // 20 * 20 for k in (1, 2, 3, 4))]
    return {
        "name": name,
        "trial": trial,
        "method": f"DistillLogits(epochs={steps // 200}, temperature=4.0)",
        "samples": 50_000,
        "device": "cpu",
        "precision": "bf16",
        "seconds": steps / 16,
        "planned": steps,
        "steps": windows,
        "losses": [0.04 + exp(-4 * step / steps) for step in windows],
        "rates": [0.05 * (1 + cos(pi * step / steps)) / 2 for step in windows],
        "sparsity": [0.0] * len(windows),
        "judged": judged,
        "scores": [end - (end - start) * exp(-5 * step / steps) for step in judged],
        "original": None,
        "notes": [],
    } | changes


def training_data() -> list[dict[str, Any]]:
    """Two short recoveries of pruned networks, the long one of the best, and one that exploded before it was judged."""
    windows = {"steps": [20, 40], "rates": [0.5, 0.5], "sparsity": [0.0, 0.0], "judged": [], "scores": []}
    exploded = "the loss exploded at step 40: the learning rate of 0.5 is too high."
    return [
        curve_data("t8 after pruning", 400, 8, 0.871, 0.9104),
        curve_data("t11 after pruning", 400, 11, 0.102, 0.7415),
        curve_data("t13 after pruning", 2400, 13, 0.742, 0.9123, sparsity=[0.25] * 120),
        curve_data("as fast as it can be", 400, None, 0, 0, losses=[3.0, 1e30], notes=[exploded], **windows),
    ]


def _study() -> list[dict[str, Any]]:
    names = (
        "trial",
        "stage",
        "runtime",
        "precision",
        "recipe",
        "score",
        "latency_ms",
        "size_bytes",
        "macs",
        "seconds",
        "status",
        "why",
    )
    rows = [dict(zip(names, row, strict=True)) for row in ROWS]
    return [row | {"drop": None if row["score"] is None else round(0.9142 - row["score"], 6)} for row in rows]


def _result(trial: int, measured: bool) -> dict[str, Any]:
    row = _study()[trial]
    drop = row["drop"]
    ratio = 0.5519 / row["latency_ms"]
    result = {
        **{name: row[name] for name in ("trial", "runtime", "precision", "recipe", "size_bytes", "macs", "latency_ms")},
        "artifact": "best/model.xml" if trial == 13 else f"front/{trial}/model.xml",
        "sha256": f"{trial:02x}" * 32,
        "size_ratio": 4_931_204 / row["size_bytes"],
        "parameters": row["macs"] // 33,
        "memory_bytes": 91_204_000 if measured else None,
        **{"score": 0.9109, "drop": drop, "drop_lower": drop - 0.0053, "drop_upper": drop + 0.0053},
        **{
            "speedup": 1.281 / row["latency_ms"],
            "speedup_low": 1.22 / row["latency_ms"],
            "speedup_high": 1.34 / row["latency_ms"],
        },
        "speedup_vs_best_original": ratio,
        "speedup_vs_best_original_low": ratio * 0.955,
        "speedup_vs_best_original_high": ratio * 1.047,
        "speedup_vs_int8_only": 0.2562 / row["latency_ms"],
        "speedup_vs_int8_only_low": 0.2562 / row["latency_ms"] * 0.96,
        "speedup_vs_int8_only_high": 0.2562 / row["latency_ms"] * 1.04,
    }
    if not measured:
        unmeasured = ["score", "drop", "drop_lower", "drop_upper"]
        unmeasured += [f"{name}{end}" for name in ("speedup", "speedup_vs_int8_only") for end in ("", "_low", "_high")]
        result |= dict.fromkeys(unmeasured)
    return result


def certificate_data() -> dict[str, Any]:
    """The certificate as the JSON holds it; change what a test needs and give it to `certificate`."""
    layer = (
        "name",
        "kind",
        "shape_before",
        "shape_after",
        "macs_before",
        "macs_after",
        "bytes_before",
        "bytes_after",
        "note",
    )
    best = _result(13, True) | {"drop": 0.0021, "drop_lower": -0.0032, "drop_upper": 0.0074}
    return {
        "verdict": "PASS",
        "sentence": SENTENCE,
        "limits": [],
        "budget": {"max_drop": 0.01, "minimize": "latency", "max_latency_ms": None, "max_size_bytes": None,
                   "min_speedup": None, "time_s": 600.0},
        "seed": 0,
        "seconds": 581.2,
        "trials": 15,
        "task": {"score": "accuracy", "labels": True, "what": "accuracy on labels"},
        "original": {"score": 0.9130, "size_bytes": 4_931_204, "macs": 40_814_592, "parameters": 1_228_106,
                     "latency_ms": {"torch": 1.281, "onnxruntime": 0.5731, "openvino": 0.5519}},
        "best": best,
        "front": [best, _result(9, False), _result(8, False), _result(6, True), _result(4, False), _result(3, False)],
        "splits": {"calibrate": 1024, "search": 1500, "certify": 3500},
        "noise": {"aa_ratio_low": 0.985, "aa_ratio_high": 1.016},
        "machine": {"cpu": "AMD EPYC 9554 64-Core Processor", "cores": 2, "threads": 2, "memory_bytes": 8_321_499_136,
                    "os": "Linux-6.1-x86_64-with-glibc2.36", "batch": 1, "launches": 7, "python": "3.11.9",
                    "instructions": ["avx2", "avx512_vnni"]},
        "versions": {"slimline": "0.1.0", "torch": "2.13.0", "onnx": "1.23.0", "onnxruntime": "1.31.0",
                     "openvino": "2026.4.0"},
        "hashes": {"network": "a3" * 32, "data": "5c" * 32},
        "discarded": [[7, "trial 6 is faster and better"], [14, "the export failed twice"],
                      [99, "the same network as trial 9"]],
        "study": _study(),
        "layers": [dict(zip(layer, row, strict=True)) for row in LAYERS],
        "sensitivity": [
            {"group": group, "width": width, "layers": layers, "ms_per_channel": ms,
             "options": [{"width": w, "damage": d} for w, d in options]}
            for group, width, layers, options, ms in GROUPS
        ],
        "training": training_data(),
    }  # fmt: skip


def certificate(data: dict[str, Any] | None = None) -> Certificate:
    """The certificate of `certificate_data`, read the way a file is read."""
    return Certificate.model_validate_json(json.dumps(certificate_data() if data is None else data))


def hostile(name: str) -> str:
    """A name that breaks out of text, attributes, scripts, styles, comments and JSON wherever it is not escaped."""
    breakout = "</script></style></title>--></textarea><script>alert(1)</script><img src=x onerror=alert(2)>"
    return f'{name} "\' onmouseover=alert(3) x="{breakout}{{{{ 7 * 7 }}}}\N{LINE SEPARATOR}\\u003c&lt;'


def hostile_data() -> dict[str, Any]:
    """The same certificate with a hostile string wherever a free string is allowed."""
    data = certificate_data()
    data |= {"sentence": hostile("sentence"), "discarded": [[t, hostile(why)] for t, why in data["discarded"]]}
    data["task"] |= {"what": hostile("what")}
    data["original"]["latency_ms"] = {hostile(name): ms for name, ms in data["original"]["latency_ms"].items()}
    data["best"] |= {name: hostile(name) for name in ("precision", "artifact", "sha256")}
    data["best"] |= {"runtime": hostile("openvino"), "recipe": [hostile(line) for line in data["best"]["recipe"]]}
    data["machine"] |= {"cpu": hostile("cpu"), "os": hostile("os"), "instructions": [hostile("avx2")]}
    data["machine"][hostile("python")] = data["machine"].pop("python")
    data["versions"] = {hostile(k) if k != "slimline" else k: hostile(v) for k, v in data["versions"].items()}
    data["hashes"] = {name: hostile(name) for name in data["hashes"]}
    for trial in data["study"]:
        trial |= {name: hostile(trial[name]) for name in ("stage", "runtime", "precision")}
        trial |= {"recipe": [hostile("recipe") for _ in trial["recipe"]], "why": trial["why"] and hostile("why")}
    for layer in data["layers"]:
        layer |= {"name": hostile(f"layer {layer['name']}"), "kind": hostile("kind"), "note": hostile("note")}
    for group in data["sensitivity"]:
        group |= {"group": hostile(group["group"]), "layers": [hostile(name) for name in group["layers"]]}
    for curve in data["training"]:
        curve |= {name: hostile(curve[name]) for name in ("name", "method", "device", "precision")}
        curve |= {"notes": [hostile("note") for _ in curve["notes"]]}
    return data

"""The PP-OCRv4 text recogniser, from its ONNX file alone, on rendered text: a job for `slimline optimize`.

    slimline optimize benchmarks/pp_ocr_job.py --max-drop 0.5% --time 20m --runtimes openvino

The file comes from PyPI rapidocr-onnxruntime 1.4.4 (Apache-2.0) and is looked up in ../shared/data/pp-ocr. Text is cut
from the movie reviews of vaderSentiment (../shared/data/vader-movie) and drawn with the DejaVu fonts (Debian package
fonts-dejavu) in sizes, shades and slight noise chosen at random, so that the truth is known. Recovery uses further
pictures without their text.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import slimline as sl
from slimline.errors import SlimlineError

SHARED = Path(__file__).parents[2] / "shared" / "data"
FILE = SHARED / "pp-ocr" / "ch_PP-OCRv4_rec_infer.onnx"
REVIEWS = SHARED / "vader-movie" / "movieReviewSnippets_GroundTruth.txt"
FONTS = Path("/usr/share/fonts/truetype/dejavu")
HEIGHT, WIDTH = 48, 320
LONGEST = 24
"""Characters of a line at most."""
VALIDATE, TRAIN = 4000, 4000
Array = NDArray[Any]


def model() -> Path:
    """The network as it came."""
    return FILE


def task() -> sl.Task:
    """Character accuracy on rendered lines; as many others without text for recovery."""
    pictures, texts = rendered(VALIDATE, seed=0)
    more, _ = rendered(TRAIN, seed=1)
    return sl.Task(validate={"x": pictures, "labels": coded(texts)}, train={"x": more}, score=character_accuracy)


def alphabet() -> list[str]:
    """Class 0 is the blank; the others are the characters in the file's metadata, and the space."""
    entries = {entry.key: entry.value for entry in onnx.load(FILE).metadata_props}
    return ["", *entries["character"].splitlines(), " "]


def lines(count: int, rng: np.random.Generator) -> list[str]:
    """Pieces of review of at most `LONGEST` characters, cut at spaces."""
    known = set(alphabet())
    if not REVIEWS.is_file():
        raise SlimlineError(f"{REVIEWS} does not exist: this benchmark reads ../shared/data.")
    reviews = [row.split("\t")[2] for row in REVIEWS.read_text(encoding="latin-1").splitlines()]
    found: list[str] = []
    while len(found) < count:
        words = reviews[int(rng.integers(len(reviews)))].split()
        start = int(rng.integers(len(words)))
        line, longest = "", int(rng.integers(4, LONGEST + 1))
        for word in words[start:]:
            if len(line) + len(word) + 1 > longest:
                break
            line = f"{line} {word}".strip()
        if len(line) >= 2 and set(line) <= known and "''" not in line:  # which is drawn like a quotation mark
            found.append(line)
    return found


def rendered(count: int, seed: int) -> tuple[Array, list[str]]:
    """(count, 3, 48, 320) pictures in [-1, 1] as the recogniser takes them, and what they say."""
    rng = np.random.default_rng(seed)
    texts = lines(count, rng)
    fonts = {(f, s): ImageFont.truetype(str(f), s) for f in sorted(FONTS.glob("DejaVu*.ttf")) for s in (26, 30, 34)}
    if not fonts:
        raise SlimlineError(f"{FONTS} holds no DejaVu fonts: install the Debian package fonts-dejavu.")
    return np.stack([picture(text, list(fonts.values()), rng) for text in texts]), texts


def picture(text: str, fonts: list[Any], rng: np.random.Generator) -> Array:
    """One line, dark on light or light on dark, squeezed into the width or padded by zeros."""
    font = fonts[int(rng.integers(len(fonts)))]
    left, top, right, bottom = font.getbbox(text)
    paper, ink = (int(rng.integers(170, 256)), int(rng.integers(0, 90)))
    if rng.random() < 0.2:
        paper, ink = ink, paper
    pad = int(rng.integers(3, 8))
    image = Image.new("L", (right - left + 2 * pad, bottom - top + 2 * pad), paper)
    ImageDraw.Draw(image).text((pad - left, pad - top), text, fill=ink, font=font)
    width = min(WIDTH, max(16, round(HEIGHT * image.width / image.height)))
    grey = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), dtype=np.float32)
    grey = np.clip(grey + rng.normal(0, rng.uniform(0, 8), grey.shape), 0, 255).astype(np.float32)
    canvas = np.zeros((3, HEIGHT, WIDTH), dtype=np.float32)
    canvas[:, :, :width] = grey / 127.5 - 1.0
    return canvas


def coded(texts: list[str]) -> Array:
    """(count, LONGEST) class numbers, 0 behind the end."""
    number = {character: i for i, character in enumerate(alphabet())}
    rows = np.zeros((len(texts), LONGEST), dtype=np.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = [number[character] for character in text]
    return rows


def character_accuracy(outputs: list[Array], labels: Array) -> Array:
    """1 - edit distance / length of the truth, at least 0, per line; greedy CTC decoding of (N, T, classes)."""
    best = outputs[0].argmax(2)
    scores = []
    for path, truth in zip(best, labels, strict=True):
        changed = np.concatenate([[True], path[1:] != path[:-1]])
        read = [int(c) for c in path[changed] if c != 0]
        wanted = [int(c) for c in truth if c != 0]
        scores.append(max(0.0, 1.0 - edit_distance(read, wanted) / len(wanted)))
    return np.array(scores)


def edit_distance(a: list[int], b: list[int]) -> int:
    """Levenshtein (1966): fewest insertions, deletions and replacements."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]

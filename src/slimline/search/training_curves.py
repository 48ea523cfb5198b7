"""Training runs as a certificate lists them."""

from typing import Any

from slimline.training.curve import Curve


def trained_by(method: str, curve: Curve, samples: int) -> dict[str, Any]:
    """One training run: what the curve says, the method's line, and how many samples it had."""
    told = curve.as_json()
    for unpublished in ("start", "processes"):
        told.pop(unpublished)
    return {"method": method, "samples": samples, **told}

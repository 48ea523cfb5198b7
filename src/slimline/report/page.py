"""What every page shares: one file that loads nothing, escapes every string and runs no script but its own."""

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from slimline.report import wording

FILTERS = ("milliseconds", "size", "count", "ratio", "score", "drop", "duration", "shape", "significant")


def fill(template: str, **values: object) -> str:
    """The page ``template`` of this package with its style, its script and the hash by which its policy knows it."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_package_text),
    )
    environment.filters |= {name: getattr(wording, name) for name in FILTERS}
    script = _package_text("report.js") + _package_text("training.js")
    return environment.get_template(template).render(
        style=_package_text("report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def _package_text(name: str) -> str:
    return files("slimline.report").joinpath(name).read_text(encoding="utf-8")

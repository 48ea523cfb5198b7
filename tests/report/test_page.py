"""What every page shares: its policy knows its one script, and a string never becomes markup."""

import base64
import hashlib
import re

from slimline.report import page
from slimline.report.training import section
from tests.report.fixture import certificate, hostile


def _standalone(title: str) -> str:
    training = section(certificate().training, "accuracy", None, None)
    return page.fill("training.html.jinja", title=title, training=training, seconds=1.0)


def test_the_policy_names_the_script_by_its_hash_and_forbids_all_else() -> None:
    html = _standalone("title")
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == f"'sha256-{digest}'"
    assert set(rules) - {"default-src", "script-src"} == {"style-src", "img-src", "base-uri", "form-action"}


def test_strings_are_escaped_in_the_title_and_in_the_body() -> None:
    calm, attacked = _standalone("title"), _standalone(hostile("title"))
    assert re.findall(r"<[a-z/!]+", attacked) == re.findall(r"<[a-z/!]+", calm)
    assert "{{ 7 * 7 }}" in attacked

"""`report.html`: one file with everything in it. It loads nothing, sends nothing and prints well."""

from pathlib import Path
from typing import Any

from slimline.report import comparison, drawing, page, training, wording
from slimline.report.certificate import Certificate, StudyTrial, replace_file

BADGES = {"PASS": ("pass", "\N{CHECK MARK}"), "FAIL": ("fail", "\N{MULTIPLICATION X}"), "CAN'T TELL": ("open", "?")}
"""CSS class and sign of a verdict; the sign says it without colour."""


def write_report(certificate: Certificate, path: Path) -> None:
    """Write the page of a certificate to ``path``; a crash leaves the old file or the new one.

    Every string of the certificate is escaped; the page's own policy forbids any script but its own, and any request.

    Raises:
        SlimlineError: the file cannot be written.
    """
    replace_file(path, render(certificate))


def render(certificate: Certificate) -> str:
    """The page as text."""
    return page.fill(
        "report.html.jinja",
        c=certificate,
        headline=comparison.headline(certificate),
        badge=BADGES[certificate.verdict.value],
        asked=comparison.asked(certificate),
        figures=comparison.figures(certificate),
        rows=comparison.comparison(certificate),
        speeds=comparison.speed_rows(certificate),
        front=drawing.front(certificate),
        colours=drawing.colour_of(certificate),
        shapes=drawing.shape_of(certificate),
        bars=drawing.bars(certificate.layers),
        curves=drawing.curves(certificate.sensitivity),
        trials=_trials(certificate),
        unlisted=_unlisted(certificate),
        machine=_machine(certificate),
        training=_training(certificate),
        linked={t.trial for t in certificate.study},
    )


def _training(certificate: Certificate) -> training.Section | None:
    """The curves of the study, against the original's score on the split on which they were judged."""
    original = next((t.score for t in certificate.study if not t.recipe and t.score is not None), None)
    return training.section(certificate.training, certificate.task.score, original, certificate.budget.max_drop)


def _trials(certificate: Certificate) -> list[tuple[StudyTrial, str]]:
    """Every trial with all the reasons known for dropping it."""
    reasons: dict[int, list[str]] = {}
    for trial, why in certificate.discarded:
        reasons.setdefault(trial, []).append(why)
    return [
        (t, "; ".join(dict.fromkeys([*([t.why] if t.why else []), *reasons.get(t.trial, [])])))
        for t in certificate.study
    ]


def _unlisted(certificate: Certificate) -> list[tuple[int, str]]:
    """Discarded trials that the study does not list: shown all the same."""
    listed = {t.trial for t in certificate.study}
    return [(trial, why) for trial, why in certificate.discarded if trial not in listed]


def _machine(certificate: Certificate) -> list[tuple[str, str]]:
    machine = certificate.machine
    facts: dict[str, Any] = {
        "processor": machine.cpu,
        "cores": machine.cores,
        "threads used": machine.threads,
        "memory": wording.size(machine.memory_bytes),
        "operating system": machine.os,
        "batch": machine.batch,
    }
    if machine.launches is not None:
        facts["launches"] = machine.launches
    for name, value in (machine.model_extra or {}).items():
        facts[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return [(name, str(value)) for name, value in facts.items()]

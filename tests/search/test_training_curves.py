"""A training run in a certificate says what the curve says."""

from slimline.report.certificate import TrainingCurve
from slimline.search.training_curves import trained_by
from slimline.training.curve import Curve


def test_a_curve_becomes_what_a_certificate_reads() -> None:
    curve = Curve(planned=60, precision="bf16", judged=[0, 40], scores=[0.5, 0.9], notes=["ended early."], seconds=2.5)
    curve.add(20, 1.5, 0.01, 0.0)
    curve.add(40, 0.5, 0.02, 0.25)
    curve.start, curve.processes = 2.0, 4
    read = TrainingCurve(name="with labels", trial=3, **trained_by("Distill(epochs=2.0)", curve, 700))
    assert (read.method, read.samples, read.precision, read.device) == ("Distill(epochs=2.0)", 700, "bf16", "cpu")
    assert (read.steps, read.losses, read.rates, read.sparsity) == ([20, 40], [1.5, 0.5], [0.01, 0.02], [0.0, 0.25])
    assert (read.judged, read.scores, read.notes, read.planned) == ([0, 40], [0.5, 0.9], ["ended early."], 60)
    assert read.seconds == 2.5

"""A curve survives the way through JSON."""

import json

from slimline.training.curve import Curve


def test_a_curve_comes_back_from_json_as_it_was() -> None:
    curve = Curve(100, start=1 / 3, judged=[0, 5], scores=[0.1, 0.2], notes=["why"], seconds=1.5, precision="bf16")
    curve.add(20, 0.1 + 0.2, 1e-9, 0.25)
    curve.add(40, 1e300, 5e-324, 1.0)
    again = Curve(**json.loads(json.dumps(curve.as_json())))
    assert again == curve
    assert (again.steps, again.losses) == ([20, 40], [0.1 + 0.2, 1e300])
    assert (again.rates, again.sparsity) == ([1e-9, 5e-324], [0.25, 1.0])


def test_done_is_the_end_of_the_last_window() -> None:
    curve = Curve(25)
    assert curve.done == 0
    for step in (20, 25):
        curve.add(step, 1.0, 0.1, 0.0)
        assert curve.done == step


def test_curves_share_no_lists() -> None:
    one, other = Curve(), Curve()
    one.add(20, 1.0, 0.1, 0.0)
    one.notes.append("mine")
    copied = one.as_json()
    copied["losses"].append(7.0)
    assert other == Curve() and one.losses == [1.0]

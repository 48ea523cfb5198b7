import numpy as np
from onnx import helper

from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.site import Site
from tests.sources.onnx import models

node = helper.make_node


def site() -> Site:
    """(x * 2 / 8) * z, and x + 3."""
    nodes = [
        node("Mul", ["two", "x"], ["a"]), node("Div", ["a", "eight"], ["b"]), node("Mul", ["b", "z"], ["c"]),
        node("Add", ["x", "three"], ["d"]), node("Div", ["two", "x"], ["e"]),
    ]  # fmt: skip
    constants = {"two": np.float32(2), "eight": np.array([8.0], np.float32), "three": np.float32(3)}
    made = Site(build_graph(models.model(nodes, {"x": [2], "z": [2]}, ["c", "d", "e"], constants)))
    for item in made.graph.nodes:
        made.add(item)
    return made


def test_a_product_is_a_number_times_values() -> None:
    assert site().factors("c") == (0.25, ["x", "z"])


def test_a_number_divided_by_a_value_is_no_factor() -> None:
    assert site().factors("e") == (1.0, ["e"])


def test_a_sum_with_a_number_gives_the_other_summand() -> None:
    assert (site().plus("d", 3.0), site().plus("d", 2.0), site().plus("c", 3.0)) == ("x", None, None)


def test_readers_are_counted_with_outputs() -> None:
    assert [site().readers[name] for name in ("a", "c", "x")] == [1, 1, 3]


def test_a_constant_is_turned_once_and_named_afresh() -> None:
    made = site()
    made.constants["m"] = np.arange(6.0).reshape(2, 3)
    assert made.transposed("m") == made.transposed("m")
    np.testing.assert_array_equal(made.constants[made.transposed("m")], np.arange(6.0).reshape(2, 3).T)
    assert made.constant("m", np.zeros(1)) != "m"

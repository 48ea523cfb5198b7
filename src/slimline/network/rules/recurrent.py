"""Recurrent layers: one hidden size for all layers and directions, since their states are stacked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from slimline.network.calls import argument, called
from slimline.network.ids import Axes, Ids
from slimline.network.propagation import Propagation
from slimline.network.rules.rule import rule, unknown

aten = torch.ops.aten
GATES: dict[Any, int] = {aten.lstm.input: 4, aten.gru.input: 3, aten.rnn_tanh.input: 1, aten.rnn_relu.input: 1}


@rule(*GATES)
def recurrent(walk: Propagation, node: Node) -> Axes:
    """Weights (gates x hidden, inputs) and (gates x hidden, hidden) of every layer and direction."""
    x = walk.of(node.args[0])
    walk.keep_places(node, x[:-1])
    states = argument(node, 1)
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    weights: Sequence[Node] = list(argument(node, 2))
    biased, layers, bidirectional = bool(argument(node, 3)), int(argument(node, 4)), bool(argument(node, 7))
    directions, each = 2 if bidirectional else 1, 4 if biased else 2
    first = walk.of(weights[1])
    if len(weights) != layers * directions * each or not first or first[1] is None:  # with projections
        return unknown(walk, node)
    hidden, gates = first[1], GATES[node.target]
    reason = f"meets an axis that cannot be pruned in {called(node)}"
    inputs: Ids | None = x[-1]
    for layer in range(layers):
        for direction in range(directions):
            start = (layer * directions + direction) * each
            input_weight, hidden_weight, *biases = (walk.of(w) for w in weights[start : start + each])
            walk.tie(inputs, input_weight[1], "reads the network's input")
            walk.tie(hidden, hidden_weight[1], reason)
            for written in (input_weight, hidden_weight, *biases):
                walk.tie(np.tile(hidden, gates), written[0], reason)
        inputs = np.tile(hidden, directions)
    for state in states:
        walk.tie(walk.of(state)[-1], hidden, reason)
    stacked: Axes = [None, None, hidden]
    walk.parts[node.name] = [[None, None, inputs], *[list(stacked) for _ in states]]
    return []

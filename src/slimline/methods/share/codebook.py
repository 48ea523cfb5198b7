"""Weight sharing: every weight of a layer becomes one of a few values, and only their numbers are stored.

Han, Mao, Dally (2016). Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
Huffman Coding. arXiv:1510.00149, section 3.

    W[j] = c[n_j],   c, n = argmin  sum_j (W[j] - c[n_j])^2          k-means
    dL/dc_k = sum over j with n_j = k of dL/dW[j]                    their equation 3: training goes on with the c

Ours differs: the look-up stands in the graph, so that files store c and n, and a training step moves c and nothing
else, by the mean in place of the sum (`slimline.training.codebooks` says why); up to 16 (4, 2) clusters, two (four,
eight) n share a byte; k-means starts from c that lie as close as the cube root of the density of W has it, where many c
end (Panter, Dite 1951, Quantization distortion in pulse-count modulation with nonuniform spacing of levels), not from
evenly spaced ones, from which many clusters converge slowly; a cluster that nothing belongs to splits the one with the
largest error; where a tenth of the weights are zeros one c is zero, and stays it in training; no Huffman coding, which
no runtime reads.
Helps: the size of files, by nearly 8 with 16 clusters.  Does not: make anything faster, since runtimes look the weights
up once, when they load the file; what a layer needs in memory is what it was.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, check_names, param, register
from slimline.network.network import Network, get_tensor
from slimline.network.operators import WEIGHTED
from slimline.network.surgery import set_weight, unused_name
from slimline.task import Task
from slimline.training.keep_zeros import LEAST_SHARE
from slimline.training.workspace import Workspace

aten = torch.ops.aten
PACKED = {2: 8, 4: 4, 16: 2, 256: 1}
"""Clusters, at most -> numbers of clusters in one byte."""
READERS = {*WEIGHTED, aten.embedding.default, aten.matmul.default, aten.mm.default}


def kmeans(values: Tensor, clusters: int, iterations: int) -> Tensor:
    """The centres, sorted, float64: Lloyd's algorithm on sorted values, of which a cluster is a run.

    Args:
        values: (n,), finite.
    """
    ordered = values.double().sort().values
    before = torch.cat([ordered.new_zeros(2, 1), torch.stack([ordered, ordered.square()]).cumsum(1)], 1)
    centres = _start(ordered, clusters)
    ends = torch.tensor([0, len(ordered)])
    for _ in range(iterations):
        cuts = torch.cat([ends[:1], torch.searchsorted(ordered, bounds(centres)), ends[1:]])
        count, (sums, squares) = cuts.diff(), before[:, cuts].diff()
        means = torch.where(count > 0, sums / count.clamp_min(1), centres)
        if torch.equal(means, centres):
            errors = (squares - sums.square() / count.clamp_min(1)).clamp_min(0)
            means = _split(centres, count, errors)
            if torch.equal(means, centres):
                break
        centres = means
    return centres


def _start(ordered: Tensor, clusters: int) -> Tensor:
    """Centres as close as the cube root of the density, of which a histogram with a bin for each says enough."""
    edges = torch.linspace(float(ordered[0]), float(ordered[-1]), clusters + 1, dtype=torch.float64)
    inner = torch.searchsorted(ordered, edges[1:-1])
    counts = torch.cat([inner.new_zeros(1), inner, inner.new_tensor([len(ordered)])]).diff()
    reached = torch.cat([edges.new_zeros(1), (counts / len(ordered)) ** (1 / 3)]).cumsum(0)
    levels = reached[-1] * (torch.arange(clusters) + 0.5) / clusters
    last = torch.searchsorted(reached, levels).clamp(1, clusters)
    share = (levels - reached[last - 1]) / (reached[last] - reached[last - 1])
    return torch.lerp(edges[last - 1], edges[last], share)


def _with_zero(centres: Tensor, values: Tensor) -> Tensor:
    """The centre next to zero becomes zero where so many values are that it is no accident."""
    if int((values == 0).sum()) >= LEAST_SHARE * len(values):
        centres[centres.abs().argmin()] = 0.0
    return centres


def bounds(centres: Tensor) -> Tensor:
    """What lies between two of them belongs to the centre between these."""
    middles: Tensor = (centres[1:] + centres[:-1]) / 2
    return middles


def _split(centres: Tensor, count: Tensor, errors: Tensor) -> Tensor:
    """Empty clusters go one standard deviation beside the centres with the largest squared errors, if any."""
    empty = (count == 0).nonzero()[:, 0]
    worst = errors.argsort(descending=True, stable=True)[: len(empty)]
    worst = worst[errors[worst] > errors.sum() * 1e-12]
    moved = centres.clone()
    moved[empty[: len(worst)]] = centres[worst] + (errors[worst] / count[worst]).sqrt()
    return moved.sort().values


def pack(numbers: Tensor, per_byte: int) -> Tensor:
    """Numbers below 2^(8 / per_byte), (rows, n), as bytes (rows, n / per_byte), the first in the highest bits."""
    bits = 8 // per_byte
    padded = torch.nn.functional.pad(numbers, (0, -numbers.shape[1] % per_byte)).reshape(len(numbers), -1, per_byte)
    weights = 2 ** (bits * torch.arange(per_byte - 1, -1, -1))
    return (padded.long() * weights).sum(2).to(torch.uint8)


def digits(per_byte: int) -> Tensor:
    """What `pack` put into every byte, (256 * per_byte,)."""
    bits = 8 // per_byte
    shifts = bits * torch.arange(per_byte - 1, -1, -1)
    found: Tensor = (torch.arange(256)[:, None] >> shifts) % 2**bits
    return found.flatten().to(torch.uint8)


@register
@dataclass(frozen=True)
class ShareWeights(Method):
    """Store layers as a codebook and the number of every weight's cluster."""

    clusters: int = param(16, low=2, high=256, doc="values that a codebook holds; best 2, 4, 16 or 256")
    rows: int = param(0, low=0, high=65536, doc="outputs of a layer that share a codebook; 0 for all")
    iterations: int = param(1000, low=1, high=1000000, doc="rounds of k-means at most")
    smallest: int = param(1024, low=1, high=2**31, doc="layers of fewer weights are left as they are")
    of: str = param("everything", choices=("everything", "tables"), doc="tables: only what is looked up by number")
    layers: tuple[str, ...] = param((), doc="names of the layers to take; none for all that qualify")

    needs = frozenset({"float weights"})
    cites = ("han2016deep",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        reads = weights_read(result)
        check_names("ShareWeights(layers=...)", self.layers, reads, "layer")
        changed, skipped = [], {}
        for name, nodes in reads.items():
            if self.layers and name not in self.layers:
                continue
            if self.of == "tables" and not is_table(nodes):
                skipped[name] = "is no table"
                continue
            weight = get_tensor(result.module, str(nodes[0].target)).detach()
            reasons = self.unsupported(name, weight, nodes)
            if reasons:
                skipped[name] = "; ".join(reasons)
            else:
                self._share_(result, nodes, weight)
                changed.append(name)
        return Outcome(result.tidy_(), changed, skipped)

    def unsupported(self, name: str, weight: Tensor, nodes: list[Node]) -> list[str]:
        """Why a layer stays as it is; [] means that its weights can be shared.

        Raises:
            SlimlineError: it is asked for by name and has no more weights than there are clusters.
        """
        together = weight.numel() if not self.rows else min(self.rows, len(weight)) * weight[0].numel()
        if together <= self.clusters and self.layers:
            raise SlimlineError(
                f"ShareWeights(clusters={self.clusters}) is too many: one codebook of {name} stands for {together} "
                f"weights; choose 2 to {max(2, together - 1)}, or more rows."
            )
        others = sorted(str(target) for target in {u.target for n in nodes for u in n.users} - READERS)
        if others:
            return [f"is read by {', '.join(others)}"]
        if weight.numel() < self.smallest:
            return [f"has {weight.numel()} weights, fewer than {self.smallest}"]
        if not bool(weight.isfinite().all()):
            return ["has weights that are not finite"]
        books = -(-len(weight) // self.rows) if self.rows else 1
        stored = books * (self.clusters * weight.element_size() - -together // self._per_byte())
        whole = weight.numel() * weight.element_size()
        return [f"would take {stored} bytes in place of {whole}"] if stored >= whole else []

    def _per_byte(self) -> int:
        return next(numbers for most, numbers in PACKED.items() if self.clusters <= most)

    def _share_(self, network: Network, nodes: list[Node], weight: Tensor) -> None:
        """Put the look-up in the place of a stored weight."""
        rows, per_byte = self.rows or len(weight), self._per_byte()
        groups = [weight[start : start + rows].flatten() for start in range(0, len(weight), rows)]
        centres = torch.stack([_with_zero(kmeans(g, self.clusters, self.iterations), g) for g in groups])
        numbers = [torch.bucketize(g.double(), bounds(c)) for g, c in zip(groups, centres, strict=True)]
        most = len(numbers[0])
        numbers = [torch.nn.functional.pad(n, (0, most - len(n))) for n in numbers]  # the last has fewer rows
        name, graph = str(nodes[0].target), network.module.graph
        with graph.inserting_before(next(n for n in graph.nodes if n in nodes)):
            unused = 2 ** (8 // per_byte) - self.clusters if per_byte > 1 else 0  # a byte may stand for them
            values = torch.cat([centres, centres[:, -1:].expand(-1, unused)], 1).to(weight.dtype)
            codebook = _stored(network, f"{name}_codebook", values)
            indices = _stored(network, f"{name}_indices", pack(torch.stack(numbers), per_byte))
            found = _look_up(network, codebook, indices, per_byte)
            if most % per_byte:
                flat = graph.call_function(aten.reshape.default, (found, [len(groups), -1]))
                found = graph.call_function(aten.slice.Tensor, (flat, 1, 0, most))
            if most * len(groups) > weight.numel():
                flat = graph.call_function(aten.reshape.default, (found, [-1]))
                found = graph.call_function(aten.slice.Tensor, (flat, 0, 0, weight.numel()))
            value = graph.call_function(aten.reshape.default, (found, list(weight.shape)))
        for node in nodes:
            node.replace_all_uses_with(value)


def weights_read(network: Network) -> dict[str, list[Node]]:
    """The nodes that read each stored float weight of at least two axes, by the name of its layer."""
    found: dict[str, list[Node]] = {}
    for node in network.module.graph.nodes:
        if node.op == "get_attr":
            weight = get_tensor(network.module, str(node.target))
            if weight.ndim > 1 and isinstance(weight, torch.nn.Parameter):
                found.setdefault(str(node.target).removesuffix(".weight"), []).append(node)
    return found


def is_table(nodes: list[Node]) -> bool:
    """Whether a weight is only ever looked up by number."""
    return {user.target for node in nodes for user in node.users} == {aten.embedding.default}


def _stored(network: Network, name: str, value: Tensor) -> Node:
    free = unused_name(network, name)
    set_weight(network, free, value)
    return network.module.graph.get_attr(free)


def _look_up(network: Network, codebook: Node, indices: Node, per_byte: int) -> Node:
    """What the bytes stand for, (codebooks, bytes, per_byte): rows of a table with one for every byte and codebook."""
    graph = network.module.graph
    books, clusters = get_tensor(network.module, str(codebook.target)).shape
    table, step = codebook, clusters
    if per_byte > 1:
        name, step = f"digits_of_{8 // per_byte}_bits", 256
        if name not in network.weights():  # one for all layers
            set_weight(network, name, digits(per_byte))
        places = graph.call_function(aten.to.dtype, (graph.get_attr(name), torch.int32))
        table = graph.call_function(aten.index_select.default, (codebook, 1, places))
    table = graph.call_function(aten.reshape.default, (table, [books * step, per_byte]))
    bytes_ = graph.call_function(aten.to.dtype, (indices, torch.int32))
    if books > 1:
        starts = (step * torch.arange(books, dtype=torch.int32))[:, None]
        starts_of = _stored(network, str(codebook.target).replace("codebook", "starts"), starts)
        bytes_ = graph.call_function(aten.add.Tensor, (bytes_, starts_of))
    return graph.call_function(aten.embedding.default, (table, bytes_))

"""What models of sequences and graphs take: samples of different sizes in one record, made without a loop.

No statistics are taken here, and nothing is read: normalizing is the matter of who makes the records.
Legend: B samples, T steps, F features, R rows of all samples, G graphs, N nodes, E edges, D edge features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

_ALL = slice(None)


@dataclass(frozen=True)
class Sequences:
    """Sequences side by side: `x_BTF` float, what comes after a sequence's end is 0; `lengths_B` int64.

    T is at least 1: a sequence without any step is one step of zeros to a model.
    """

    x_BTF: torch.Tensor
    lengths_B: torch.Tensor

    @classmethod
    def from_rows(cls, rows_RF: torch.Tensor, ends_B: torch.Tensor, part: slice = _ALL) -> Sequences:
        """The samples `part` of a batch whose rows lie joined; sample b ends before the row `ends_B[b]`.

        `rows_RF` may be (R,): one feature; further axes are taken as features. Numbers become float32.
        """
        lengths = torch.diff(ends_B, prepend=ends_B.new_zeros(1))[part]
        return cls(side_by_side(_features(rows_RF[_span(ends_B, part)]), lengths, 0), lengths)

    @classmethod
    def of_one_length(cls, x_BTF: torch.Tensor) -> Sequences:
        """Sequences that are all as long: (B, T), (B, T, F), or with further axes, taken as features."""
        wide = x_BTF[:, :, None] if x_BTF.ndim == 2 else x_BTF.flatten(2)
        lengths = torch.full((len(x_BTF),), x_BTF.shape[1], dtype=torch.int64, device=x_BTF.device)
        return cls(wide.float(), lengths)

    def known(self) -> torch.Tensor:
        """Which steps are of the sequence, (B, T) bool; of one without steps the first is."""
        return steps_known(self.lengths_B.clamp(min=1), self.x_BTF.shape[1])

    def to(self, device: str) -> Sequences:
        """The same on a device."""
        return Sequences(
            self.x_BTF.to(device, non_blocking=True), self.lengths_B.to(device, non_blocking=True)
        )


@dataclass(frozen=True)
class Graphs:
    """`count` graphs as one without edges between them, as torch-geometric takes them.

    `x_NF` float; `edges_2E` int64, from and to, counted through all nodes; `graph_N` int64, rising, the
    graph of each node; `attr_ED` float, or `None` where edges have no features. Of one large graph the first
    `asked` nodes are those that something is said of, and all others are there for them; 0: all are.
    """

    x_NF: torch.Tensor
    edges_2E: torch.Tensor
    graph_N: torch.Tensor
    count: int
    attr_ED: torch.Tensor | None = None
    asked: int = 0

    @classmethod
    def from_joined(
        cls,
        x_NF: torch.Tensor,
        edges_2E: torch.Tensor,
        graph_N: torch.Tensor,
        ptr: torch.Tensor,
        attr_ED: torch.Tensor | None = None,
        part: slice = _ALL,
    ) -> Graphs:
        """The graphs `part` of a batch that is one graph already; graph g has the nodes `ptr[g]` and on.

        The edges have to lie in the order of their graphs, as a stream joins them.
        """
        first, last, _step = part.indices(len(ptr) - 1)
        nodes = slice(int(ptr[first]), int(ptr[last]))
        # Rising, as all edges of a graph come before those of the next.
        graph_E = graph_N[edges_2E[0]]
        bounds = torch.searchsorted(graph_E, torch.tensor([first, last], device=graph_E.device))
        edges = slice(int(bounds[0]), int(bounds[1]))
        return cls(
            _features(x_NF[nodes]),
            edges_2E[:, edges] - nodes.start,
            graph_N[nodes] - first,
            last - first,
            None if attr_ED is None else _features(attr_ED[edges]),
        )

    @classmethod
    def from_rows(
        cls,
        x_NF: torch.Tensor,
        node_ends_G: torch.Tensor,
        edges_E2: torch.Tensor,
        edge_ends_G: torch.Tensor,
        attr_ED: torch.Tensor | None = None,
        part: slice = _ALL,
    ) -> Graphs:
        """The graphs `part` of a batch of ragged fields: pairs of nodes counted from 0 in each graph."""
        nodes_G = torch.diff(node_ends_G, prepend=node_ends_G.new_zeros(1))[part]
        edges_G = torch.diff(edge_ends_G, prepend=edge_ends_G.new_zeros(1))[part]
        number_G = torch.arange(len(nodes_G), device=nodes_G.device)
        firsts_G = torch.cumsum(nodes_G, 0) - nodes_G
        edges = _span(edge_ends_G, part)
        return cls(
            _features(x_NF[_span(node_ends_G, part)]),
            edges_E2[edges].T + torch.repeat_interleave(firsts_G, edges_G),
            torch.repeat_interleave(number_G, nodes_G),
            len(nodes_G),
            None if attr_ED is None else _features(attr_ED[edges]),
        )

    def both_ways(self) -> Graphs:
        """With every edge there in both directions: those that are not are added, features and all.

        Whether files list an edge once or twice then makes no difference.
        """
        if not self.edges_2E.shape[1]:
            return self
        there = self.edges_2E[0] * len(self.x_NF) + self.edges_2E[1]
        turned = self.edges_2E[1] * len(self.x_NF) + self.edges_2E[0]
        lacking = ~torch.isin(turned, there)
        edges_2E = torch.cat([self.edges_2E, self.edges_2E.flip(0)[:, lacking]], 1)
        attr_ED = None if self.attr_ED is None else torch.cat([self.attr_ED, self.attr_ED[lacking]])
        return replace(self, edges_2E=edges_2E, attr_ED=attr_ED)

    def to(self, device: str) -> Graphs:
        """The same on a device."""
        return Graphs(
            self.x_NF.to(device, non_blocking=True),
            self.edges_2E.to(device, non_blocking=True),
            self.graph_N.to(device, non_blocking=True),
            self.count,
            None if self.attr_ED is None else self.attr_ED.to(device, non_blocking=True),
            self.asked,
        )


def side_by_side(rows: torch.Tensor, lengths_B: torch.Tensor, fill: float) -> torch.Tensor:
    """Rows (R, …) that lie joined as (B, T, …), `fill` after each end; T is the longest, at least 1."""
    longest = max(1, int(lengths_B.max())) if len(lengths_B) else 1
    beside = rows.new_full((len(lengths_B), longest, *rows.shape[1:]), fill)
    if not len(rows):
        return beside
    # By number, as whole rows are copied: a mask would be asked for every value.
    first_B = torch.arange(len(lengths_B), device=rows.device) * longest - (
        torch.cumsum(lengths_B, 0) - lengths_B
    )
    place_R = torch.arange(len(rows), device=rows.device) + torch.repeat_interleave(first_B, lengths_B)
    beside.flatten(0, 1).index_copy_(0, place_R, rows)
    return beside


def step_targets(rows: torch.Tensor, ends_B: torch.Tensor, part: slice = _ALL) -> torch.Tensor:
    """Targets of the steps of the samples `part`, (B, T, …): what comes after an end is unknown.

    That is NaN in floating-point targets, and -1 in whole numbers, which become int64.
    """
    lengths = torch.diff(ends_B, prepend=ends_B.new_zeros(1))[part]
    rows = rows[_span(ends_B, part)]
    if rows.is_floating_point():
        return side_by_side(rows.float(), lengths, float("nan"))
    return side_by_side(rows.long(), lengths, -1)


def steps_known(lengths_B: torch.Tensor, steps: int) -> torch.Tensor:
    """Which of `steps` steps come before each length, (B, T) bool."""
    return torch.arange(steps, device=lengths_B.device) < lengths_B[:, None]


def filled(x: torch.Tensor, indicator: bool) -> torch.Tensor:
    """Features (…, F) with 0 for what is no finite number: after normalizing, the mean of the feature.

    With `indicator` they are (…, 2F): what follows is 1 where a number was missing, else 0.
    """
    known = torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
    return torch.cat([known, (~torch.isfinite(x)).to(known.dtype)], -1) if indicator else known


def _features(rows: torch.Tensor) -> torch.Tensor:
    return (rows[:, None] if rows.ndim == 1 else rows.flatten(1)).float()


def _span(ends: torch.Tensor, part: slice) -> slice:
    """The rows of the samples `part`, which follow one another."""
    first, last, step = part.indices(len(ends))
    assert step == 1, "samples of a part follow one another"
    return slice(int(ends[first - 1]) if first else 0, int(ends[last - 1]) if last else 0)

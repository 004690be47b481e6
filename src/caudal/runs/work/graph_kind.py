"""Graphs: nodes with features, edges between them, and something to be learned of each graph or node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from caudal.core.config import Frozen
from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.data.batches import Batch
from caudal.data.graphs import EDGES, NODES
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_values import field_of
from caudal.runs.samples import open_set
from caudal.runs.spec import RunSpec
from caudal.runs.work.edges import check_form, check_nodes
from caudal.runs.work.encoding import Encoding, find_kinds, kinds_note
from caudal.runs.work.features import Features, Moments, Scaling
from caudal.runs.work.kind import Inputs, SampleTask, Statistics
from caudal.runs.work.missing import Watched, missing_words
from caudal.runs.work.one_graph_kind import (
    graph_folder,
    nodes_of,
    of_one_graph,
    one_graph_inputs,
    one_graph_statistics,
    prepare_trees,
)
from caudal.runs.work.series import (
    FEWEST_TO_CHOOSE,
    drawn_from,
    longest_of,
    looks_at,
    some_batches,
    target_of,
    thresholds_of,
)
from caudal.runs.work.sought import Sought

if TYPE_CHECKING:
    from torch import nn

    from caudal.training.step import Parts

ATTRIBUTES = "edge_attr"


class GraphScaling(Frozen):
    """Of the features of nodes, and of edges where they have any."""

    nodes: Scaling
    edges: Scaling | None = None


class Graphs:
    """See `Kind`."""

    per_row_key: ClassVar[str] = "per_node"
    takes_groups: ClassVar[bool] = False
    fewest_to_choose: ClassVar[int] = FEWEST_TO_CHOOSE

    def open_set(self, spec: RunSpec, tick: Callable[[int, int], None]) -> SampleSet:
        """See `Kind.open_set`."""
        nodes = nodes_of(spec.data.images[0])
        if nodes is not None:
            return open_set(nodes, "rows", None, False, spec.data.threads, tick)
        return open_set(
            spec.data.images[0], spec.data.samples, None, False, spec.data.threads, tick, tolerant=True,
            labels=spec.data.labels,
        )  # fmt: skip

    def inputs(self, samples: SampleSet, besides: frozenset[str]) -> Inputs:
        """See `Kind.inputs`."""
        if (folder := graph_folder(samples)) is not None:
            return one_graph_inputs(folder)
        nodes, edges = field_of(samples, NODES), field_of(samples, EDGES)
        if nodes is None or edges is None or not (nodes.ragged and edges.ragged):
            raise DataError(
                _("{path} holds no graphs.").format(path=samples.root),
                _("Graphs have the fields “x” (features of nodes) and “edges” (pairs of nodes)."),
            )
        check_form(edges, samples.root)
        attributes = field_of(samples, ATTRIBUTES)
        used = attributes is not None and attributes.ragged and ATTRIBUTES not in besides
        of_nodes = max(1, int(np.prod(nodes.row_shape)))
        of_edges = max(1, int(np.prod(attributes.row_shape))) if used and attributes is not None else 0
        columns = {NODES: of_nodes, ATTRIBUTES: of_edges} if of_edges else {NODES: of_nodes}
        kinds = {name: find_kinds(samples, (name,), count) for name, count in columns.items()}
        return Inputs(
            fields=(NODES, EDGES, ATTRIBUTES) if used else (NODES, EDGES),
            count=Encoding(of_nodes, kinds[NODES]).width,
            shape=_("graphs of {nodes} features a node, {edges} an edge").format(
                nodes=of_nodes, edges=of_edges
            ),
            config={"edge_inputs": Encoding(of_edges, kinds[ATTRIBUTES]).width if of_edges else 0},
            notes=tuple(note for name in kinds for note in kinds_note(name, kinds[name])),
            kinds={name: found for name, found in kinds.items() if found},
            stored=(of_nodes, of_edges),
        )

    def statistics(self, samples: SampleSet, inputs: Inputs, threads: int, seed: int) -> Statistics:
        """See `Kind.statistics`: from some thousand graphs."""
        if (folder := graph_folder(samples)) is not None:
            scaling = one_graph_statistics(folder, seed)
            made = GraphScaling(nodes=scaling)
            said = missing_words(scaling.missing, some=True)
            return Statistics(values=made.model_dump(mode="json"), warnings=said)
        of_nodes, of_edges = inputs.stored
        nodes = Moments(of_nodes, inputs.kinds.get(NODES, ()))
        edges = Moments(of_edges, inputs.kinds.get(ATTRIBUTES, ())) if of_edges else None
        for batch in some_batches(samples, threads, seed):
            nodes.add(_values(batch, NODES).reshape(-1, of_nodes).astype(np.float64))
            if edges is not None:
                edges.add(_values(batch, ATTRIBUTES).reshape(-1, of_edges).astype(np.float64))
        made = GraphScaling(nodes=nodes.result(), edges=edges.result() if edges is not None else None)
        some = looks_at(samples) < samples.drawn
        said = missing_words(made.nodes.missing, some=some)
        if made.edges is not None:
            said += missing_words(made.edges.missing, some=some, of=ATTRIBUTES)
        return Statistics(values=made.model_dump(mode="json"), warnings=said)

    def statistics_of(self, model: nn.Module) -> Statistics | None:
        """See `Kind.statistics_of`: none comes from elsewhere."""
        return None

    def make_task(
        self, spec: RunSpec, sought: Sought, counts: Ints | None, chosen: Mapping[str, Any]
    ) -> SampleTask:
        """See `Kind.make_task`."""
        from caudal.tasks.graph.task import Graph

        return Graph(target_of(spec, sought, counts, chosen))

    def choose(self, scorer: Any) -> dict[str, Any]:
        """See `Kind.choose`: the thresholds of best F1."""
        return thresholds_of(scorer)

    def prepare(
        self,
        spec: RunSpec,
        inputs: Inputs,
        sought: Sought,
        statistics: Statistics | None,
        device: str,
        training: bool,
        samples: SampleSet,
    ) -> Callable[[Batch, slice], tuple[Any, Any]]:
        """See `Kind.prepare`: the model's `Graphs`, and the truth of each or of its nodes."""
        if of_one_graph(inputs):
            return prepare_trees(spec, inputs, sought, statistics, device, training)
        import torch

        from caudal.models import ragged
        from caudal.tasks.graph.task import NodeTruth

        made = GraphScaling.model_validate(statistics.values) if statistics is not None else None
        columns, edge_columns = inputs.stored
        counts = not training
        of_nodes = Features(made.nodes if made else None, columns, inputs.kinds.get(NODES, ()), counts)
        of_edges = (
            Features(made.edges if made else None, edge_columns, inputs.kinds.get(ATTRIBUTES, ()), counts)
            if edge_columns
            else None
        )

        def prepare(batch: Batch, part: slice) -> tuple[Any, Any]:
            nodes, edges = batch.numpy(NODES), batch.numpy(EDGES)
            edges_E2, edges_G = edges.values, edges.lengths
            first, last, _step = part.indices(batch.size)
            mine = slice(int(edges.ends[first - 1]) if first else 0, int(edges.ends[last - 1]))
            check_nodes(edges_E2[mine], edges_G[part], nodes.lengths[part], samples, batch.samples[part])
            attributes = None
            if of_edges is not None:
                values = batch.numpy(ATTRIBUTES).values.reshape(-1, edge_columns)
                attributes = torch.from_numpy(of_edges(values))
            graphs = ragged.Graphs.from_rows(
                torch.from_numpy(of_nodes(nodes.values.reshape(-1, columns))),
                torch.from_numpy(np.array(nodes.ends)),
                torch.from_numpy(np.array(edges_E2, np.int64)),
                torch.from_numpy(np.array(edges.ends)),
                attributes,
                part,
            ).to(device)
            chosen = np.arange(batch.size)[part]
            truth = torch.from_numpy(sought.truth(batch, chosen, len(graphs.x_NF))).to(device)
            return graphs, NodeTruth(truth, graphs.graph_N, graphs.count) if sought.per_row else truth

        return Watched(prepare, {"": of_nodes} if of_edges is None else {"": of_nodes, ATTRIBUTES: of_edges})

    def parts(self, samples: SampleSet, inputs: Inputs) -> Parts | None:
        """See `Kind.parts`: by nodes and edges together; trees of one graph are about as large."""
        if of_one_graph(inputs):
            return None
        largest = self.largest(samples, inputs, 1)
        most = int(samples.rows(NODES, largest)[0] + samples.rows(EDGES, largest)[0])

        def parts(batch: Any, micro_batch: int) -> Iterator[slice]:
            sizes = batch.numpy(NODES).lengths + batch.numpy(EDGES).lengths
            return sized_parts(sizes, micro_batch * most)

        return parts

    def places(self, samples: SampleSet, inputs: Inputs, numbers: Ints) -> Ints:
        """See `Kind.places`: nodes; of one graph every sample is one."""
        if of_one_graph(inputs):
            return np.ones(len(numbers), np.int64)
        return samples.rows(NODES, numbers)

    def largest(self, samples: SampleSet, inputs: Inputs, count: int) -> Ints:
        """See `Kind.largest`: those with most edges."""
        if of_one_graph(inputs):
            return drawn_from(samples)[:count]
        return longest_of(samples, EDGES, count)


def sized_parts(sizes_B: Ints, most: int) -> Iterator[slice]:
    """Consecutive samples that together have at most `most` rows, or one alone."""
    first = held = 0
    for at, size in enumerate(sizes_B.tolist()):
        held += size
        if held > most and at > first:
            yield slice(first, at)
            first, held = at, size
    yield slice(first, len(sizes_B))


def _values(batch: Batch, name: str) -> Any:
    return batch.numpy(name).values

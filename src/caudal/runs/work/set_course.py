"""Training on samples of a set, and scoring on those that were held out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from caudal.core.errors import UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.data.batches import Batch
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_split import SampleSplit
from caudal.data.steps import Rank
from caudal.models import weights
from caudal.runs import assemble
from caudal.runs.explained_rows import keep
from caudal.runs.folder import RunFolder
from caudal.runs.plan import TrainPlan
from caudal.runs.spec import RunSpec
from caudal.runs.work.explained import PLACED, explain_some
from caudal.runs.work.kind import Inputs, Kind, Statistics
from caudal.runs.work.one_graph_kind import of_one_graph
from caudal.runs.work.open_samples import Opened
from caudal.runs.work.set_scores import predictions, score_each, shown_groups
from caudal.runs.work.set_stream import training_batches
from caudal.runs.work.sought import Sought
from caudal.tasks.base import Metrics
from caudal.training.distributed import present
from caudal.training.precision import Precision
from caudal.training.step import Parts, Prepare

_VALIDATION_SHARE = 0.1  # of the work of the steps between two scores
_FORWARDS_A_STEP = 3
_LEAST_SCORED = 512


def look(
    kind: Kind,
    train: SampleSet,
    inputs: Inputs,
    spec: RunSpec,
    folder: RunFolder,
    again: bool,
    fingerprint: str,
) -> Statistics:
    """What the samples to train on say of their numbers, or what was found when the run began.

    Raises:
        UsageError: the data are not those that the run began with.
    """
    if again and folder.scan.is_file():
        stored = folder.read_json(folder.scan)
        if stored["fingerprint"] != fingerprint:
            raise UsageError(
                _("The data have changed since the run in {path} began.").format(path=folder.path),
                _("Bring them back, or start a new run in another folder."),
            )
        return Statistics.model_validate(stored["statistics"])
    found = kind.statistics(train, inputs, spec.data.threads, spec.seed)
    folder.write_json(folder.scan, {"fingerprint": fingerprint, "statistics": found.model_dump(mode="json")})
    return found


class SetCourse:
    """See `Course`."""

    takes_ranks: bool = True

    def __init__(
        self,
        plan: TrainPlan,
        opened: Opened,
        split: SampleSplit,
        inputs: Inputs,
        sought: Sought,
        statistics: Statistics,
        counts: Ints | None,
        train: SampleSet,
        beside: dict[str, Any],
    ) -> None:
        """`train` is drawn from; `beside` are tables for the report that are no scores."""
        self._plan, self._spec, self._opened, self._split = plan, plan.spec, opened, split
        self._inputs, self._sought, self._statistics = inputs, sought, statistics
        self._counts, self._chosen = counts, dict[str, Any]()
        self._train, self._beside = train, beside
        self._threads = self._spec.data.threads
        self._groups = shown_groups(opened, sought)
        self.task = opened.kind.make_task(plan.spec, sought, counts, {})
        self.warnings = statistics.warnings
        self.parts: Parts | None = opened.kind.parts(opened.used, inputs)

    def make_model(self) -> nn.Module:
        """See `Course.make_model`."""
        model = assemble.make_model(
            self._spec, self._inputs.count, self.task.outputs(), self._plan.device, self._inputs.config
        )
        known = self._opened.kind.statistics_of(model)
        if known is not None:  # weights learned elsewhere want numbers as they had them there
            self._statistics = known
        return model

    def prepare(self) -> Prepare:
        """See `Course.prepare`."""
        return self._prepare(training=True)

    def _prepare(self, training: bool) -> Prepare:
        return self._opened.kind.prepare(
            self._spec,
            self._inputs,
            self._sought,
            self._statistics,
            self._plan.device,
            training,
            self._opened.samples,
        )

    def fit(self, model: nn.Module) -> bool:
        """See `Course.fit`."""
        return False

    @contextmanager
    def batches(self, start: int) -> Iterator[Iterator[Batch]]:
        """See `Course.batches`."""
        ranks = present()
        with training_batches(
            self._train,
            self._plan.arena,
            self._spec.training.batch,
            seed=self._spec.seed,
            threads=self._threads,
            start=start,
            stop=self._spec.training.steps,
            rank=Rank(ranks.rank, ranks.count),
        ) as stream:
            yield stream

    def validate(self, model: nn.Module, precision: Precision) -> Metrics:
        """See `Course.validate`: on samples drawn once, more of them where steps are many; of none, none."""
        if not len(self._split.validation):
            return {}
        settings = self._spec.training
        work = settings.validation_steps * settings.batch * _FORWARDS_A_STEP
        most = max(_LEAST_SCORED, int(_VALIDATION_SHARE * work))
        members = self._split.validation
        if len(members) > most:
            drawn = generator(self._spec.seed, "views").permutation(len(members))[:most]
            members = np.sort(members[drawn])
        metrics: Metrics = self._scored(model, precision, members).result()
        return metrics

    def score(self, model: nn.Module, precision: Precision, folder: Path) -> tuple[Metrics, Sequence[str]]:
        """See `Course.score`: on all samples that were held out for it.

        What is set after training is chosen on others, those by which the model was chosen; where there are
        no others nothing is.
        """
        model = model.to(self._plan.device)  # it was read from its file
        if len(self._split.validation) and not np.array_equal(self._split.validation, self._split.test):
            self._chosen = self._opened.kind.choose(self._scored(model, precision, self._split.validation))
            self.task = self._opened.kind.make_task(self._spec, self._sought, self._counts, self._chosen)
        scorer = self._scored(model, precision, self._split.test)
        tables = json.dumps({**scorer.tables(), **self._beside}, ensure_ascii=False)
        write_whole(folder / "tables.json", lambda part: part.write_text(tables + "\n", encoding="utf-8"))
        return scorer.result(), [*scorer.warnings(), *self._explain(model, folder)]

    def _explain(self, model: nn.Module, folder: Path) -> list[str]:
        """Leave for the report what spoke for the scores of a few samples; gives what must be said of it."""
        of_places = self._spec.task in PLACED and not of_one_graph(self._inputs)
        if not of_places or self._sought.per_row or self._plan.point.recompute:
            return []  # with recomputing, a step that keeps everything is what does not fit
        try:
            items = explain_some(
                model.eval(),
                self.task,
                self._sought,
                self._prepare(training=False),
                self._opened,
                self._inputs,
                self._split.test,
                self._threads,
            )
        except RuntimeError as error:  # a trained model is worth more than a part of a page
            return [_("No sample could be explained for the report: {why}").format(why=error)]
        keep(folder, items)
        return []

    def _scored(self, model: nn.Module, precision: Precision, members: Ints) -> Any:
        scorer = self.task.scorer()
        samples = self._opened.samples.only(members)
        found = predictions(
            model, self.task, self._prepare(training=False), precision, samples, self._threads
        )
        score_each(scorer, found, self._opened, self._groups)
        return scorer

    def card(self, model: nn.Module, metrics: Metrics) -> weights.ModelCard:
        """See `Course.card`."""
        return weights.ModelCard(
            task=self._spec.task,
            architecture=self._spec.model.name,
            config=model.config.model_dump(mode="json"),  # type: ignore[union-attr, operator]
            bands=self._inputs.count,
            outputs=self.task.outputs(),
            normalization=self._statistics.values,
            classes=self._sought.model_dump(mode="json"),
            inputs={
                "inputs": self._inputs.model_dump(mode="json"),
                "data": self._spec.data.model_dump(mode="json"),
                "chosen": self._chosen,
            },
            memory={"device": self._plan.device, "scoring": int(self._plan.probe.scoring)},
            metrics=metrics,
        )

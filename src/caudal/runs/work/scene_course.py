"""Training on patches of scenes, and scoring on windows and whole images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from caudal.data.chunks import Cutter
from caudal.data.index import Index
from caudal.data.split import Split
from caudal.data.steps import Rank
from caudal.data.stream import PatchStream
from caudal.inference.forward import Forward
from caudal.memory.arena import Arena
from caudal.models import weights
from caudal.models.fold import folded
from caudal.runs import assemble
from caudal.runs.plan import TrainPlan
from caudal.runs.scoring import Forwards, choose_views, score_images, score_views
from caudal.runs.survey import Survey
from caudal.runs.tiling import validation_tiling
from caudal.runs.work.scene_input import prepare_scenes
from caudal.tasks.base import MapTask, Metrics
from caudal.training.distributed import present
from caudal.training.precision import Precision
from caudal.training.step import Parts, Prepare

# Scoring while training goes on may take this share of the training's own work.
_VALIDATION_SHARE = 0.1
_FORWARDS_A_STEP = 3  # forward, and backward twice as long


class SceneCourse:
    """See `Course`."""

    parts: Parts | None = None
    takes_ranks: bool = True

    def __init__(self, index: Index, parts: Split, cutter: Cutter, plan: TrainPlan, facts: Survey) -> None:
        self._index, self._split, self._cutter = index, parts, cutter
        self._plan, self._spec, self._facts = plan, plan.spec, facts
        self.warnings = facts.warnings
        self.task: MapTask = assemble.make_map_task(self._spec, assemble.class_names(facts.classes))
        self._reader = facts.reader(self._index)
        settings = self._spec.training
        work_px = settings.batch * cutter.patch_px**2 * settings.validation_steps
        share = _VALIDATION_SHARE * _FORWARDS_A_STEP
        self._views = choose_views(self._index, self._split.held_out, int(work_px * share), self._spec.seed)

    def make_model(self) -> nn.Module:
        """See `Course.make_model`."""
        return assemble.make_model(self._spec, self._index.bands, self.task.outputs(), self._plan.device)

    def prepare(self) -> Prepare:
        """See `Course.prepare`."""
        return prepare_scenes(self._spec, self._facts.normalization, self._plan.device)

    def fit(self, model: nn.Module) -> bool:
        """See `Course.fit`."""
        return False

    @contextmanager
    def batches(self, start: int) -> Iterator[PatchStream]:
        """See `Course.batches`."""
        ranks = present()
        with PatchStream(
            self._cutter,
            self._reader,
            Arena(self._plan.arena),
            batch=self._spec.training.batch,
            open_chunks=self._plan.point.open_blocks,
            ahead=self._plan.point.ahead,
            threads=self._spec.data.threads,
            start=start,
            stop=self._spec.training.steps,
            overlap=self._plan.device != "cpu",
            rank=Rank(ranks.rank, ranks.count),
        ) as stream:
            yield stream

    def validate(self, model: nn.Module, precision: Precision) -> Metrics:
        """See `Course.validate`: on one window of each held-out image."""
        scorer = self.task.scorer()
        tiling = validation_tiling(model, self._plan.probe.forwards)
        score_views(
            self._index,
            self._views,
            self._reader,
            self._forwards(model, precision),
            tiling,
            self.task.outputs(),
            scorer,
        )
        return scorer.result()

    def score(self, model: nn.Module, precision: Precision, folder: Path) -> tuple[Metrics, Sequence[str]]:
        """See `Course.score`: on whole images."""
        scorer, reader = self.task.scorer(), self._facts.reader(self._index)
        try:
            score_images(
                self._index,
                self._split.held_out,
                reader,
                self._forwards(model, precision),
                validation_tiling(model, self._plan.probe.forwards),
                self.task.outputs(),
                scorer,
                folder,
            )
        finally:
            reader.files.close()
        return scorer.result(), scorer.warnings()

    def card(self, model: nn.Module, metrics: Metrics) -> weights.ModelCard:
        """See `Course.card`."""
        return weights.ModelCard(
            task=self._spec.task,
            architecture=self._spec.model.name,
            config=model.config.model_dump(mode="json"),  # type: ignore[union-attr, operator]
            bands=self._index.bands,
            outputs=self.task.outputs(),
            band_names=self._index.band_names,
            normalization=self._facts.normalization.model_dump(mode="json"),
            classes=self._facts.classes.model_dump(mode="json"),
            memory={
                "device": self._plan.device,
                "forwards": [f.model_dump(mode="json") for f in self._plan.probe.forwards],
            },
            metrics=metrics,
        )

    def _forwards(self, model: nn.Module, precision: Precision) -> Forwards:
        ready = folded(model)

        def forward(layout: int) -> Forward:
            return Forward(
                ready,
                self.task.probabilities,
                self._facts.normalization,
                layout,
                self._plan.device,
                precision.autocast,
            )

        return forward

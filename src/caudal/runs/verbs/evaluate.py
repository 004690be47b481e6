"""`evaluate`: a trained model's scores on images with masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from caudal.core.errors import BadModel, DataError
from caudal.core.events import Sink
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.bands import Layout
from caudal.data.index import Index, build
from caudal.data.mvtec import judged_images
from caudal.data.pairs import find_pairs
from caudal.data.paths import local_path
from caudal.runs.loaded import Loaded
from caudal.runs.loading import is_of_samples, load_model, one_folder
from caudal.runs.machine import ram_budget
from caudal.runs.normal_images import learned_by, refuse_besides, without_learned
from caudal.runs.result import Result
from caudal.runs.scoring import score_images
from caudal.runs.survey import Survey
from caudal.runs.telling import Telling
from caudal.tasks import TASKS
from caudal.training.retry import naming_want_of_memory


def evaluate(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    masks: str | Path | Sequence[str | Path] = (),
    labels: str | Path | None = None,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str | None = None,
    listeners: Sequence[Sink] = (),
) -> Result:
    """Score the model of `run` (a run or a model folder) on `data`.

    Images with `masks`, each as a whole; or samples whose files say what they are, or the CSV `labels` does.

    Raises:
        BadModel: there is no model, or it says nothing of its classes.
        DataError: images and masks do not belong together, or cannot be read.
        DoesNotFit: not even the smallest tile fits into `ram`, or on a GPU into `vram`.
        OutOfMemory: memory that was there when it began is not there any more.
    """
    budget = ram_budget(Bytes.parse(ram) if ram is not None else None)
    on_card = Bytes.parse(vram) if vram is not None else None
    path = local_path(str(run))
    if is_of_samples(path):
        return _evaluate_samples(path, run, data, labels, budget, on_card, device or "auto", listeners)
    with Telling("evaluate", listeners) as told, naming_want_of_memory(_("scoring")):
        loaded = load_model(path, device or "auto", budget, on_card)
        if loaded.card.task == "anomaly":
            refuse_besides(masks, labels)
            return _evaluate_anomalies(loaded, run, data, budget, told)
        if loaded.classes is None:
            raise BadModel(
                _("{path} does not say what its classes are, so it cannot be scored.").format(path=run),
                _("Use a model that `caudal train` wrote."),
            )
        images = [data] if isinstance(data, str | Path) else list(data)
        folders = [masks] if isinstance(masks, str | Path) else list(masks)
        pairs = find_pairs([str(p) for p in images], [str(p) for p in folders])
        index = build(pairs, told.scanned)
        loaded.check_bands(index.bands, index.image(0))
        widest = max(range(len(index)), key=lambda i: int(index.width[i] * index.height[i]))
        tiling, predicted = loaded.tiling(budget, index.image(widest))
        tiles = sum(map(tiling.tiles, index.height.tolist(), index.width.tolist()))
        card = (loaded.vram, loaded.predicted_vram)
        told.started(loaded.card.task, loaded.device, tiles, budget, predicted, card)
        names = tuple(str(value) for value in loaded.classes.values)
        scorer = TASKS.get(loaded.card.task)(names).scorer()
        reader = Survey(loaded.normalization, loaded.classes, ()).reader(index)
        numbers = _layout_numbers(index, loaded)
        score_images(
            index,
            range(len(index)),
            reader,
            lambda layout: loaded.forward(numbers[layout]),
            tiling,
            loaded.card.outputs,
            scorer,
            None,
            told.tile,
        )
        reader.files.close()
    result = Result(
        verb="evaluate",
        run=str(run),
        metrics=scorer.result(),
        budget_bytes={"ram": int(budget), "vram": int(loaded.vram or 0)},
        predicted_bytes={"ram": int(predicted), "vram": int(loaded.predicted_vram)},
        peak_bytes=told.peaks,
        seconds=told.seconds,
        warnings=(*index.warnings, *loaded.warnings, *scorer.warnings()),
    )
    return told.ended(result)


def _evaluate_samples(
    path: Path,
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    labels: str | Path | None,
    budget: Bytes,
    on_card: Bytes | None,
    device: str,
    listeners: Sequence[Sink],
) -> Result:
    from caudal.runs.work.set_model import SetModel, scored_part
    from caudal.runs.work.set_scores import score_each, shown_groups

    with Telling("evaluate", listeners) as told, naming_want_of_memory(_("scoring")):
        model = SetModel.load(path, device, on_card)
        opened, spec = model.open(one_folder(data), str(labels) if labels else None, told.scanned)
        if not model.told.field:
            raise DataError(
                _("{path} does not say what is to be learned: there is no field “{field}”.").format(
                    path=opened.samples.root, field=model.sought.field
                ),
                _("Put files into a folder for each class, or give a CSV with --labels."),
            )
        model.refuse_others(opened)
        members, warnings = scored_part(opened)
        predicted = model.check(opened, spec, budget)
        card = (model.vram, model.predicted_vram)
        told.started(model.card.task, model.device, len(members), budget, predicted, card)
        scorer = model.task.scorer()
        groups = shown_groups(opened, model.told)
        score_each(scorer, told.counted(model.each(opened, spec, members), len(members)), opened, groups)
        assert model.strangers is not None
        model.strangers.refuse(opened.samples.root)
        metrics = scorer.result()
    result = Result(
        verb="evaluate",
        run=str(run),
        metrics=metrics,
        budget_bytes={"ram": int(budget), "vram": int(model.vram or 0)},
        predicted_bytes={"ram": int(predicted), "vram": int(model.predicted_vram)},
        peak_bytes=told.peaks,
        seconds=told.seconds,
        warnings=(
            *opened.notes,
            *warnings,
            *opened.samples.broken.words(),
            *model.warnings,
            *scorer.warnings(),
        ),
    )
    return told.ended(result)


def _evaluate_anomalies(
    loaded: Loaded,
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    budget: Bytes,
    told: Telling,
) -> Result:
    from caudal.runs.anomalies import Thresholds, score_all

    thresholds = Thresholds.of(loaded, run)
    found = judged_images(local_path(one_folder(data)))
    judged, said = without_learned(found.images, learned_by(local_path(str(run))), found.learned)
    scorer, predicted, more = score_all(loaded, judged, thresholds, budget, told)
    result = Result(
        verb="evaluate",
        run=str(run),
        metrics=scorer.result(),
        budget_bytes={"ram": int(budget), "vram": int(loaded.vram or 0)},
        predicted_bytes={"ram": int(predicted), "vram": int(loaded.predicted_vram)},
        peak_bytes=told.peaks,
        seconds=told.seconds,
        warnings=(*loaded.warnings, *found.warnings, *said, *more, *scorer.warnings()),
    )
    return told.ended(result)


def _layout_numbers(index: Index, loaded: Loaded) -> list[int]:
    """The model's layout for each layout of the data."""

    def number(layout: Layout) -> int:
        return loaded.normalization.layout_for(layout.band_names)

    return [number(layout) for layout in index.layouts]

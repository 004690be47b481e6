"""`explain`: what in a picture speaks for the class that a model saw, and how far its maps can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caudal.core.errors import CaudalError, UsageError
from caudal.core.events import Sink
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.paths import local_path
from caudal.memory import allocator
from caudal.runs.explaining import at_once
from caudal.runs.loading import is_of_samples
from caudal.runs.machine import ram_budget
from caudal.runs.reason_masks import ReasonMasks
from caudal.runs.report.curves import curves
from caudal.runs.report.explanation import Calibration, ClassProbability, ExplainedImage, write_explanations
from caudal.runs.report.explanation_figure import write_figure
from caudal.runs.report.story import read_story
from caudal.runs.result import Result
from caudal.runs.seen import Eyes, Seen, open_eyes
from caudal.runs.telling import Telling

MOST = 12


def explain(
    run: str | Path,
    images: str | Path,
    *,
    out: str | Path,
    methods: Sequence[str] = (),
    target: str | None = None,
    masks: str | Path | None = None,
    labels: str | Path | None = None,
    most: int = MOST,
    ram: str | int | None = None,
    device: str | None = None,
    listeners: Sequence[Sink] = (),
) -> Result:
    """Explain what the model of `run` sees in a picture, or in the first `most` of a folder.

    Of a model of sequences or graphs: which steps or nodes spoke for what it says of the first `most`
    samples; `out` is then a page (.html) or a table (.csv).

    `out` is a page (.html), or for one picture a figure (.png). `methods` are of gradcam, hirescam,
    integrated_gradients, occlusion. `target` is the class to explain, by default the one that was seen.
    `masks` holds a mask for each picture, where the reason should lie: above 0.

    Raises:
        BadModel: there is no model that may be opened.
        DataError: pictures that cannot be read, or have other bands.
        DoesNotFit: it takes more than `ram`.
        UsageError: an unknown method or class, another kind of output, a task without pictures.
    """
    budget = ram_budget(Bytes.parse(ram) if ram is not None else None)
    page = local_path(str(out), must_exist=False)
    folder = local_path(str(run))
    if (model := _of_places(folder, device or "auto")) is not None:
        return _explain_places(model, run, images, page, target, labels, most, budget, listeners)
    if page.suffix not in (".html", ".png"):
        raise UsageError(
            _("An explanation is a page or a figure, and {path} is no name for one.").format(path=page),
            _("Give a .html, or for one picture a .png, with -o."),
        )
    with Telling("explain", listeners) as told:
        eyes = open_eyes(folder, device or "auto")
        wanted = 1 if page.suffix == ".png" else most
        pictures = eyes.look(str(images), str(labels) if labels else None, wanted, told.scanned)
        beside, absent = ReasonMasks(masks), list[CaudalError]()
        items: list[ExplainedImage] = []
        with allocator.apart():
            together = at_once(eyes, pictures.shape, budget)
        told.started(eyes.source.card.task, eyes.device, pictures.count, budget, together.needed)
        with allocator.apart(together.gives_back):
            for one in pictures.each(together.side_px):
                try:
                    items.append(_explained(eyes, one, methods, target, beside, together.copies))
                except UsageError as error:
                    if not error.facts.get("nowhere"):
                        raise
                    absent.append(error)
                told.part(len(items) + len(absent), pictures.count)
        if not items:
            raise absent[0]
        warnings = [*eyes.warnings(), *together.warnings, *beside.warnings(), *_absent(absent, target)]
        if page.suffix == ".png":
            write_figure(page, items[0])
        else:
            _write_page(page, folder, eyes, items, warnings)
    figures = items[0].explanations[0].figures()
    result = Result(
        verb="explain",
        run=str(run),
        output=str(page),
        metrics={"pictures": float(len(items)), **figures},
        budget_bytes={"ram": int(budget), "vram": 0},
        predicted_bytes={"ram": int(together.needed), "vram": 0},
        peak_bytes={"ram": int(told.peak), "vram": 0},
        seconds=told.seconds,
        warnings=tuple(warnings),
    )
    return told.ended(result)


def _absent(errors: Sequence[CaudalError], target: str | None) -> list[str]:
    if not errors:
        return []
    said = _("{count} pictures are left out: the model gives class {target} to no pixel of them.")
    return [said.format(count=len(errors), target=target)]


def _of_places(folder: Path, device: str) -> Any:
    """The model, if it is one of sequences or graphs."""
    if not is_of_samples(folder):
        return None
    from caudal.runs.work.explained import PLACED
    from caudal.runs.work.set_model import SetModel

    model = SetModel.load(folder, device)
    return model if model.card.task in PLACED else None


def _explain_places(
    model: Any,
    run: str | Path,
    data: str | Path,
    page: Path,
    target: str | None,
    labels: str | Path | None,
    most: int,
    budget: Bytes,
    listeners: Sequence[Sink],
) -> Result:
    from caudal.runs.steps_and_nodes import check_page, explain_rows

    check_page(page)
    with Telling("explain", listeners) as told:
        figures, predicted, warnings = explain_rows(
            model,
            str(data),
            page,
            title=local_path(str(run)).resolve().name,
            target=target,
            labels=str(labels) if labels else None,
            most=most,
            budget=budget,
            told=told,
        )
    result = Result(
        verb="explain",
        run=str(run),
        output=str(page),
        metrics=figures,
        budget_bytes={"ram": int(budget), "vram": 0},
        predicted_bytes={"ram": int(predicted), "vram": 0},
        peak_bytes={"ram": int(told.peak), "vram": 0},
        seconds=told.seconds,
        warnings=tuple(warnings),
    )
    return told.ended(result)


def _explained(
    eyes: Eyes, one: Seen, methods: Sequence[str], target: str | None, masks: ReasonMasks, copies: int
) -> ExplainedImage:
    from caudal.inference.explain.explain import DEFAULT_METHODS, Looks, explain
    from caudal.inference.explain.methods import Effort
    from caudal.inference.explain.target import TargetScore, choose_target

    index = None
    if target is not None:
        if target not in eyes.class_names:
            raise UsageError(
                _("There is no class “{name}”.").format(name=target),
                _("Use one of: {names}.").format(names=", ".join(eyes.class_names)),
            )
        index = eyes.class_names.index(target)
    chosen = choose_target(eyes.model, one.x_CHW, index)
    looks = Looks(methods=tuple(methods) or DEFAULT_METHODS, effort=Effort(batch=copies))
    lesion_HW = masks.of(one)
    found = explain(eyes.model, one.x_CHW, chosen, looks, lesion_HW=lesion_HW)
    score = TargetScore(eyes.model, chosen)
    raw = score.all_probabilities(one.x_CHW[None])[0].tolist()
    soft = [None] * len(raw)
    if eyes.temperature is not None:
        soft = score.all_probabilities(one.x_CHW[None], eyes.temperature)[0].tolist()
    classes = [ClassProbability(name, p, q) for name, p, q in zip(eyes.class_names, raw, soft, strict=True)]
    return ExplainedImage(one.name, one.picture, classes, found, lesion_HW, one.truth)


def _write_page(
    page: Path, folder: Path, eyes: Eyes, items: Sequence[ExplainedImage], warnings: Sequence[str]
) -> None:
    training: Sequence[Any] = ()
    if (folder / "events.jsonl").is_file():
        from caudal.runs.folder import RunFolder

        training = curves(read_story(RunFolder(folder)))
    else:
        warnings = (
            *warnings,
            _("There is no run beside the model, so its training curves are not shown."),
        )
    calibration = Calibration(eyes.temperature) if eyes.temperature is not None else None
    write_explanations(
        page,
        items,
        title=folder.resolve().name,
        calibration=calibration,
        training=training,
        warnings=warnings,
    )

"""`predict`: a raster of any size, or a folder of images, through a trained model, in flat memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from caudal.core.errors import UsageError
from caudal.core.events import Event, Sink, TileDone
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.locations import located
from caudal.data.pairs import images_in
from caudal.data.paths import local_path
from caudal.data.readers import reader_for
from caudal.data.url import Location
from caudal.inference.encode import Output
from caudal.inference.mosaic import Georeference
from caudal.inference.predict import PredictionSummary, predict_raster
from caudal.memory.levers.tile import Tile
from caudal.memory.levers.weights import Weights
from caudal.runs.loaded import Loaded, Written
from caudal.runs.loading import is_of_samples, load_model, one_folder
from caudal.runs.machine import processors, ram_budget
from caudal.runs.result import Result
from caudal.runs.telling import Telling
from caudal.runs.tiling import Tiling
from caudal.training.retry import naming_want_of_memory

_QUICKLY_READ = 16  # headers
_WEIGHTS = {Weights.HELD: "held", Weights.MAPPED: "mapped"}


def predict(
    run: str | Path,
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str | None = None,
    scores: bool = False,
    average_d4: bool = False,
    exact: bool = False,
    listeners: Sequence[Sink] = (),
) -> Result:
    """Write a class map (or, with `scores`, a probability for each class) of each input as a COG.

    One input is written to the file `out`; several, or a folder, into the folder `out` under their own
    names. Of an anomaly model it is a heat map of its scores, float32, and a table of the images beside it
    (`anomalies.csv`, or the output's name with that ending). `average_d4` averages over the eight symmetries
    of the square, at eight times the cost. `exact` tiles give what the whole raster at once would give, and
    cost more than blended ones. A model of samples writes a table instead, a row for each: CSV, or Parquet
    where `out` ends in `.parquet`.

    Raises:
        BadModel: there is no model that may be opened.
        DataError: an input cannot be read or has other bands.
        DoesNotFit: not even the smallest tile fits into `ram`, or on a GPU into `vram`.
        DiskFull: no space; nothing is left under the output's name.
        IncompleteOutput: a valid pixel got no prediction.
        OutOfMemory: memory that was there when the tiles were chosen is not there any more.
        UsageError: an output would overwrite an input.
    """
    budget = ram_budget(Bytes.parse(ram) if ram is not None else None)
    on_card = Bytes.parse(vram) if vram is not None else None
    folder = local_path(str(run))
    if is_of_samples(folder):
        return _predict_samples(folder, run, inputs, out, budget, on_card, device or "auto", listeners)
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    roots = [located(str(path)) for path in given]
    paths = [path for root in roots for path in images_in(root)]
    target = local_path(str(out), must_exist=False)
    single = len(paths) == 1 and paths == roots and not target.is_dir()
    outputs = [target] if single else _names(paths, target)
    if overwritten := {p.resolve() for p in paths if isinstance(p, Path)} & {p.resolve() for p in outputs}:
        raise UsageError(
            _("{path} is an input; it would be overwritten.").format(path=overwritten.pop()),
            _("Choose another output with -o."),
        )
    with Telling("predict", listeners) as told:
        loaded = load_model(folder, device or "auto", budget, on_card, _largest_side(paths))
        encoding = _encoding(loaded, scores)
        loaded.written = Written(encoding.dtype.itemsize * len(encoding.band_names), average_d4)
        cut, predicted, tiles = loaded.cut(paths, budget, exact, told.scanned)
        card = (loaded.vram, loaded.predicted_vram)
        told.started(loaded.card.task, loaded.device, tiles, budget, predicted, card)
        if not single:  # what cannot be predicted has left no empty folder behind
            target.mkdir(parents=True, exist_ok=True)
        warnings, pixels, done, seconds = list(loaded.warnings), 0, 0, 0.0
        coverage: list[float] = []
        for path, output, tiling in zip(paths, outputs, cut, strict=True):

            def tell(event: Event, done: int = done) -> None:
                told(TileDone(done + event.done, tiles) if isinstance(event, TileDone) else event)

            summary = _predict_one(loaded, path, output, tiling, encoding, average_d4, tell, warnings)
            done += summary.tiles
            pixels += summary.total_px
            seconds += summary.seconds
            wanted_px = summary.valid_px + sum(tile.window.area_px for tile in summary.failed)
            coverage.append(summary.predicted_px / wanted_px if wanted_px else 1.0)
        alarms = _table(loaded, run, paths, outputs, target)
    result = Result(
        verb="predict",
        run=str(run),
        output=str(target),
        metrics={
            "coverage": min(coverage),
            "megapixels": pixels / 1e6,
            "megapixels_per_second": pixels / 1e6 / max(seconds, 1e-9),
            **alarms,
        },
        budget_bytes={"ram": int(budget), "vram": int(loaded.vram or 0)},
        predicted_bytes={"ram": int(predicted), "vram": int(loaded.predicted_vram)},
        peak_bytes=told.peaks,
        seconds=told.seconds,
        levers={
            Tile.name: str(min(tiling.core_px for tiling in cut)),
            Weights.name: _WEIGHTS[loaded.weights],
        },
        warnings=tuple(warnings),
    )
    loaded.margin.note(predicted, told.peak)
    return told.ended(result)


def _predict_samples(
    folder: Path,
    run: str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    budget: Bytes,
    on_card: Bytes | None,
    device: str,
    listeners: Sequence[Sink],
) -> Result:
    from caudal.runs.work.set_model import SetModel
    from caudal.runs.work.set_table import write_predictions

    target = local_path(str(out), must_exist=False)
    if target.suffix not in (".csv", ".parquet"):
        raise UsageError(
            _("Predictions of samples are a table, and {path} is no name for one.").format(path=target),
            _("Give a .csv or .parquet with -o."),
        )
    with Telling("predict", listeners) as told, naming_want_of_memory(_("predicting samples")):
        model = SetModel.load(folder, device, on_card)
        opened, spec = model.open(one_folder(inputs), None, told.scanned, truth=False)
        predicted = model.check(opened, spec, budget)
        card = (model.vram, model.predicted_vram)
        told.started(model.card.task, model.device, len(opened.members), budget, predicted, card)
        write_predictions(model, opened, spec, target, told.part)
    result = Result(
        verb="predict",
        run=str(run),
        output=str(target),
        metrics={"samples": float(len(opened.members))},
        budget_bytes={"ram": int(budget), "vram": int(model.vram or 0)},
        predicted_bytes={"ram": int(predicted), "vram": int(model.predicted_vram)},
        peak_bytes=told.peaks,
        seconds=told.seconds,
        samples_per_second=len(opened.members) / max(told.seconds, 1e-9),
        warnings=(*opened.notes, *opened.samples.broken.words(), *model.warnings),
    )
    model.margin.note(predicted, told.peak)
    return told.ended(result)


def _largest_side(paths: Sequence[Location]) -> int | None:
    """Of squares that hold any of these rasters; `None` where to look at them all would take its time."""
    if len(paths) > _QUICKLY_READ:
        return None
    headers = [reader_for(path).header(path) for path in paths]
    return max((max(header.height, header.width) for header in headers), default=None)


def _names(paths: list[Location], folder: Path) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            _("{path} is a file, and several inputs need a folder.").format(path=folder),
            _("Give a folder with -o."),
        )
    names = [folder / f"{path.stem}.tif" for path in paths]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(
            _("Two inputs would be written to {path}.").format(path=twice.pop()),
            _("Predict them one by one."),
        )
    return names


def _table(
    loaded: Loaded, run: str | Path, paths: Sequence[Location], outputs: Sequence[Path], target: Path
) -> dict[str, float | None]:
    """Of anomalies, a table beside the maps; what it says in short."""
    if loaded.card.task != "anomaly" or loaded.card.threshold is None:
        return {}
    from caudal.runs.anomalies import Thresholds, write_table

    table = target / "anomalies.csv" if target.is_dir() else target.with_suffix(".csv")
    named = [(str(path), output) for path, output in zip(paths, outputs, strict=True)]
    alarms = write_table(table, named, Thresholds.of(loaded, run))
    return {"images": float(len(named)), "anomalous_images": float(alarms)}


def _encoding(loaded: Loaded, scores: bool) -> Output:
    if loaded.card.task == "anomaly":  # its scores have no upper end, so that they are written as they are
        return Output(("anomaly",), kind="scores", scores_dtype="float32")
    values = loaded.classes.values if loaded.classes else range(loaded.card.outputs)
    return Output(tuple(str(value) for value in values), kind="scores" if scores else "classes")


def _predict_one(
    loaded: Loaded,
    path: Location,
    out: Path,
    tiling: Tiling,
    encoding: Output,
    average_d4: bool,
    tell: Sink,
    warnings: list[str],
) -> PredictionSummary:
    with reader_for(path).open(path) as source:
        header = source.header
        number = loaded.normalization.layout_for(header.band_names)
        with naming_want_of_memory(_("predicting {path}").format(path=path)):
            summary = predict_raster(
                source,
                loaded.forward(number),
                out,
                tiling.grid(header),
                encoding,
                threads=processors(),
                overlap=loaded.device != "cpu",
                average_d4=average_d4,
                georeference=Georeference.of(path),
                events=tell,
            )
    warnings += [f"{path}: {tile.reason}" for tile in summary.failed]
    return summary

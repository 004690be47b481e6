"""A process that was told where it may read data reads nothing else, whatever the data name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.data.sets import blob_set, write_tiff

from caudal.core import confined
from caudal.core.errors import DataError
from caudal.data.byte_file import LocalFile
from caudal.data.gdal_open import opened_by_gdal
from caudal.data.locations import list_files, open_bytes, open_with_head
from caudal.data.mvtec import good_images, judged_images
from caudal.data.neighbours.one_graph import open_graph
from caudal.data.pairs import find_pairs, images_in
from caudal.data.readers import known_suffixes, reader_for
from caudal.data.readers.rasterio_source import RasterioSource
from caudal.data.sample_files import sample_readers
from caudal.data.sample_index import index_samples
from caudal.data.sample_listing import list_names
from caudal.data.sample_table import read_table
from caudal.models.generation.layout import read_config
from caudal.models.tensor_files import SafetensorsFile, read_archive

PIXELS = np.ones((8, 8, 1), np.uint8)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder that may be read, under a name that is a link, with a secret beside it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "out").mkdir()
    write_tiff(tmp_path / "out" / "m.tif", PIXELS)
    (tmp_path / "root").symlink_to(tmp_path / "real")
    for name, value in confined.environment([tmp_path / "root"]).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "root"


def refused(act: Callable[[], object]) -> None:
    with pytest.raises(DataError, match="folders") as error:
        act()
    assert error.value.code == "data"
    assert error.value.hint


def test_nothing_is_bounded_where_nobody_said_so(tmp_path: Path) -> None:
    assert not confined.is_confined()
    confined.check_path("/etc/passwd")
    confined.check_remote("https://example.org/a.tif")
    os.close(confined.open_plain("/etc/passwd"))


def test_what_lies_below_a_folder_is_read_and_links_count_by_where_they_lead(root: Path) -> None:
    write_tiff(root / "a.tif", PIXELS)
    (root / "inner.tif").symlink_to(root / "a.tif")
    (root / "outer.tif").symlink_to("../out/m.tif")
    (root / "away").symlink_to("../out")
    for name in ("a.tif", "inner.tif"):
        LocalFile(root / name).close()
        confined.check_path(root / name)
    for path in (root / "outer.tif", root / "away" / "m.tif", root / ".." / "out" / "m.tif", root.parent):
        refused(lambda path=path: os.close(confined.open_plain(path)))
        refused(lambda path=path: confined.check_path(path))
    # a neighbour whose name begins alike
    (root.parent / "real2").mkdir()
    refused(lambda: confined.check_path(root.parent / "real2"))


def test_nobody_hears_whether_something_is_there_outside(root: Path) -> None:
    sentences = set()
    for name in ("m.tif", "nothing.tif"):
        with pytest.raises(DataError) as error:
            open_bytes(root.parent / "out" / name)
        sentences.add(error.value.message.replace(name, "…"))
    assert len(sentences) == 1


@pytest.mark.parametrize(
    "text",
    [
        "{out}/m.tif",
        "../out/m.tif",
        "https://10.0.0.1/m.tif",
        "s3://bucket/m.tif",
        "local:///etc/passwd",
        "link.tif",
    ],
)
def test_a_table_of_pairs_names_files_of_the_folders_alone(root: Path, text: str) -> None:
    write_tiff(root / "a.tif", PIXELS)
    (root / "link.tif").symlink_to("../out/m.tif")
    named = text.format(out=root.parent / "out")
    for row in (f"{named},a.tif", f"a.tif,{named}"):
        (root / "p.csv").write_text(f"image,mask\n{row}\n")
        refused(lambda: find_pairs([str(root / "p.csv")], []))
    (root / "p.csv").write_text("image,mask\na.tif,a.tif\n")
    assert len(find_pairs([str(root / "p.csv")], [])) == 1


@pytest.mark.parametrize("url", ["https://10.0.0.1/m.tif", "s3://bucket/", "gs://b/x.npy", "memory://a.npy"])
def test_no_address_is_asked(root: Path, url: str) -> None:
    for act in (open_bytes, open_with_head, lambda one: list_files(one, [".tif"])):
        refused(lambda act=act: act(url))
    refused(lambda: index_samples(url))


@pytest.mark.parametrize("suffix", sorted({*known_suffixes(), *sample_readers()}))
def test_a_folder_with_a_link_that_leads_out_is_refused_whatever_the_format(root: Path, suffix: str) -> None:
    (root / "set").mkdir()
    (root / "set" / f"a{suffix}").symlink_to("../../out/m.tif")
    folder = str(root / "set")
    refused(lambda: list_files(folder, [suffix]))
    refused(lambda: list_names(folder, [suffix]))
    if suffix in sample_readers():
        refused(lambda: index_samples(folder))
        refused(lambda: index_samples(f"{folder}/a{suffix}"))
    if suffix in known_suffixes():
        refused(lambda: images_in(folder))
        refused(lambda: reader_for(f"{folder}/a{suffix}").header(root / "set" / f"a{suffix}"))


def test_a_linked_folder_is_not_listed(root: Path) -> None:
    (root / "train").symlink_to("../out")
    (root / "test").symlink_to("../out")
    refused(lambda: good_images(root))
    refused(lambda: judged_images(root))
    refused(lambda: images_in(root / "train"))


def test_gdal_opens_no_file_that_names_others_and_none_beside_it_that_leads_out(root: Path) -> None:
    vrt = f"""<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">
      <SimpleSource><SourceFilename>{root.parent}/out/m.tif</SourceFilename><SourceBand>1</SourceBand>
      </SimpleSource></VRTRasterBand></VRTDataset>"""
    (root / "v.tif").write_text(vrt)
    with pytest.raises(Exception, match="first bytes"), opened_by_gdal(root / "v.tif"):
        pass
    for path in (root.parent / "out" / "m.tif", Path(f"/vsizip/{root.parent}/out/m.zip/m.tif")):
        refused(lambda path=path: opened_by_gdal(path).__enter__())
        refused(lambda path=path: RasterioSource(path))
    write_tiff(root / "b.tif", PIXELS)
    with opened_by_gdal(root / "b.tif") as raster:
        assert raster.width == 8
    (root.parent / "out" / "aux.xml").write_text("<PAMDataset></PAMDataset>")
    (root / "b.tif.aux.xml").symlink_to("../out/aux.xml")
    refused(lambda: opened_by_gdal(root / "b.tif").__enter__())


def test_labels_and_graphs_that_are_links_are_refused(root: Path) -> None:
    (root.parent / "out" / "labels.csv").write_text("file,label\na,1\n")
    (root / "labels.csv").symlink_to("../out/labels.csv")
    np.save(root / "x.npy", np.ones((3, 2)))
    refused(lambda: read_table(root / "labels.csv", index_samples(str(root / "x.npy"))))
    (root / "graph").mkdir()
    np.save(root.parent / "out" / "x.npy", np.ones((3, 2)))
    for name in ("x.npy", "ends.npy", "neighbours.npy", "nodes.npz"):
        (root / "graph" / name).symlink_to("../../out/x.npy")
    refused(lambda: open_graph(root / "graph"))


def test_the_parts_of_a_model_lie_in_the_folders(root: Path) -> None:
    out = root.parent / "out"
    save_file({"a": np.ones(3)}, out / "model.safetensors")
    (out / "config.json").write_text("{}")
    for name in ("model.safetensors", "config.json"):
        (root / name).symlink_to(out / name)
    refused(lambda: SafetensorsFile(root / "model.safetensors"))
    refused(lambda: read_archive(root / "model.safetensors"))
    refused(lambda: read_config(root))


def test_an_index_of_weights_names_no_file_elsewhere(root: Path) -> None:
    from caudal.models.pretrained import _refuse_parts_elsewhere

    (root / "model").mkdir()
    index = {"weight_map": {"a": "../../out/model.safetensors"}}
    (root / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(lambda: _refuse_parts_elsewhere(str(root / "model")))
    refused(lambda: _refuse_parts_elsewhere("owner/name"))


def test_a_set_in_a_folder_is_found_as_it_was(root: Path) -> None:
    blob_set(root / "set", [(16, 16)] * 2)
    assert len(find_pairs([str(root / "set")], [])) == 2
    assert len(list_names(str(root / "set"), [".tif"])) == 4

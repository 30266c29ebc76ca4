"""Maps as other programs open them: the same numbers, the right place and size, and no name that does harm."""

from __future__ import annotations

import csv
import gzip
import json
import uuid
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from compseg.cohort import prepare
from compseg.errors import CompsegError
from compseg.exports import ome, pictures, stored, viewer
from compseg.exports.maps import WRITERS, export_maps
from compseg.exports.viewer import reader_of
from compseg.file_names import printable
from compseg.files import from_cell
from compseg.inference.images import NewImage, new_images
from compseg.inference.prediction import predict
from compseg.plots.overlay import translucent
from compseg.samples import Channels, SampleArrays, SampleInfo
from hostile_names import NAMES, snapshot
from running import run_here

SHAPE = (70, 50)


class Cubes:
    """A source of two samples of random numbers, some of them off tissue."""

    def infos(self):
        return [SampleInfo(name, label, split="test") for label, name in enumerate(("a", "b"))]

    def read(self, info):
        image = np.random.default_rng(info.label).random((*SHAPE, 3)).astype("f4")
        return SampleArrays(image, tissue=np.indices(SHAPE)[0] > 8)

    def channels(self):
        return Channels(3)

    def provenance(self):
        return {}


@pytest.fixture(scope="module")
def predicted(segmenter, tmp_path_factory) -> Path:
    """Maps of a cohort whose pixels are 5.5 micrometres wide; of one of them it is known how far they differ."""
    root = tmp_path_factory.mktemp("predicted")
    prepare(Cubes(), root / "c.zarr", splits={"train": 0, "val": 0, "test": 1, "seed": 0}, pixel_size=5.5)
    predict(segmenter, new_images(root / "c.zarr"), root / "maps of c", uncertainty=True)
    (root / "maps of c/maps/b_spread.npy").unlink()
    return root / "maps of c"


def activation(folder, name="a"):
    return np.load(folder / "maps" / f"{name}.npy")


def mask(folder, name="a"):
    return np.asarray(Image.open(folder / "maps" / f"{name}_mask.png")) > 0


def spread(folder):
    return np.load(folder / "maps/a_spread.npy")


def bands(folder):
    return np.stack([activation(folder), mask(folder), spread(folder)])


def export(folder, format, out, **options):
    keys = ("threshold", "pixel_size", "pixel_unit")
    sizes = {key: options.pop(key) for key in keys if key in options}
    return export_maps(folder, format, out, **sizes, options=options)


def in_strips(monkeypatch, rows=16):
    """Small strips, tiles and levels, so that a small map has several of each."""
    for module in (stored, pictures, ome):
        monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(ome, "TILE", rows)
    monkeypatch.setattr(ome, "SMALLEST_LEVEL", 20)


def test_png_is_a_layer_without_seams(predicted, tmp_path, monkeypatch):
    in_strips(monkeypatch)
    monkeypatch.setattr(pictures, "outline_width", lambda _: 3)
    path, _ = export(predicted, "png", tmp_path)
    picture = Image.open(path)
    assert picture.mode == "RGBA"
    assert (np.asarray(picture) == translucent(activation(predicted), mask(predicted), 3)).all()


def test_npy_is_the_map_and_its_mask(predicted, tmp_path, monkeypatch):
    in_strips(monkeypatch)
    export(predicted, "npy", tmp_path)
    assert (np.load(tmp_path / "a.npy") == activation(predicted)).all()
    assert (np.load(tmp_path / "a_mask.npy") == mask(predicted)).all()
    assert (np.load(tmp_path / "a_spread.npy") == spread(predicted)).all()
    assert not (tmp_path / "b_spread.npy").exists()


def test_envi_has_bands_and_the_size_of_a_pixel_in_metres(predicted, tmp_path, monkeypatch):
    in_strips(monkeypatch)
    export(predicted, "envi", tmp_path, class_name="tumour {grade 3},\nhigh")
    header = (tmp_path / "a.hdr").read_text()
    assert "pixel size = {5.5e-06, 5.5e-06}" in header
    assert "bands = 2" in (tmp_path / "b.hdr").read_text()
    assert (np.fromfile(tmp_path / "a.img", "<f4").reshape(3, *SHAPE) == bands(predicted)).all()
    envi = pytest.importorskip("spectral.io.envi", reason="spectral is not installed; it is in compseg[dev]")
    image = envi.open(tmp_path / "a.hdr", tmp_path / "a.img")
    assert (np.moveaxis(np.asarray(image.load()), 2, 0) == bands(predicted)).all()
    assert image.metadata["band names"] == ["activation", r"tumour _grade 3__\nhigh", "spread"]


def test_ome_tiff_has_a_pyramid_and_the_size_of_a_pixel(predicted, tmp_path, monkeypatch):
    in_strips(monkeypatch)
    path, _ = export(predicted, "ome_tiff", tmp_path, class_name="<tumour>")
    again, _ = export(predicted, "ome_tiff", tmp_path / "again", class_name="<tumour>")
    assert again.read_bytes() == path.read_bytes()
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert (series.axes, series.shape) == ("CYX", (3, *SHAPE))
        assert len(series.levels) == 3
        for level, image in enumerate(series.levels):
            step = 2**level
            assert (image.asarray() == bands(predicted)[:, ::step, ::step]).all()
        described = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert {described[f"PhysicalSize{axis}"] for axis in "XY"} == {5.5}
    assert {described[f"PhysicalSize{axis}Unit"] for axis in "XY"} == {"µm"}
    assert [channel["Name"] for channel in described["Channel"]] == ["activation", "<tumour>", "spread"]


@pytest.mark.parametrize(("version", "zarr_format"), [("0.5", 3), ("0.4", 2)])
def test_ome_zarr_has_a_pyramid_and_the_size_of_a_pixel(predicted, tmp_path, monkeypatch, version, zarr_format):
    in_strips(monkeypatch)
    for _ in range(2):  # the second time in place of the first
        path, _ = export(predicted, "ome_zarr", tmp_path, ome_zarr=version)
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == zarr_format
    attributes = dict(group.attrs)["ome"] if zarr_format == 3 else dict(group.attrs)
    (image,) = attributes["multiscales"]
    assert attributes.get("version", image.get("version")) == version
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    assert [axis.get("unit") for axis in image["axes"]] == [None, "micrometer", "micrometer"]
    for level, dataset in enumerate(image["datasets"]):
        step = 2**level
        assert (group[dataset["path"]][:] == bands(predicted)[:, ::step, ::step]).all()
        assert dataset["coordinateTransformations"] == [{"type": "scale", "scale": [1, 5.5 * step, 5.5 * step]}]
    assert len(image["datasets"]) == 3
    assert [channel["label"] for channel in attributes["omero"]["channels"]] == ["activation", "disease", "spread"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ome.zarr", "b.ome.zarr", "export.json"]
    yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs is not installed; it is in compseg[dev]")
    yaozarrs.validate_zarr_store(str(path))


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_ngff_zarr_opens_ome_zarr(predicted, tmp_path, monkeypatch, version):
    ngff_zarr = pytest.importorskip("ngff_zarr", reason="ngff-zarr is not installed; it is in compseg[dev]")
    in_strips(monkeypatch)
    path, _ = export(predicted, "ome_zarr", tmp_path, ome_zarr=version)
    for level, image in enumerate(ngff_zarr.from_ngff_zarr(path).images):
        assert image.scale == {"c": 1, "y": 5.5 * 2**level, "x": 5.5 * 2**level}
        assert image.axes_units == {"c": None, "y": "micrometer", "x": "micrometer"}
        assert (np.asarray(image.data) == bands(predicted)[:, :: 2**level, :: 2**level]).all()


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_ome_zarr_opens_its_own_format(predicted, tmp_path, monkeypatch, version):
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed; it is in compseg[dev]")
    in_strips(monkeypatch)
    path, _ = export(predicted, "ome_zarr", tmp_path, ome_zarr=version)
    (node,) = reader.Reader(reader.ZarrLocation(str(path)))()
    for level, data in enumerate(node.data):
        scale = [1, 5.5 * 2**level, 5.5 * 2**level]
        assert node.metadata["coordinateTransformations"][level] == [{"type": "scale", "scale": scale}]
        assert (np.asarray(data) == bands(predicted)[:, :: 2**level, :: 2**level]).all()
    assert [axis.get("unit") for axis in node.metadata["axes"]] == [None, "micrometer", "micrometer"]
    assert node.metadata["channel_names"] == ["activation", "disease", "spread"]


def test_geojson_is_what_qupath_reads(predicted, tmp_path):
    path, _ = export(predicted, "geojson", tmp_path, class_name="tumour")
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    features = collection["features"]
    assert len({uuid.UUID(feature["id"]) for feature in features}) == len(features) > 1
    for feature in features:
        assert (feature["type"], feature["geometry"]["type"]) == ("Feature", "Polygon")
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert properties["classification"] == {"name": "tumour", "color": [213, 94, 0]}
        measured = properties["measurements"]
        assert measured["Area µm^2"] == pytest.approx(5.5**2 * measured["Area px^2"])
        assert 0.5 < measured["Mean activation"] <= 1
        assert 0 < measured["Mean spread"] <= 0.5
    pixels = sum(feature["properties"]["measurements"]["Area px^2"] for feature in features)
    assert pixels == mask(predicted).sum()
    again, _ = export(predicted, "geojson", tmp_path / "again", class_name="tumour")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("options", [{}, {"scale": [4, 2], "offset": [100, -7.5], "tma_core": True}])
def test_geojson_is_what_the_standard_asks_for(predicted, tmp_path, options):
    """RFC 7946: its model, closed rings, outlines counterclockwise, holes clockwise; the area is that of the mask."""
    geojson = pytest.importorskip("geojson_pydantic", reason="geojson-pydantic is not installed; it is in compseg[dev]")
    shapely = pytest.importorskip("shapely", reason="shapely is not installed; it is in compseg[dev]")
    path, _ = export(predicted, "geojson", tmp_path, **options)
    features = geojson.FeatureCollection.model_validate_json(path.read_bytes()).features
    polygons = [feature.geometry.coordinates for feature in features[bool(options.get("tma_core")) :]]
    assert any(len(rings) > 1 for rings in polygons)
    for feature in features:
        outline, *holes = feature.geometry.coordinates
        assert all(ring[0] == ring[-1] for ring in (outline, *holes))
        assert [shapely.LinearRing(ring).is_ccw for ring in (outline, *holes)] == [True] + [False] * len(holes)
    shapes = [shapely.Polygon(outline, holes) for outline, *holes in polygons]
    assert all(shape.is_valid for shape in shapes)
    pixel = np.prod(options.get("scale", 1))
    assert sum(shape.area for shape in shapes) == shapely.union_all(shapes).area == pixel * mask(predicted).sum()


def test_geojson_in_the_coordinates_of_another_picture(predicted, tmp_path):
    plain, moved = (
        json.loads(gzip.decompress(export(predicted, "geojson", tmp_path / name, gzip=True, **placing)[0].read_bytes()))
        for name, placing in (("plain", {}), ("moved", {"offset": [100, -7.5], "scale": [4, 2]}))
    )
    for one, other in zip(plain["features"], moved["features"], strict=True):
        for ring, ring_moved in zip(one["geometry"]["coordinates"], other["geometry"]["coordinates"], strict=True):
            assert np.allclose(np.array(ring) * [4, 2] + [100, -7.5], ring_moved)
        assert one["properties"] == other["properties"]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_is_a_table_of_maps_and_one_of_regions(predicted, tmp_path):
    export(predicted, "csv", tmp_path)
    areas, found = table(tmp_path / "areas.csv"), table(tmp_path / "regions.csv")
    for row, known in zip(areas, table(predicted / "areas.csv"), strict=True):
        assert {key: row[key] for key in ("sample", "tissue_pixels", "area_fraction")} == {
            key: known[key] for key in ("sample", "tissue_pixels", "area_fraction")
        }
        regions = [region for region in found if region["sample"] == row["sample"]]
        assert len(regions) == int(row["regions"])
        assert sum(int(region["area_pixels"]) for region in regions) == mask(predicted, row["sample"]).sum()
        assert float(row["area"]) == pytest.approx(5.5**2 * int(row["area_pixels"]))
        marked = activation(predicted, row["sample"])[mask(predicted, row["sample"])]
        assert float(row["mean_activation"]) == pytest.approx(marked.mean(), rel=1e-5)
    assert float(areas[0]["mean_spread"]) == pytest.approx(spread(predicted)[mask(predicted)].mean(), rel=1e-5)
    assert {row["mean_spread"] for row in (areas[1], *found) if row["sample"] == "b"} == {""}


def test_another_threshold_and_size(predicted, tmp_path):
    export(predicted, "csv", tmp_path, threshold=0.9, pixel_size=2, pixel_unit="mm")
    for row in table(tmp_path / "areas.csv"):
        assert int(row["area_pixels"]) == (activation(predicted, row["sample"]) > np.float32(0.9)).sum()
        assert (float(row["area"]), row["unit"]) == (4 * int(row["area_pixels"]), "mm^2")


@pytest.mark.parametrize("format", WRITERS)
def test_names_do_no_harm(segmenter, tmp_path, format):
    image = np.random.default_rng(0).random((9, 8, 3)).astype("f4")
    np.save(tmp_path / "image.npy", image)
    names = [name for name in NAMES if name]
    predict(segmenter, [NewImage(name, tmp_path / "image.npy") for name in names], tmp_path / "predicted")
    before = snapshot(tmp_path)
    paths = export(tmp_path / "predicted", format, tmp_path / "out", **hostile(format))
    after = snapshot(tmp_path)
    assert all(after[path] == digest for path, digest in before.items()), "nothing that was there has changed"
    assert len(set(paths)) == len(paths)
    assert all(path.resolve().parent == (tmp_path / "out").resolve() and path.exists() for path in paths)
    if format == "csv":
        rows = table(tmp_path / "out/areas.csv")
        assert [from_cell(row["sample"]) for row in rows] == [
            name.encode(errors="backslashreplace").decode() for name in names
        ]
    else:
        assert len(paths) in (len(names), 2 * len(names))
    if format == "geojson":
        found = {json.loads(path.read_text())["features"][0]["properties"]["name"] for path in paths}
        assert found == set(names)
    if format == "ome_tiff":
        for path in paths:
            with tifffile.TiffFile(path) as file:
                assert file.series[0].shape == (2, 9, 8)


def test_names_do_no_harm_in_napari(segmenter, tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((9, 8, 3)).astype("f4"))
    names = [name for name in NAMES if name]
    predict(segmenter, [NewImage(name, tmp_path / "image.npy") for name in names], tmp_path / "predicted")
    layers = reader_of(str(tmp_path / "predicted"))(str(tmp_path / "predicted"))
    shown = [printable(name) for name in names]
    assert [style["name"] for _, style, kind in layers if kind == "image"] == shown
    assert [style["name"] for _, style, kind in layers if kind == "labels"] == [f"{name}: marked" for name in shown]


def hostile(format):
    return {} if format in ("png", "npy") else {"class_name": '=1+1 <script>"\n\x1b日本{},'}


def test_maps_of_an_evaluation(trained, tmp_path):
    """The verb, on a run folder: its metrics have the threshold, its configuration the cohort; it stays as it is."""
    before = snapshot(trained.run)
    assert run_here("export", f"maps={trained.run}", "format=geojson", f"out={tmp_path}/q", "gzip=true") == 0
    assert snapshot(trained.run) == before
    threshold = json.loads((trained.run / "metrics.json").read_text())["threshold"]
    rows = table(trained.run / "samples.csv")
    for row in rows:
        features = json.loads(gzip.decompress((tmp_path / f"q/{row['sample']}.geojson.gz").read_bytes()))["features"]
        pixels = sum(feature["properties"]["measurements"]["Area px^2"] for feature in features)
        assert pixels == (activation(trained.run, row["sample"]) > np.float32(threshold)).sum()
    assert len(list((tmp_path / "q").glob("*.geojson.gz"))) == len(rows)


def test_predict_exports_at_once(trained, tmp_path, capsys):
    words = ("predict", f"run={trained.run}", f"input={trained.cohort}", f"out={tmp_path}/m", "device=cpu")
    assert run_here(*words, "formats=[geojsn]") == 1
    assert "did you mean 'geojson'?" in capsys.readouterr().err
    assert run_here(*words, "formats=[geojson,csv]", "uncertainty=true") == 0
    rows = table(tmp_path / "m/areas.csv")
    for row in rows:
        features = json.loads((tmp_path / f"m/geojson/{row['sample']}.geojson").read_text())["features"]
        assert all("Mean spread" in feature["properties"]["measurements"] for feature in features)
        assert 0 < float(row["mean_spread"]) <= 0.5
    assert len(table(tmp_path / "m/csv/areas.csv")) == len(rows) > 0


REFUSED = {
    "no maps": ({}, "geojson", {}, "prediction.json"),
    "an idle key": (None, "png", {"gzip": True}, "gzip: does nothing in format=png"),
    "an idle size": (None, "npy", {"pixel_size": 1}, "pixel_size: does nothing"),
    "a unit alone": (None, "csv", {"pixel_unit": "um"}, "without pixel_size="),
    "a size of 0": (None, "csv", {"pixel_size": 0}, "pixel_size=0"),
    "no length": (None, "csv", {"pixel_size": 1, "pixel_unit": "furlong"}, "expected nm, um"),
    "a threshold": (None, "csv", {"threshold": 2}, r"in \[0, 1\]"),
    "a mirrored map": (None, "geojson", {"scale": -1}, "mirrored"),
    "one number": (None, "geojson", {"offset": [1]}, r"\[x,y\]"),
    "words": (None, "geojson", {"scale": ["a", "b"]}, r"\[x,y\]"),
    "a version": (None, "ome_zarr", {"ome_zarr": "0.3"}, "0.5 or 0.4"),
}


@pytest.mark.parametrize(("folder", "format", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exported_is_refused(predicted, tmp_path, folder, format, options, words):
    with pytest.raises(CompsegError, match=words):
        export(predicted if folder is None else tmp_path, format, tmp_path / "out", **options)


def test_the_maps_are_never_overwritten(predicted, tmp_path):
    for out in (predicted, predicted / "maps"):
        with pytest.raises(CompsegError, match="overwritten"):
            export(predicted, "npy", out)
    (tmp_path / "a.ome.zarr").mkdir()
    with pytest.raises(CompsegError, match="no Zarr group"):
        export(predicted, "ome_zarr", tmp_path)


def test_a_folder_holds_exports_of_the_same_maps_alone(segmenter, predicted, tmp_path):
    np.save(tmp_path / "image.npy", np.ones((9, 8, 3), "f4"))
    predict(segmenter, [NewImage("other", tmp_path / "image.npy")], tmp_path / "others")
    (tmp_path / "out").mkdir()
    left = tmp_path / f"out/.a.png.{32 * '0'}.partial"  # as a killed export leaves it
    left.touch()
    for format in ("csv", "png", "csv"):
        export(predicted, format, tmp_path / "out")
    assert not left.exists()
    with pytest.raises(CompsegError, match=r"holds what was exported of .*maps of c; give another out="):
        export(tmp_path / "others", "csv", tmp_path / "out")
    areas = (predicted / "areas.csv").read_bytes()
    with pytest.raises(CompsegError, match="holds a prediction, beside which an export"):
        export(tmp_path / "others", "csv", predicted)
    assert (predicted / "areas.csv").read_bytes() == areas


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_or_missing_map(segmenter, tmp_path, content):
    np.save(tmp_path / "image.npy", np.ones((9, 8, 3), "f4"))
    predict(segmenter, [NewImage("a", tmp_path / "image.npy")], tmp_path)
    (tmp_path / "maps/a.npy").write_bytes(content)
    with pytest.raises(CompsegError, match=r"a\.npy"):
        export(tmp_path, "npy", tmp_path / "out")
    (tmp_path / "maps/a.npy").unlink()
    with pytest.raises(CompsegError, match=r"a\.npy: missing"):
        export(tmp_path, "npy", tmp_path / "out")


def test_a_spread_of_another_size_is_refused(segmenter, tmp_path):
    np.save(tmp_path / "image.npy", np.ones((9, 8, 3), "f4"))
    predict(segmenter, [NewImage("a", tmp_path / "image.npy")], tmp_path)
    np.save(tmp_path / "maps/a_spread.npy", np.zeros((9, 7), "f4"))
    with pytest.raises(CompsegError, match=r"a_spread\.npy: is not of the size of its map"):
        export(tmp_path, "npy", tmp_path / "out")


def test_an_unknown_format_is_answered_with_the_nearest(predicted, tmp_path, capsys):
    assert run_here("export", f"maps={predicted}", "format=geojsn", f"out={tmp_path}/q") == 1
    assert "did you mean 'geojson'?" in capsys.readouterr().err


def test_a_core_of_an_array_comes_before_its_regions(predicted, tmp_path):
    found = {}
    for core in (False, True):
        export(predicted, "geojson", tmp_path / str(core), scale=2, offset=[10, 20], tma_core=core, class_name="t")
        found[core] = json.loads((tmp_path / str(core) / "a.geojson").read_text())["features"]
    first, *rest = found[True]
    assert rest == found[False]
    assert first["properties"] == {"objectType": "tmaCore", "name": "a", "isMissing": False}
    height, width = SHAPE
    corners = [[10, 20], [10 + 2 * width, 20], [10 + 2 * width, 20 + 2 * height], [10, 20 + 2 * height], [10, 20]]
    assert first["geometry"]["coordinates"] == [corners]
    uuid.UUID(first["id"])


def test_napari_opens_maps_and_cohorts_and_nothing_else(predicted, tmp_path):
    layers = reader_of(str(predicted))(str(predicted))
    assert [kind for _, _, kind in layers] == ["image", "labels", "image", "image", "labels"]
    assert (layers[2][0] == spread(predicted)).all()
    assert (layers[0][0] == activation(predicted)).all()
    assert (layers[1][0] == mask(predicted)).all()
    assert layers[0][1]["scale"] == [5.5, 5.5]
    cohort = str(predicted.parent / "c.zarr")
    (image, look, kind), (tissue, below, _), *_ = reader_of(cohort)(cohort)
    assert (image.shape, kind, look["name"], below["name"]) == ((3, *SHAPE), "image", "a", "a: tissue")
    assert (look["scale"], below["scale"]) == ([1, 5.5, 5.5], [5.5, 5.5])
    assert look["units"] == ["pixel", "micrometer", "micrometer"]
    assert (tissue == (np.indices(SHAPE)[0] > 8)).all()
    for other in (str(tmp_path), str(predicted / "areas.csv"), [cohort, cohort]):
        assert reader_of(other) is None


def test_napari_is_not_given_more_than_it_can_show(predicted, monkeypatch, caplog):
    monkeypatch.setattr(viewer, "SHOWN", 1)
    for folder, layers in ((predicted, 3), (predicted.parent / "c.zarr", 2)):
        assert len(reader_of(str(folder))(str(folder))) == layers
        assert "shows the first 1 of 2 samples" in caplog.text
        caplog.clear()


def test_napari_takes_the_manifest():
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(Path(viewer.__file__).parents[1] / "napari.yaml")
    (command,) = manifest.contributions.commands
    assert command.python_name == f"{reader_of.__module__}:{reader_of.__name__}"
    assert manifest.contributions.readers[0].command == command.id

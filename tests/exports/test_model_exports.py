"""A graph gives the maps of the segmenter that it was made of, from raw cubes, at any size and batch."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from compseg.comparative import FisherPseudoLabels
from compseg.config import compose, conf_dir
from compseg.errors import CompsegError
from compseg.evaluation.thresholds import fixed
from compseg.exports import model as exported
from compseg.inference import Segmenter
from compseg.inference.cam import GradCAM
from compseg.models import AllOnes, Padded, PaDiM, PatchCore, SingleBand, SpectralSpatial, UNet
from compseg.preprocessing import Derivative, Detrend, Preprocess, StandardNormalVariate, VectorNorm
from compseg.samples import Channels
from running import run_here

C = 8
SIZES = [(64, 64), (50, 67), (33, 129), (5, 3)]
NAMES = sorted({file.stem for file in (conf_dir() / "model").glob("*.yaml")} - {"swin_unetr"})
# In place of what a cohort decides; and of fewer features, since their number changes nothing in a graph but its size.
CHANGED = {
    "unet_shallow": ["model.depth=1"],
    "pretrained": ["model.magnify=2"],
    "unet": ["model.width=8"],
    "segnet": ["model.width=8"],
}
ONNX = "is not installed; it is in compseg[export]"


def segmenter_of(net, corrections=(), contrast=True, dtype="float16"):
    """A segmenter of random numbers whose maps are neither flat nor saturated."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.out_channels == 1:
            torch.nn.init.normal_(layer.weight, std=min(0.3, layer.weight[0].numel() ** -0.5))
    preprocess = Preprocess(C, corrections)
    preprocess.mean.normal_()
    preprocess.std.uniform_(0.5, 2)
    labeller = FisherPseudoLabels(C) if contrast else None
    if labeller is not None:
        labeller.filter.normal_()
        labeller.highest.normal_()
        labeller.level.fill_(0.3)
    return Segmenter(net, preprocess, {}, {}, Channels(C), "all", dtype, fixed(0.5), pseudo_labels=labeller)


def samples(batch, height, width, seed=0):
    generator = np.random.default_rng(seed)
    cubes = 3 * generator.random((batch, height, width, C), np.float32)
    return cubes, generator.random((batch, height, width)) > 0.2


def differences(segmenter, run, batch, height, width):
    """The largest of each sample."""
    cubes, tissue = samples(batch, height, width)
    maps = np.stack([segmenter(cube, mask) for cube, mask in zip(cubes, tissue, strict=True)])
    assert maps.std() > 0 or isinstance(segmenter.model, AllOnes)
    found = run(np.ascontiguousarray(np.moveaxis(cubes, 3, 1)), tissue[:, None])
    assert found.shape == (batch, 1, height, width)
    return np.abs(found[:, 0] - maps).max((1, 2))


def onnx_of(segmenter):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} {ONNX}")
    content = exported.to_onnx(exported.traced(segmenter), exported.description(segmenter, onnx=True))
    return exported._onnx_runs(content)


def torch_of(segmenter):
    return exported._torch_runs(exported.to_torch(exported.traced(segmenter)))


@pytest.mark.slow
@pytest.mark.parametrize("make", [torch_of, onnx_of], ids=["torch", "onnx"])
def test_a_small_unet_at_every_size(make):
    segmenter = segmenter_of(UNet(C, width=4, depth=2, norm="batch"), [Detrend(C, 2), StandardNormalVariate()])
    run = make(segmenter)
    for height, width in SIZES:
        for batch in (1, 7):
            assert differences(segmenter, run, batch, height, width).max() <= 1e-4


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def bank_of(net):
    net.bank.normal_()
    return net


CASES = {
    "derivative": lambda: segmenter_of(SpectralSpatial(C, width=4), [Derivative(1, 5, 2), VectorNorm()], False),
    "a band": lambda: segmenter_of(SingleBand(C), [], False, "float32"),
    "all ones": lambda: segmenter_of(AllOnes(), [], False),
    "padim": lambda: segmenter_of(PaDiM(C, magnify=1.5, encoder_weights=None), [], False),
    "patchcore": lambda: segmenter_of(bank_of(PatchCore(C, memory=20, magnify=0.8, encoder_weights=None)), [], False),
}


@pytest.mark.parametrize("case", CASES)
def test_corrections_and_baselines(case):
    segmenter = CASES[case]()
    assert differences(segmenter, torch_of(segmenter), 2, 33, 29).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_segmenter(name):
    """From raw cubes to maps. The contrast is before any network, and is in the small U-Net's graph above.

    It takes longer to trace than all else.
    """
    cfg = compose("train", [f"model={name}", f"channels={C}", *CHANGED.get(name, [])])
    try:
        net = instantiate(cfg.model)
    except Exception as error:  # Hydra's own, around the reason
        if not any(isinstance(cause, ImportError) for cause in causes(error)) and "pip install" not in str(error):
            raise
        pytest.skip(str(error))
    segmenter = segmenter_of(net, [Detrend(C, 2), StandardNormalVariate()], contrast=False)
    run = onnx_of(segmenter)
    for height, width in SIZES:
        found = np.concatenate([differences(segmenter, run, batch, height, width) for batch in (1, 7)])
        # SegNet puts maxima back where they were found, and two may be equal but for rounding.
        assert (np.median(found) if name == "segnet" else found.max()) <= 1e-4
        assert found.max() <= 0.05


def test_the_verb(trained, tmp_path):
    """`torch`, from the run folder to a file that torch alone opens, with a description beside it."""
    assert run_here("export", f"run={trained.run}", "format=torch", f"out={tmp_path}/out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "model.pt2"]
    described = json.loads((tmp_path / "out/model.json").read_text())
    assert described["whole_samples"] is True
    assert described["channels"]["count"] == 8
    assert 0 <= described["threshold"]["value"] <= 1
    program = torch.export.load(io.BytesIO((tmp_path / "out/model.pt2").read_bytes()))
    activation = program.module()(torch.rand(1, 8, 9, 11), torch.ones(1, 1, 9, 11, dtype=torch.bool))
    assert activation.shape == (1, 1, 9, 11)


@pytest.mark.slow
def test_onnx_describes_itself(trained, tmp_path):
    onnx = pytest.importorskip("onnx", reason=f"onnx {ONNX}")
    pytest.importorskip("onnxscript", reason=f"onnxscript {ONNX}")
    assert run_here("export", f"run={trained.run}", "format=onnx", f"out={tmp_path}") == 0
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == exported.OPSET
    (text,) = (item.value for item in model.metadata_props if item.key == "compseg")
    assert json.loads(text) == json.loads((tmp_path / "model.json").read_text())


def patched(monkeypatch, segmenter):
    monkeypatch.setattr(exported, "load_segmenter", lambda *_, **__: segmenter)


def test_a_graph_that_differs_is_not_written(tmp_path, monkeypatch):
    segmenter = segmenter_of(AllOnes(), [], False)
    patched(monkeypatch, segmenter)
    right = exported._torch_runs
    monkeypatch.setattr(exported, "_torch_runs", lambda content: lambda *given: right(content)(*given) + 0.001)
    with pytest.raises(CompsegError, match=r"differs from the segmenter by 0\.001"):
        exported.export_model(tmp_path, tmp_path / "out", onnx=False)
    assert not (tmp_path / "out").exists()


def test_what_no_graph_can_do_is_refused(tmp_path, monkeypatch):
    class Counts(torch.nn.Module):
        def forward(self, x):
            return x[:, :1] * len(x.nonzero().tolist())

    class SwinUNETR(torch.nn.Module):
        """As MONAI's is called."""

    segmenter = segmenter_of(AllOnes(), [], False)
    refused = {
        "Counts cannot be a graph": Counts(),
        "made of gradients": GradCAM(segmenter.model),
        "the layers of SwinUNETR depend": Padded(SwinUNETR(), 32),
    }
    for words, net in refused.items():
        patched(monkeypatch, replace(segmenter, model=net))
        with pytest.raises(CompsegError, match=words):
            exported.export_model(tmp_path, tmp_path / "out", onnx=False)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["run=R", "maps=M", "format=onnx"], "expected exactly one of them"),
        (["format=onnx"], "expected exactly one of them"),
        (["run=R", "format=geojson"], "of a run no such format; formats: "),
        (["maps=M", "format=onnx"], "of maps no such format"),
        (["run=R", "format=torch", "gzip=true"], "gzip: does nothing in format=torch"),
        (["run=R", "format=torch"], "holds no segmenter"),
    ],
)
def test_a_wrong_command_is_answered(capsys, tmp_path, words, answer):
    assert run_here("export", *words, f"out={tmp_path}/out") == 1
    assert answer in capsys.readouterr().err

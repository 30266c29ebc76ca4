"""Building from a description: as training builds it, and of nothing but what the list or the user trusts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from compseg import comparative
from compseg.comparative import ComparativeHead
from compseg.errors import CompsegError
from compseg.inference import Segmenter, load_segmenter
from compseg.inference.building import build_safe, targets_of, without_fetching
from compseg.models import UNet
from compseg.preprocessing import Preprocess
from compseg.samples import Channels

CONF = Path(__file__).parents[2] / "conf"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
POOLS = sorted(name for name in comparative.__all__ if name.endswith("Pool"))
TRANSFERS = ("Identity", "Sigma", "Trapezoid")
UNET = {"_target_": "compseg.models.UNet", "in_channels": 3, "width": 4, "depth": 1}

LAB = """
from torch import nn, zeros
class Net(nn.Module):
    def __init__(self, width=2, pretrained=False, url="https://example.org"):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)
    def forward(self, x):
        return self.layer(x)
class OnTheCPU(nn.Module):
    def __init__(self, side):
        super().__init__()
        self.register_buffer("matrix", zeros(side, side, device="cpu"), persistent=False)
class NoNet: pass
def make(width): return Net(width, url=None)
"""


@pytest.fixture
def lab(tmp_path, monkeypatch) -> str:
    """A package of the user's own."""
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "__init__.py").write_text("from mylab.nets import Net")
    (tmp_path / "mylab" / "nets.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    yield "mylab"
    for name in ("mylab", "mylab.nets"):
        sys.modules.pop(name, None)


def resolved(name: str, **values) -> dict:
    method = OmegaConf.create({"maps": 1})
    root = OmegaConf.create({"channels": 3, "maps": 1, "depth": 1, "method": method, **values})
    root.model = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    for key in ("depth", "magnify"):
        if root.model.get(key) == "auto":
            root.model[key] = 1
    if "encoder_weights" in root.model:
        root.model.encoder_weights = None  # as in the description of a segmenter, which has its own
    return OmegaConf.to_container(root.model, resolve=True)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_built_as_training_builds_it(name):
    node = resolved(name)
    if "segmentation_models_pytorch" in str(node):
        pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    expected = instantiate(OmegaConf.create(node)).state_dict()
    torch.manual_seed(0)
    size = sum(value.nbytes for value in expected.values())
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    made = build_safe(node, nn.Module, "model", shapes=shapes, file_size=size).state_dict()
    assert list(made) == list(expected)
    # The same random numbers: building without memory first uses none.
    assert all(torch.equal(made[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("pool", "transfer"), [*((p, "Identity") for p in POOLS), *(("MeanPool", t) for t in TRANSFERS)]
)
def test_every_head_is_built_as_training_builds_it(pool, transfer):
    parts = {
        "pool": {"_target_": f"compseg.comparative.{pool}"},
        "transfer": {"_target_": f"compseg.comparative.{transfer}"},
    }
    node = {"_target_": "compseg.comparative.ComparativeHead", **parts}
    expected = instantiate(OmegaConf.create(node))
    made = build_safe(node, ComparativeHead, "head")
    assert repr(made) == repr(expected)
    assert str(made.state_dict()) == str(expected.state_dict())
    logits, tissue = torch.randn(2, 2, 5, 6), torch.ones(2, 1, 5, 6, dtype=torch.bool)
    torch.testing.assert_close(made(logits, tissue).o, expected(logits, tissue).o, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["Derivative", "Detrend", "StandardNormalVariate", "VectorNorm"])
def test_every_correction_is_built_with_its_values(name):
    """Kernels and bases are in no weights file, so they have to be computed when it is loaded."""
    correction = {"_target_": f"compseg.preprocessing.{name}"} | ({"channels": 20} if name == "Detrend" else {})
    node = {"_target_": "compseg.preprocessing.Preprocess", "channels": 20, "corrections": [correction]}
    image, tissue = torch.rand(1, 20, 4, 5), torch.ones(1, 1, 4, 5, dtype=torch.bool)
    made, expected = build_safe(node, Preprocess, "preprocess"), instantiate(OmegaConf.create(node))
    torch.testing.assert_close(made(image, tissue), expected(image, tissue), rtol=0, atol=0)


def test_positional_arguments_and_hydras_own_keys():
    node = {"_target_": "torch.nn.Sequential", "_args_": [UNET, {"_target_": "torch.nn.ReLU"}], "_convert_": "all"}
    assert [type(part) for part in build_safe(node, nn.Module, "model")] == [UNet, nn.ReLU]


def test_a_package_is_trusted_by_the_user_alone(lab):
    node = {"_target_": "mylab.Net", "width": 3, "url": None}
    with pytest.raises(CompsegError, match=r"^model\._target_=mylab\.Net: .*; if you trust it, pass trust=\[mylab\]$"):
        build_safe(node, nn.Module, "model")
    assert lab not in sys.modules
    assert type(build_safe(node, nn.Module, "model", trust=["mylab"])).__name__ == "Net"
    assert type(build_safe(node, nn.Module, "model", trust="mylab")).__name__ == "Net"


def test_of_a_trusted_package_only_networks_are_built(lab):
    for name in ("NoNet", "make", "zeros", "nn"):
        with pytest.raises(CompsegError, match=rf"no class of networks .* pass trust=\[mylab\.nets\.{name}\]$"):
            build_safe({"_target_": f"mylab.nets.{name}", "width": 3}, nn.Module, "model", trust=[lab])
    made = build_safe({"_target_": "mylab.nets.make", "width": 3}, nn.Module, "model", trust=["mylab.nets.make"])
    assert type(made).__name__ == "Net"


def test_what_a_network_would_fetch_unasked_is_refused(lab):
    with pytest.raises(
        CompsegError, match=r"without url, mylab\.Net would fetch 'https://example\.org'; add url=null$"
    ):
        build_safe({"_target_": "mylab.Net"}, nn.Module, "model", trust=[lab])
    with pytest.raises(CompsegError, match=r"^model\.pretrained=True: .* set it to null$"):
        build_safe({"_target_": "mylab.Net", "pretrained": True, "url": None}, nn.Module, "model", trust=[lab])


def test_a_segmenter_is_stored_without_what_training_fetched(lab, tmp_path):
    import mylab

    node = {"_target_": "mylab.Net", "pretrained": True}
    assert without_fetching({"net": [node]}) == {"net": [{"_target_": "mylab.Net", "pretrained": False, "url": None}]}
    made = Segmenter(
        mylab.Net(), Preprocess(3), node, {"_target_": "compseg.preprocessing.Preprocess", "channels": 3}, Channels(3)
    )
    made.save(tmp_path / "segmenter")
    assert type(load_segmenter(tmp_path, trust=targets_of(node)).model).__name__ == "Net"


def test_a_class_that_chooses_its_device_is_measured_first(lab):
    node = {"_target_": "mylab.nets.OnTheCPU", "side": 60_000}  # 14 GB
    with pytest.raises(CompsegError, match="weights of 14400 MB, more than the weights file holds"):
        build_safe(node, nn.Module, "model", trust=[lab])
    assert build_safe(node | {"side": 3}, nn.Module, "model", trust=[lab]).matrix.device.type == "cpu"


def test_targets_are_found_at_any_depth():
    node = {"_target_": "a.B", "net": {"_target_": "c.D"}, "list": [{"x": {"_target_": "e.F"}}, 3]}
    assert targets_of(node) == ["a.B", "c.D", "e.F"]
    assert targets_of(OmegaConf.to_container(OmegaConf.create(node))) == ["a.B", "c.D", "e.F"]


def test_a_network_is_no_larger_than_its_weights():
    node = {"_target_": "compseg.models.UNet", "in_channels": 450}  # 125 MB
    with pytest.raises(CompsegError, match="more than the weights file holds"):
        build_safe(node, nn.Module, "model", file_size=1000)


def test_weights_of_another_network_are_refused_by_name():
    shapes = {key: tuple(value.shape) for key, value in UNet(3, width=4, depth=1).state_dict().items()}
    with pytest.raises(CompsegError, match=r"encoder\.0\.0\.0\.weight is \(8, 3, 3, 3\) here and \(4, 3, 3, 3\) there"):
        build_safe(UNET | {"width": 8}, nn.Module, "model", shapes=shapes)
    with pytest.raises(CompsegError, match=r"more is absent here and \(7,\) there"):
        build_safe(UNET, nn.Module, "model", shapes=shapes | {"more": (7,)})


def test_no_random_numbers_are_asked_for_weights_that_are_replaced(monkeypatch):
    """For them torch would import its compiler, which takes two seconds."""
    for name in ("_no_grad_normal_", "_no_grad_uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_: pytest.fail(str(tensor)) if tensor.is_meta else tensor)
    assert isinstance(build_safe(UNET, nn.Module, "here"), UNet)

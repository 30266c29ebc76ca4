"""Maps of a classifier: CAM, Grad-CAM and Grad-CAM++ against their formulas, and what prediction needs of them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.special import expit

from compseg.comparative import LogitMeanPool
from compseg.errors import CompsegError
from compseg.inference import Segmenter, load_segmenter
from compseg.models import SpectralSpatial, UNet
from compseg.preprocessing import Preprocess
from compseg.samples import Channels

visualize = pytest.importorskip("monai.visualize")

from compseg.inference.cam import GradCAM, last_features  # noqa: E402


def classifier(seed=0):
    torch.manual_seed(seed)
    net = UNet(3, width=4, depth=1, activation="relu", norm="batch").eval()
    torch.nn.init.normal_(net.output.weight)
    return net


@pytest.fixture
def image():
    """Two images of 8 x 12 with two columns and a corner off tissue."""
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    x[..., :2] = 0
    x[0, :, :3, :5] = 0
    return x


def features_and_gradient(net, x, layer):
    """A and dy/dA of one image by hooks and autograd of our own, `(C, h, w)` each, and the classifier's probability."""
    kept = []
    hook = dict(net.named_modules())[layer].register_forward_hook(lambda *seen: kept.append(seen[2]))
    z = net(x[None])[0, 0]
    hook.remove()
    score = z[(x != 0).any(0)].mean()
    (gradient,) = torch.autograd.grad(score, kept[0])
    return kept[0][0].detach().double().numpy(), gradient[0].double().numpy(), score.item()


def grad_cam(a, g, score):
    return np.maximum(np.einsum("c,chw->hw", g.mean((1, 2)), a), 0)


def grad_cam_pp(a, g, score):
    """Equations 17 to 19 of the source, the score taken through the exponential function."""
    share = 2 * g**2 + (a * g**3).sum((1, 2), keepdims=True)
    alpha = g**2 / (np.where(share == 0, 1, share) + 1e-7)
    weights = (alpha * np.maximum(np.exp(score) * g, 0)).sum((1, 2))
    return np.maximum(np.einsum("c,chw->hw", weights, a), 0)


@pytest.mark.parametrize(("plus_plus", "formula"), [(False, grad_cam), (True, grad_cam_pp)])
def test_against_the_formula(image, plus_plus, formula):
    net = classifier()
    maps = GradCAM(net, plus_plus)(image)
    assert maps.shape == (2, 2, 8, 12)
    for x, found in zip(image, maps, strict=True):
        a, g, score = features_and_gradient(net, x, "decoder.0.1.2")
        raw = formula(a, g, score) * (x != 0).any(0).numpy()
        assert raw.max() > 0
        np.testing.assert_allclose(torch.sigmoid(found[0]), expit(score) * raw / raw.max(), atol=2e-6)
        torch.testing.assert_close(found[1], net(x[None])[0, 0])


def test_a_coarse_layer_is_raised_to_the_image(image):
    net = classifier()
    maps = GradCAM(net, layer="encoder.1")(image)
    a, g, score = features_and_gradient(net, image[0], "encoder.1")
    small = torch.from_numpy(grad_cam(a, g, score))[None, None]
    raised = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")[0, 0].numpy()
    raised *= (image[0] != 0).any(0).numpy()
    np.testing.assert_allclose(torch.sigmoid(maps[0, 0]), expit(score) * raised / raised.max(), atol=2e-6)


def test_the_class_activation_map_is_the_networks_own_output(image):
    """MONAI's CAM, from features and a fully connected layer, is the logits that method=cam takes for it."""
    net = classifier()

    def fully_connected(model):
        return lambda features: model.net.output(features[..., None, None])[..., 0, 0]

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x).mean((2, 3))

    cam = visualize.CAM(Classifier().eval(), "net.decoder.0.1.2", fully_connected, postprocessing=lambda raw: raw)
    torch.testing.assert_close(cam(image, class_idx=torch.zeros(2, dtype=torch.long)), net(image))


def test_averaging_logits_is_classifying_averaged_features(image):
    net, tissue = classifier(), (image != 0).any(1, keepdim=True)
    features, _, _ = features_and_gradient(net, image[0], "decoder.0.1.2")
    pooled = features[:, tissue[0, 0].numpy()].mean(1)
    weight, bias = (p.detach().double().numpy() for p in net.output.parameters())
    expected = expit(weight[0, :, 0, 0] @ pooled + bias[0])
    assert LogitMeanPool()(net(image), tissue)[0].item() == pytest.approx(expected, abs=1e-6)
    assert LogitMeanPool(-1)(torch.cat([image[:, :1], net(image)], 1), tissue)[0].item() == pytest.approx(expected)


def test_a_map_is_its_samples_own_under_inference_and_leaves_no_trace(image):
    net = classifier()
    cam = GradCAM(net, plus_plus=True).eval()
    alone = torch.cat([GradCAM(net, plus_plus=True)(x[None]) for x in image])
    with torch.inference_mode():
        together = cam(image.clone())
    torch.testing.assert_close(together, alone)
    assert not together.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    assert {name.removeprefix("net.") for name in cam.state_dict()} == set(net.state_dict())


@pytest.mark.parametrize("net", [UNet(3, width=4, depth=2), SpectralSpatial(3, width=8)], ids=["unet", "small"])
@pytest.mark.parametrize("size", [(37, 53), (5, 3)])
def test_any_size_in_range_and_as_active_as_the_sample_is_suspect(net, size):
    torch.nn.init.uniform_(net.output.weight)
    image = torch.randn(1, 3, *size)
    maps = GradCAM(net.eval())(image)
    assert maps.shape == (1, 2, *size)
    assert maps.isfinite().all()
    activation, probability = torch.sigmoid(maps[0, 0]), torch.sigmoid(maps[0, 1].mean())
    assert activation.max() == pytest.approx(probability.item(), abs=2e-6)


def test_no_tissue_gives_an_empty_map():
    maps = GradCAM(classifier())(torch.zeros(1, 3, 6, 6))
    assert (torch.sigmoid(maps[:, 0]) < 1e-6).all()


def test_the_last_features_are_those_before_the_output(image):
    assert last_features(classifier(), image) == "decoder.0.1.2"
    twice = torch.nn.ReLU()
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), twice, torch.nn.Conv2d(4, 4, 1), twice, torch.nn.Conv2d(4, 1, 1)
    )
    assert last_features(net, image) == "2"
    with pytest.raises(CompsegError, match=r"cam\.layer"):
        last_features(torch.nn.Conv2d(3, 1, 1), image)


def test_faults_are_said_before_training(monkeypatch):
    with pytest.raises(CompsegError, match=r"cam\.layer=decoder\.7: .* encoder"):
        GradCAM(classifier(), layer="decoder.7")
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(CompsegError, match=r"compseg\[monai\]"):
        GradCAM(classifier())


def test_survives_extraction(tmp_path, image):
    node = {"_target_": "compseg.models.UNet", "in_channels": 3, "width": 4, "depth": 1, "norm": "batch"}
    net = UNet(3, width=4, depth=1, norm="batch")
    torch.nn.init.normal_(net.output.weight)
    made = Segmenter(
        GradCAM(net),
        Preprocess(3),
        {"_target_": "compseg.inference.cam.GradCAM", "plus_plus": False, "layer": None, "net": node},
        {"_target_": "compseg.preprocessing.Preprocess", "channels": 3},
        Channels(3),
        dtype="float32",
    )
    made.save(tmp_path)
    cube, tissue = image[0].permute(1, 2, 0).numpy(), (image[0] != 0).any(0).numpy()
    found = load_segmenter(tmp_path)(cube, tissue)
    np.testing.assert_array_equal(found, made(cube, tissue))
    assert found.std() > 0
    assert not found[~tissue].any()

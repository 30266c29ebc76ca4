"""The baselines: what they answer, and the single band's fit against scikit-learn's ROC."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from compseg.models import AllOnes, SingleBand
from compseg.models.geometry import receptive_field


def samples(count=12, channels=4, telling=2, shift=1.0, seed=0):
    """Images `(C, 9, 7)` of noise whose disease samples differ in one channel, tissue masks and labels."""
    generator = torch.Generator().manual_seed(seed)
    for i in range(count):
        image = torch.randn(channels, 9, 7, generator=generator)
        image[telling] += shift * (i % 2)
        yield image, torch.rand(1, 9, 7, generator=generator) < 0.6, i % 2


def pixels(made):
    """Spectra `(n, C)` of the tissue and the label of each."""
    spectra = [(image[:, tissue[0]].T.numpy(), label) for image, tissue, label in made]
    return np.concatenate([s for s, _ in spectra]), np.concatenate([np.full(len(s), y) for s, y in spectra])


def test_all_ones_is_one_everywhere_and_trains_to_nothing():
    net, image = AllOnes(), torch.randn(2, 5, 4, 6)
    z = net(image)
    assert z.shape == (2, 1, 4, 6)
    assert (torch.sigmoid(z) == 1).all()
    z.sum().backward()
    assert net.idle.grad.item() == 0


def test_a_baselines_pixel_sees_itself_alone():
    for net in (AllOnes(), SingleBand(3)):
        assert receptive_field(net.layers) == 1
        image = torch.randn(1, 3, 5, 6)
        torch.testing.assert_close(net(image)[..., 2:4, 3:], net(image[..., 2:4, 3:]), rtol=0, atol=0)


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_single_band_against_scikit_learn(shift):
    made = list(samples(shift=shift))
    net = SingleBand(4)
    net.fit(made, len(made))
    spectra, labels = pixels(made)
    areas = np.array([roc_auc_score(labels, channel) for channel in spectra.T])
    channel = np.abs(areas - 0.5).argmax()
    assert channel == net.channel == 2
    assert net.sign == np.sign(areas[2] - 0.5) == shift
    assert net.area == pytest.approx(max(areas[2], 1 - areas[2]), abs=1e-6)
    false, true, _ = roc_curve(labels, shift * spectra[:, 2])
    beyond = shift * spectra[:, 2] > shift * net.level.item()
    assert beyond[labels == 1].mean() - beyond[labels == 0].mean() == pytest.approx((true - false).max(), abs=1e-6)


def test_single_band_counts_ties_half():
    values = torch.tensor([[0.0, 0.0, 1.0, 2.0]]), torch.tensor([[0.0, 1.0, 1.0, 3.0]])
    made = [(v[:, None], torch.ones(1, 1, 4, dtype=torch.bool), label) for label, v in enumerate(values)]
    net = SingleBand(1)
    net.fit(made, 2)
    assert net.area == pytest.approx(roc_auc_score([0] * 4 + [1] * 4, torch.cat(values, 1)[0]))


def test_single_band_is_the_channel_less_its_level(tmp_path):
    made = list(samples())
    net = SingleBand(4)
    net.fit(made, len(made))
    image = torch.randn(3, 4, 5, 6)
    torch.testing.assert_close(net(image), image[:, 2:3] - net.level)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    other = SingleBand(4)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(image), net(image))
    assert "channel 2 above" in repr(other)


def test_single_band_fits_on_no_more_pixels_than_asked_and_never_off_tissue():
    made = [(image.where(tissue, 1e6 * label), tissue, label) for image, tissue, label in samples(40)]
    net, fewer = SingleBand(4), SingleBand(4, pixels=80)
    net.fit(made, len(made))
    fewer.fit(made, len(made), seed=3)
    spectra, labels = pixels(made)
    assert net.area == pytest.approx(roc_auc_score(labels, spectra[:, 2]), abs=1e-6)
    assert fewer.channel == 2
    assert fewer.area != net.area

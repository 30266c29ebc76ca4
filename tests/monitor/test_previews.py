"""Pictures of an epoch: what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest
from made_epochs import SIDE, disc, epoch_of, infos_of, spots

from compseg.errors import CompsegError
from compseg.monitor.previews import EpochPreviews, chosen, counts_of, roc_curves
from compseg.plots.epoch import Preview, epoch_pictures, mean_spectra
from compseg.samples import Channels, SampleInfo

LABELS = [1, 0] * 4
SPECTRAL = Channels(3, (1800.0, 1400.0, 1000.0), "cm-1")


def draw(previews, diagnosis, channels, epoch):
    return epoch_pictures(previews, counts_of(diagnosis), roc_curves(diagnosis), channels, epoch)


def previews_of(maps, labels=LABELS, truth=None):
    rng = np.random.default_rng(0)
    return [
        Preview(
            SampleInfo(f"s{i}", label),
            rng.uniform(size=(SIDE, SIDE, 3)),
            None,
            a.astype(np.float32),
            disc(),
            truth,
            0.1,
        )
        for i, (a, label) in enumerate(zip(maps, labels, strict=True))
    ]


@pytest.fixture
def maps():
    return spots(np.random.default_rng(0), LABELS)


def test_spectra_are_means_weighted_by_the_map(maps):
    previews = previews_of(maps)
    a = np.concatenate([s.activation[s.tissue] for s in previews if s.info.label]).astype(float)
    values = np.concatenate([s.image[s.tissue] for s in previews if s.info.label])
    marked, unmarked = mean_spectra(previews)
    np.testing.assert_allclose(marked, np.average(values, axis=0, weights=a), rtol=1e-6)
    np.testing.assert_allclose(unmarked, np.average(values, axis=0, weights=1 - a), rtol=1e-6)


def test_no_spectra_of_an_empty_map_or_of_healthy_samples(maps):
    assert mean_spectra(previews_of(np.zeros_like(maps))) is None
    assert mean_spectra(previews_of(maps[:2], labels=[0, 0])) is None


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        (SPECTRAL, {"gallery", "activations", "roc", "spectra"}),
        (Channels(3, names=("r", "g", "b")), {"gallery", "activations", "roc"}),
    ],
    ids=["spectral", "colour"],
)
def test_every_picture_has_ink_of_more_than_one_colour(maps, channels, names):
    pictures = draw(previews_of(maps), epoch_of(maps, LABELS), channels, 3)
    assert set(pictures) == names
    for picture in pictures.values():
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_maps_of_one_class_or_of_nan_are_drawn_too(maps):
    healthy = spots(np.random.default_rng(0), [0] * 8)
    assert "roc" in draw(previews_of(healthy), epoch_of(healthy, [0] * 8), SPECTRAL, 0)
    broken = np.full_like(maps, np.nan)
    assert "gallery" in draw(previews_of(broken), epoch_of(broken, LABELS), SPECTRAL, 0)


def test_curves_are_those_of_splits_with_both_classes(maps):
    both = roc_curves(epoch_of(maps, LABELS))
    assert list(both) == ["training, AUC 1.000", "validation, AUC 1.000"]
    assert roc_curves(epoch_of(maps, [0] * 8)) == {}


def test_the_same_samples_are_shown_disease_first_evenly_spaced():
    infos = infos_of([0, 0, 1, 1, 1, 1, 1, 0])
    assert chosen(infos, 3) == [2, 4, 6, 0, 1, 7]
    assert chosen(infos, 1) == [2, 0]
    assert chosen(infos_of([1, 1]), 3) == [0, 1]


class At:
    """The trainer's clock."""

    max_epochs = 12

    def __init__(self, epoch, loggers=()):
        self.current_epoch, self.loggers = epoch, loggers


@pytest.mark.parametrize(
    ("every", "loggers", "epochs"),
    [("auto", (), [11]), ("auto", ("wandb",), [4, 9, 11]), (4, (), [3, 7, 11]), (0, ("wandb",), [])],
)
def test_pictures_are_drawn_when_due(every, loggers, epochs):
    pictures = EpochPreviews(every)
    assert [epoch for epoch in range(12) if pictures._due(At(epoch, loggers))] == epochs


@pytest.mark.parametrize("every", ["often", -1])
def test_another_rhythm_is_refused(every):
    with pytest.raises(CompsegError, match=r"callbacks\.pictures\.every"):
        EpochPreviews(every)

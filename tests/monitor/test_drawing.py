"""Pictures of an epoch: what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest
from made_epochs import SIDE, disc, epoch_of, infos_of, spots

from compseg.errors import CompsegError
from compseg.monitor.drawing import TRUTH_RGB, draw, mean_spectra, painted
from compseg.monitor.previews import EpochPreviews, chosen
from compseg.monitor.shown import Shown
from compseg.samples import Channels, SampleInfo

LABELS = [1, 0] * 4
SPECTRAL = Channels(3, (1800.0, 1400.0, 1000.0), "cm-1")


def shown_of(maps, labels=LABELS, truth=None):
    rng = np.random.default_rng(0)
    return [
        Shown(
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


def test_truth_is_outlined_on_tissue_alone(maps):
    truth = np.zeros((SIDE, SIDE), bool)
    truth[0:6, 3:9] = True  # sticks out over the tissue
    picture = painted(shown_of(maps, truth=truth)[0], 1.0)
    drawn = (picture == TRUTH_RGB).all(-1)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 5, 3, 8)
    assert not drawn[3:5, 4:8].any()  # the inside stays to be seen


def test_spectra_are_means_weighted_by_the_map(maps):
    shown = shown_of(maps)
    a = np.concatenate([s.activation[s.tissue] for s in shown if s.info.label]).astype(float)
    values = np.concatenate([s.image[s.tissue] for s in shown if s.info.label])
    marked, unmarked = mean_spectra(shown)
    np.testing.assert_allclose(marked, np.average(values, axis=0, weights=a), rtol=1e-6)
    np.testing.assert_allclose(unmarked, np.average(values, axis=0, weights=1 - a), rtol=1e-6)


def test_no_spectra_of_an_empty_map_or_of_healthy_samples(maps):
    assert mean_spectra(shown_of(np.zeros_like(maps))) is None
    assert mean_spectra(shown_of(maps[:2], labels=[0, 0])) is None


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        (SPECTRAL, {"gallery", "activations", "roc", "spectra"}),
        (Channels(3, names=("r", "g", "b")), {"gallery", "activations", "roc"}),
    ],
    ids=["spectral", "colour"],
)
def test_every_picture_has_ink_of_more_than_one_colour(maps, channels, names):
    pictures = draw(shown_of(maps), epoch_of(maps, LABELS), channels, 3)
    assert set(pictures) == names
    for picture in pictures.values():
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_maps_of_one_class_or_of_nan_are_drawn_too(maps):
    healthy = spots(np.random.default_rng(0), [0] * 8)
    assert "roc" in draw(shown_of(healthy), epoch_of(healthy, [0] * 8), SPECTRAL, 0)
    broken = np.full_like(maps, np.nan)
    assert "gallery" in draw(shown_of(broken), epoch_of(broken, LABELS), SPECTRAL, 0)


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

"""Every objective against an independent numpy computation, and the behaviour each is there for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, xlogy

from compseg.comparative import (
    DenseNegatives,
    Entropy,
    FlipConsistency,
    LogBarrier,
    MaxPool,
    MeanPool,
    MeanTeacher,
    OutsideTissue,
    PixelBCE,
    PooledLoss,
    PositiveUnlabelled,
    RotationConsistency,
    Sigma,
    SigmaHead,
    SizePenalty,
    SpectralCRF,
    Sum,
    SupervisedPixels,
    TotalVariation,
    TrapezoidHead,
    TwoMap,
    WeightedCrossEntropy,
    mean_over_ranks,
)
from compseg.errors import CompsegError

LABELS = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])


class Case:
    """A batch, and the same as numpy: z, u (logits of the tissue), truth of the tissue, label, one entry a sample."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.logits = 2 * torch.randn(5, 2, 8, 6, generator=generator) - 2
        self.tissue = torch.rand(5, 1, 8, 6, generator=generator) < 0.7
        self.truth = torch.rand(5, 1, 8, 6, generator=generator) < 0.3
        masks = self.tissue[:, 0].numpy()
        self.z = [z[m].astype(float) for z, m in zip(self.logits[:, 0].numpy(), masks, strict=True)]
        self.u = [u[m].astype(float) for u, m in zip(self.logits[:, 1].numpy(), masks, strict=True)]
        self.t = [t[m].astype(float) for t, m in zip(self.truth[:, 0].numpy(), masks, strict=True)]
        self.label = LABELS.numpy().astype(float)
        self.x = np.array([expit(z).mean() for z in self.z])

    def mean(self, each):
        """The mean over samples of `each(z, label)`."""
        return np.mean([each(z, label) for z, label in zip(self.z, self.label, strict=True)])

    def loss(self, objective, head=None):
        out = (head or SigmaHead())(self.logits, self.tissue)
        return objective(out, LABELS, self.truth).item()


@pytest.fixture(scope="module")
def case():
    return Case()


def sigma(x):
    return 0.1 * (2 * expit(50 * x) - 1) + 0.001 * x


def trapezoid(x):
    return np.interp(x, [0, 0.05, 0.85, 1], [0, 1, 1, 0])


def level_head(x, head=None):
    """The output for samples with the given pooled activations, and their logits as leaf."""
    logits = torch.logit(torch.tensor(x)).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone().requires_grad_()
    return (head or SigmaHead())(logits, torch.ones(len(x), 1, 4, 4, dtype=torch.bool)), logits


@pytest.mark.parametrize(("target", "level"), [("alpha", 0.1), ("maximum", 0.101)])
@pytest.mark.parametrize("one_sided", [False, True])
def test_pooled_distances(case, target, level, one_sided):
    error = sigma(case.x) - level * case.label
    if one_sided:
        error = np.where(case.label == 1, np.minimum(error, 0), error)
    expected = {"l1": np.abs(error).mean(), "mse": (error**2).mean(), "rmse": np.sqrt((error**2).mean())}
    for loss, value in expected.items():
        assert case.loss(PooledLoss(loss, target, one_sided)) == pytest.approx(value, rel=1e-5)


def test_pooled_cross_entropy(case):
    p = sigma(case.x) / 0.101
    expected = -np.mean(xlogy(case.label, p) + xlogy(1 - case.label, 1 - p))
    assert case.loss(PooledLoss("bce", "maximum")) == pytest.approx(expected, rel=1e-4)


def test_printed_loss_is_least_at_the_crossing_and_maximum_at_all_of_the_tissue():
    x = np.linspace(0.001, 0.999, 999).astype(np.float32).tolist()
    out, _ = level_head(x)
    disease = torch.ones(len(x))
    printed = PooledLoss().statistics(out, disease)[:, 0]
    assert x[printed.argmin()] == pytest.approx(Sigma().crossing, abs=1e-3)
    maximum = PooledLoss(target="maximum").statistics(out, disease)[:, 0]
    assert (maximum.diff() <= 0).all()
    one_sided = PooledLoss(one_sided=True).statistics(out, disease)[:, 0]
    assert (one_sided.diff() <= 0).all()
    assert one_sided[200:].max() == 0


def test_direction_of_the_pull_on_a_disease_sample_with_half_of_its_tissue_active():
    gradients = {}
    for name, objective in {
        "printed": PooledLoss(),
        "maximum": PooledLoss(target="maximum"),
        "one_sided": PooledLoss(one_sided=True),
    }.items():
        out, logits = level_head([0.5])
        objective(out, torch.ones(1)).backward()
        gradients[name] = logits.grad.sum().item()
    assert gradients["printed"] > 0  # less activation pays: against the paper's intention
    assert gradients["maximum"] < 0
    assert gradients["one_sided"] == 0


def test_root_has_no_nan_gradient_where_the_loss_is_zero():
    out, logits = level_head([0.3])
    PooledLoss("rmse", one_sided=True)(out, torch.ones(1)).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_cross_entropy_keeps_its_gradient_at_a_collapsed_map():
    logits = torch.full((1, 1, 4, 4), -30.0, requires_grad=True)
    tissue = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    PooledLoss("bce", "maximum")(SigmaHead()(logits, tissue), torch.ones(1)).backward()
    assert (logits.grad < 0).all()


def test_weighted_cross_entropy(case):
    share, o = 3 / 5, trapezoid(case.x)
    expected = -(1 - share) * np.mean(case.label * np.log(o)) - share * np.mean((1 - case.label) * np.log(1 - case.x))
    assert case.loss(WeightedCrossEntropy(), TrapezoidHead()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("x", [0.01, 0.3, 0.5, 0.8, 0.95])
def test_weighted_cross_entropy_pulls_healthy_samples_down_from_everywhere(x):
    """As published it is silent on the plateau and pulls up beyond it."""
    out, logits = level_head([x, 0.5], TrapezoidHead())
    WeightedCrossEntropy()(out, torch.tensor([0.0, 1.0])).backward()
    assert (logits.grad[0] > 0).all()


def test_dense_negatives(case):
    expected = case.mean(lambda z, label: (1 - label) * -log_expit(-z).mean())
    assert case.loss(DenseNegatives()) == pytest.approx(expected, rel=1e-5)


def test_outside_tissue(case):
    z, outside = case.logits[:, 0].double().numpy(), ~case.tissue[:, 0].numpy()
    assert case.loss(OutsideTissue()) == pytest.approx((-log_expit(-z) * outside).mean(), rel=1e-5)


def test_size_penalty_in_the_pixel_form_of_its_source(case):
    def each(z, label):
        V, N = expit(z).sum(), len(z)
        A, B = (0.3 * N, 0.4 * N) if label else (0, 0)
        return ((V - A) ** 2 * (V < A) + (V - B) ** 2 * (V > B)) / N**2

    assert case.loss(SizePenalty(0.3, 0.4)) == pytest.approx(case.mean(each), rel=1e-4)


def test_log_barrier(case):
    def psi(z, t=5.0):
        return -np.log(-z) / t if z <= -1 / t**2 else t * z - np.log(1 / t**2) / t + 1 / t

    def each(z, label):
        return label * (psi(0.2 - expit(z).mean()) + psi(expit(z).mean() - 0.25))

    assert case.loss(LogBarrier(0.2, 0.25)) == pytest.approx(case.mean(each), rel=1e-4)


def test_log_barrier_is_smooth_at_its_joint():
    x = torch.linspace(0.05, 0.95, 1801, dtype=torch.float32)
    out, _ = level_head(x.tolist())
    value = LogBarrier(0.1, 0.85).statistics(out, torch.ones(len(x)))[:, 0].double()
    slopes = value.diff() / x.double().diff()
    assert slopes.diff().abs().max() < 0.1  # the slope bends, but does not jump
    assert (slopes.diff() > -1e-2).all()  # convex, up to the rounding of float32


def test_positive_unlabelled(case):
    healthy, disease = ([z for z, label in zip(case.z, case.label, strict=True) if label == which] for which in (0, 1))
    as_healthy, as_disease = (lambda z: -log_expit(-z).mean()), (lambda z: -log_expit(z).mean())
    hidden = np.mean([*map(as_disease, disease)]) - 0.7 * np.mean([*map(as_disease, healthy)])
    expected = 0.7 * np.mean([*map(as_healthy, healthy)]) + max(0, hidden)
    assert case.loss(PositiveUnlabelled(0.3)) == pytest.approx(expected, rel=1e-4)


def test_positive_unlabelled_is_the_risk_with_all_pixel_labels_when_the_mixture_is_exact():
    """Disease samples made of 3 hidden positives and 7 pixels just like the healthy ones."""
    negative, positive = torch.linspace(-3, 1, 7), torch.tensor([0.5, 1.0, 2.0])
    logits = torch.stack([torch.cat([positive, negative]), torch.cat([negative, torch.zeros(3)])]).view(2, 1, 1, 10)
    tissue = torch.ones(2, 1, 1, 10, dtype=torch.bool)
    tissue[1, ..., 7:] = False
    loss = PositiveUnlabelled(0.3)(SigmaHead()(logits, tissue), torch.tensor([1.0, 0.0]))
    risk = -0.7 * log_expit(-negative.numpy()).mean() - 0.3 * log_expit(positive.numpy()).mean()
    assert loss.item() == pytest.approx(risk, rel=1e-5)


def test_positive_unlabelled_stops_paying_when_the_estimate_is_negative():
    out, logits = level_head([0.999, 0.2])
    PositiveUnlabelled(0.3)(out, torch.tensor([1.0, 0.0])).backward()
    assert torch.equal(logits.grad[0], torch.zeros_like(logits[0]))
    assert (logits.grad[1] > 0).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_positive_unlabelled_with_one_class_only(label):
    out, logits = level_head([0.4, 0.4])
    loss = PositiveUnlabelled(0.3)(out, torch.full((2,), label))
    loss.backward()
    assert loss.item() == pytest.approx(0 if label else -0.7 * np.log(0.6), rel=1e-5)
    assert torch.isfinite(logits.grad).all()


def test_pixel_losses(case):
    noisy = case.mean(lambda z, label: -log_expit(z if label else -z).mean())
    assert case.loss(PixelBCE()) == pytest.approx(noisy, rel=1e-5)
    supervised = np.mean([-log_expit(np.where(t, z, -z)).mean() for z, t in zip(case.z, case.t, strict=True)])
    assert case.loss(SupervisedPixels()) == pytest.approx(supervised, rel=1e-5)


def test_supervision_without_truth_is_refused(case):
    assert SupervisedPixels.needs_truth
    with pytest.raises(CompsegError, match="truth: the supervised objective expected pixel masks, got none"):
        SupervisedPixels()(SigmaHead()(case.logits, case.tissue), LABELS)


def test_two_map(case):
    healthy = np.array([sigma(expit(u).mean()) for u in case.u])
    expected = np.abs(sigma(case.x) - 0.1 * case.label) + np.abs(healthy - 0.1 * (1 - case.label))
    assert case.loss(TwoMap()) == pytest.approx(expected.mean(), rel=1e-5)
    with pytest.raises(CompsegError, match=r"^method\.maps: two_map expected 2"):
        TwoMap()(SigmaHead()(case.logits[:, :1], case.tissue), LABELS)


def test_total_variation(case):
    def each(a, m):
        steps = []
        for i, j in np.argwhere(m):
            for k, n in ((i + 1, j), (i, j + 1)):
                if k < m.shape[0] and n < m.shape[1] and m[k, n]:
                    steps.append(abs(a[i, j] - a[k, n]))
        return np.mean(steps)

    maps = zip(expit(case.logits[:, 0].double().numpy()), case.tissue[:, 0].numpy(), strict=True)
    assert case.loss(TotalVariation()) == pytest.approx(np.mean([each(a, m) for a, m in maps]), rel=1e-5)


def test_entropy(case):
    def each(z, label):
        a = expit(z)
        return -(xlogy(a, a) + xlogy(1 - a, 1 - a)).mean()

    assert case.loss(Entropy()) == pytest.approx(case.mean(each), rel=1e-5)


@pytest.mark.parametrize("radius", [1, 2, 7])
def test_spectral_crf(case, radius):
    image = torch.randn(5, 3, 8, 6, generator=torch.Generator().manual_seed(4))
    out = SigmaHead()(case.logits, case.tissue)._replace(image=image)

    def each(a, m, s):
        pairs = [(p, q) for p in np.argwhere(m) for q in np.argwhere(m) if tuple(p) < tuple(q)]
        pairs = [(tuple(p), tuple(q)) for p, q in pairs if np.abs(p - q).max() <= radius]
        squares = np.array([np.mean((s[:, *p] - s[:, *q]) ** 2) for p, q in pairs])
        energies = np.array([a[p] * (1 - a[q]) + a[q] * (1 - a[p]) for p, q in pairs])
        return np.mean(np.exp(-squares / (2 * squares.mean())) * energies)

    samples = zip(
        expit(case.logits[:, 0].double().numpy()), case.tissue[:, 0].numpy(), image.double().numpy(), strict=True
    )
    expected = np.mean([each(*sample) for sample in samples])
    assert SpectralCRF(radius)(out, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_spectral_crf_prefers_boundaries_where_spectra_change():
    image = torch.zeros(1, 2, 4, 6)
    image[..., 3:] = 5
    tissue, labels = torch.ones(1, 1, 4, 6, dtype=torch.bool), torch.ones(1)

    def energy(columns):
        logits = torch.full((1, 1, 4, 6), -20.0)
        logits[..., :columns] = 20
        return SpectralCRF(1)(SigmaHead()(logits, tissue)._replace(image=image), labels).item()

    assert energy(3) < 0.1 * min(energy(2), energy(4))
    assert SpectralCRF()(SigmaHead()(image[:, :1], tissue)._replace(image=torch.zeros_like(image)), labels).isfinite()


VIEWS = [(RotationConsistency(), "rotated"), (FlipConsistency(), "flipped"), (MeanTeacher(), "ema")]


@pytest.mark.parametrize(("objective", "view"), VIEWS)
def test_consistency(case, objective, view):
    other = torch.rand(5, 1, 8, 6, generator=torch.Generator().manual_seed(5))
    out = SigmaHead()(case.logits, case.tissue)._replace(**{view: other})
    squares = (expit(case.logits[:, :1].double().numpy()) - other.numpy()) ** 2
    expected = np.mean([square[m].mean() for square, m in zip(squares, case.tissue.numpy(), strict=True)])
    assert objective(out, LABELS).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", [*(objective for objective, _ in VIEWS), SpectralCRF()])
def test_what_an_objective_reads_must_be_there(case, objective):
    assert len(objective.reads) == 1
    with pytest.raises(ValueError, match=f"out.{next(iter(objective.reads))}: "):
        objective(SigmaHead()(case.logits, case.tissue), LABELS)
    assert Sum({"a": Entropy(), "b": Sum({"c": objective, "d": objective})}).reads == objective.reads


def test_sum_weighs_its_terms_and_names_its_parts(case):
    terms = {"rmse": PooledLoss("rmse", weight=2.0), "pu": PositiveUnlabelled(weight=0.5), "truth": SupervisedPixels()}
    total = Sum(terms)
    assert total.columns == 6
    assert total.needs_truth
    assert not Sum({"a": PooledLoss()}).needs_truth
    alone = {name: term.weight * case.loss(term) for name, term in terms.items()}
    assert case.loss(total) == pytest.approx(sum(alone.values()), rel=1e-6)
    out = SigmaHead()(case.logits, case.tissue)
    parts = total.parts(total.statistics(out, LABELS, case.truth).mean(0))
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(alone, rel=1e-6)


def test_sums_nest(case):
    inner = Sum({"a": DenseNegatives(), "b": Entropy(weight=3.0)}, weight=0.1)
    expected = case.loss(PooledLoss()) + 0.1 * (case.loss(DenseNegatives()) + 3 * case.loss(Entropy()))
    assert case.loss(Sum({"loss": PooledLoss(), "more": inner})) == pytest.approx(expected, rel=1e-6)


def test_mean_over_ranks_without_ranks_is_the_identity():
    mean = torch.rand(3)
    assert mean_over_ranks(mean) is mean


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: PooledLoss("l2"), "objective.loss"),
        (lambda: PooledLoss(target="beta"), "objective.target"),
        (lambda: PooledLoss("bce", "alpha"), "objective.target"),
        (lambda: PooledLoss("bce", "maximum", one_sided=True), "objective.one_sided"),
        (lambda: SizePenalty(0.5, 0.4), "objective.lower"),
        (lambda: LogBarrier(0.5, 0.5), "objective.lower"),
        (lambda: LogBarrier(t=0), "objective.t"),
        (lambda: PositiveUnlabelled(1.0), "objective.prior"),
        (lambda: SpectralCRF(0), "regularisers.spectral_crf.radius"),
        (lambda: MeanTeacher(1.0), "regularisers.mean_teacher.mu"),
    ],
)
def test_values_out_of_range_are_refused(make, key):
    with pytest.raises(CompsegError, match=rf"^{key}: .*expected .* got"):
        make()


def test_mean_activation_is_read_whatever_the_head_pools(case):
    for objective in (SizePenalty(), LogBarrier()):
        assert case.loss(objective, SigmaHead(pool=MaxPool())) == case.loss(objective, SigmaHead(pool=MeanPool()))

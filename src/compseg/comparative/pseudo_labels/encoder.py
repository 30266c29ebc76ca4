"""Pseudo-labels for pictures: small networks on the features of a frozen encoder, trained on labels alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits, interpolate

from compseg.comparative.pseudo_labels.base import PseudoLabels
from compseg.comparative.pseudo_labels.choice import LOW
from compseg.comparative.pseudo_labels.marking import auc

# Chosen on ultrasound (docs/research/lab-log.md): heads that are not trained to the end differ much, and the mean of
# eight is as good as the best of them.
HEADS, HIDDEN = 8, 32
STEPS = 140  # of each network's training, of however many samples
FOLDS = 4  # a head learns from three of them, so that its answer to the fourth is that of one that has not seen it
BATCH = 16  # samples of a step, half of each class
RATE, DECAY = 5e-3, 0.03
SHARE = 0.05  # of the cells: those of a sample's highest that its label is told by
AGREEMENT = 5.0  # weight of the picture's agreement with its mirror image, beside that of the label
PICTURES = 1000  # of the training samples, to learn from: their features are kept, 0.7 MB each


class Seen(NamedTuple):
    """What is learned from, of N samples, each on a grid of its own.

    Of each, features of the picture and of its mirror image, mirrored back, `(2, D, h, w)` float16, and which cells are
    tissue, `(h, w)` bool; labels `(N,)` float32.
    """

    features: Sequence[Tensor]
    tissue: Sequence[Tensor]
    labels: Tensor

    def of(self, samples: Sequence[int]) -> Seen:
        """Some of the samples, by their numbers."""
        return Seen([self.features[n] for n in samples], [self.tissue[n] for n in samples], self.labels[list(samples)])

    def by_grid(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Samples of one grid side by side: features `(n, 2, D, h, w)`, tissue `(n, h, w)` and labels `(n,)`."""
        grids = [each.shape for each in self.tissue]
        for grid in dict.fromkeys(grids):  # not all on the largest: every picture would take as long as that
            features, tissue, labels = self.of([n for n, other in enumerate(grids) if other == grid])
            yield torch.stack(list(features)), torch.stack(list(tissue)), labels


class EncoderPseudoLabels(PseudoLabels):
    """Several small networks side by side, each from the features of a cell to how much it looks like disease.

    Each is trained as multiple-instance learning is: the mean of a sample's highest cells against its label, and the
    picture's map against that of its mirror image. As what a cell looks like was learned elsewhere and stays as it is,
    little can be memorised, and networks from different weights agree; the mean of their maps is what is marked, as a
    probability. A segmenter that is trained on it sees the whole picture and may do better at edges.

    Args:
        features: From `(B, C, H, W)` to features `(B, D, h, w)`, D its attribute `dimensions`; frozen. Its attribute
            `knows` says whether it has learned anything: if not, nothing is fitted, and nothing found.

    Attributes:
        problem: Why nothing was fitted; empty where it was.
    """

    mean: Tensor
    deviation: Tensor
    share: Tensor

    rounds, round_name = HEADS, "networks"
    contrasts = False
    problem = ""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features, dimensions = features, int(features.dimensions)  # type: ignore[arg-type]
        self.networks = nn.ModuleList(network_of(dimensions) for _ in range(HEADS))
        self.requires_grad_(False)  # what trains a segmenter has no business with them
        self.register_buffer("mean", torch.zeros(dimensions, 1, 1))
        self.register_buffer("deviation", torch.ones(dimensions, 1, 1))
        self.register_buffer("share", torch.tensor(0.0))

    def fit(
        self,
        samples: Iterable[tuple[Tensor, Tensor, int]],
        count: int,
        seed: int = 0,
        rounds: Iterable[object] = range(HEADS),
    ) -> None:
        """Train the networks; see `PseudoLabels.fit`."""
        if not self.features.knows:
            self._give_up("the encoder has no weights, so nothing can be found by what it sees")
            return
        generator = torch.Generator().manual_seed(seed)
        seen = self._read(samples, set(torch.randperm(count, generator=generator)[:PICTURES].tolist()))
        if torch.bincount(seen.labels.long(), minlength=2).min() < 2:  # a network leaves one of them out
            self._give_up("fewer than two training samples of a class, so labels tell nothing")
            return
        folds = folds_of(seen.labels, generator)
        for number, _ in enumerate(rounds):
            learned = seen.of((folds != number % FOLDS).nonzero()[:, 0].tolist())
            train(self._network(number), learned, generator)
        self._judge(seen, folds)

    def _give_up(self, problem: str) -> None:
        """Nothing is fitted, and nothing believed."""
        self.problem, self.held_out_auc = problem, 0.0

    def found(self) -> Iterator[str]:
        """See `PseudoLabels.found`."""
        if self.problem:
            yield f"pseudo-labels: {self.problem}"
            return
        yield (
            f"pseudo-labels: {HEADS} networks on frozen features mark {float(self.share):.1%} of the disease samples' "
            f"tissue, and tell held-out labels with an AUC of {self.held_out_auc:.2f}; the network learns it"
        )

    def forward(self, image: Tensor, tissue: Tensor, labels: Tensor) -> Tensor:
        """Probabilities `(B, 1, H, W)` in [0, 1]: nothing in healthy samples and off tissue."""
        return self.on_tissue(self.coarse(image), tissue, labels)

    @torch.no_grad()
    def coarse(self, image: Tensor) -> Tensor:
        """The probability of each cell, `(B, 1, h, w)`, of preprocessed images `(B, C, H, W)`."""
        standardised = (self.features(image) - self.mean) / self.deviation
        return torch.sigmoid(self._logits(standardised)).mean(1, keepdim=True)

    @staticmethod
    def on_tissue(coarse: Tensor, tissue: Tensor, labels: Tensor) -> Tensor:
        """What `coarse` says of each pixel, from `(B, 1, h, w)` to `(B, 1, H, W)`."""
        whole = interpolate(coarse, size=tissue.shape[-2:], mode="bilinear")
        return whole * tissue * (labels > 0)[:, None, None, None]

    def _network(self, number: int) -> nn.Sequential:
        network = self.networks[number]
        assert isinstance(network, nn.Sequential)  # ModuleList forgets what it holds
        return network

    def _logits(self, features: Tensor) -> Tensor:
        """Of each network, `(B, HEADS, h, w)`, from standardised features `(B, D, h, w)`."""
        return torch.cat([network(features) for network in self.networks], dim=1)

    @torch.no_grad()
    def _read(self, samples: Iterable[tuple[Tensor, Tensor, int]], chosen: set[int]) -> Seen:
        """Features of those samples whose numbers were chosen, standardised by their means and deviations."""
        both, cells, labels = [], [], []
        for number, (image, tissue, label) in enumerate(samples):
            if number not in chosen:
                continue
            seen = self.features(torch.stack([image, image.flip(-1)]))
            both.append(torch.stack([seen[0], seen[1].flip(-1)]).half())
            cells.append(adaptive_avg_pool2d(tissue.float(), seen.shape[-2:])[0] >= 0.5)
            labels.append(float(label > 0))
        self._standardise_by(each[0].double()[:, inside] for each, inside in zip(both, cells, strict=True))
        both = [((each.float() - self.mean) / self.deviation).half() for each in both]
        return Seen(both, cells, torch.tensor(labels, device=cells[0].device))

    def _standardise_by(self, samples: Iterable[Tensor]) -> None:
        """By the mean and the deviation of all features `(D, n)` of samples."""
        count, total, squares = (sum(part) for part in zip(*map(_moments, samples), strict=True))
        mean = total / count
        self.mean.copy_(mean[:, None, None])
        self.deviation.copy_((squares / count - mean.square()).clamp_min(1e-12).sqrt()[:, None, None])

    @torch.no_grad()
    def _judge(self, seen: Seen, folds: Tensor) -> None:
        """What is marked, and what held-out labels say of it."""
        logits = [self._logits(each[:1].float()) for each in seen.features]  # (1, HEADS, h, w) of each
        pooled = torch.cat([mean_of_highest(each, cells) for each, cells in zip(logits, seen.tissue, strict=True)])
        left_out = folds[:, None] == torch.arange(HEADS, device=folds.device) % FOLDS
        self.held_out_auc = mean_auc((pooled * left_out).sum(1), seen.labels > 0, folds)
        marked = torch.stack([_marked(each[0], cells) for each, cells in zip(logits, seen.tissue, strict=True)])
        disease = marked[seen.labels > 0]
        self.share.copy_(disease.mean())
        self.low_share = float(torch.quantile(disease, LOW))


def _marked(logits: Tensor, tissue: Tensor) -> Tensor:
    """The share of the tissue `(h, w)` that the networks' logits `(HEADS, h, w)` mark, on average."""
    return (torch.sigmoid(logits).mean(0) * tissue).sum() / tissue.sum().clamp_min(1)


def _moments(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number, sums and sums of squares `(D,)` of features `(D, n)`."""
    return torch.tensor(float(features.shape[1]), device=features.device), features.sum(1), features.square().sum(1)


def network_of(dimensions: int) -> nn.Sequential:
    """From features `(B, D, h, w)` to logits `(B, 1, h, w)`, each cell by itself."""
    return nn.Sequential(nn.Conv2d(dimensions, HIDDEN, 1), nn.ReLU(), nn.Conv2d(HIDDEN, 1, 1))


@torch.no_grad()
def start(network: nn.Sequential, generator: torch.Generator) -> None:
    """Random weights, and outputs near 0."""
    for layer, gain in ((network[0], 2.0), (network[2], 0.25)):
        assert isinstance(layer, nn.Conv2d)
        scale = gain / layer.in_channels
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * math.sqrt(scale))
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


@torch.enable_grad()
def train(network: nn.Sequential, seen: Seen, generator: torch.Generator) -> None:
    """Train a network from new weights."""
    start(network, generator)
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for batch in balanced(seen.labels, STEPS, generator):
        optimizer.zero_grad()
        loss(network, seen.of(batch.tolist())).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    network.requires_grad_(False)


def loss(network: nn.Module, seen: Seen) -> Tensor:
    """Cross-entropy of the highest cells with the label, and the distance of both maps, on average."""
    grids = [_answers(network, *of_grid) for of_grid in seen.by_grid()]
    pooled, apart, labels = (torch.cat(part) for part in zip(*grids, strict=True))
    told = binary_cross_entropy_with_logits(pooled, labels[:, None].expand_as(pooled))
    return told + AGREEMENT * (apart.mean() if len(apart) else 0.0)


def _answers(network: nn.Module, features: Tensor, tissue: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of both maps' highest cells `(n, 2)`, their squared distance in each cell of tissue, and the labels."""
    logits: Tensor = network(features.float().flatten(0, 1))
    both = logits.view(len(labels), 2, *logits.shape[2:])
    one, other = torch.sigmoid(both).unbind(1)
    return mean_of_highest(both, tissue[:, None]), (one - other).square()[tissue], labels


def folds_of(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The fold of each sample, `(N,)`, of each class as many in each: by chance."""
    folds = torch.zeros(len(labels), dtype=torch.long)
    for label in (0, 1):
        of_class = (labels == label).nonzero()[:, 0].cpu()
        folds[of_class[torch.randperm(len(of_class), generator=generator)]] = torch.arange(len(of_class)) % FOLDS
    return folds.to(labels.device)


def balanced(labels: Tensor, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Numbers `(BATCH,)` of samples for some steps, half of each class; a class that is used up begins again."""
    halves = []
    for label in (0, 1):
        of_class, wanted = (labels == label).nonzero()[:, 0].cpu(), steps * BATCH // 2
        orders = [torch.randperm(len(of_class), generator=generator) for _ in range(-(-wanted // len(of_class)))]
        halves.append(of_class[torch.cat(orders)[:wanted]].view(steps, -1))
    return iter(torch.cat(halves, dim=1))


def mean_of_highest(logits: Tensor, tissue: Tensor) -> Tensor:
    """The mean of the highest `SHARE` of the logits `(..., h, w)` on tissue, `(...)`; at least of one."""
    cells = tissue.flatten(-2).sum(-1, keepdim=True)
    number = (SHARE * cells).long().clamp_min(1)
    lowest = torch.finfo(logits.dtype).min
    highest = logits.masked_fill(~tissue, lowest).flatten(-2).topk(int(number.max()), dim=-1).values
    counts = torch.arange(highest.shape[-1], device=logits.device) < number
    # Without tissue nothing is known, and 0 is the logit of that.
    return (highest.where(counts & (cells > 0), 0)).sum(-1) / number[..., 0]


def mean_auc(scores: Tensor, disease: Tensor, folds: Tensor) -> float:
    """Area under the ROC within each fold that has both classes, on average; NaN where none has."""
    # Not over all: networks that learned from different samples may differ in level.
    parts = [(scores[(folds == fold) & ~disease], scores[(folds == fold) & disease]) for fold in range(FOLDS)]
    areas = [auc(*part) for part in parts if min(map(len, part))]
    return sum(areas) / len(areas) if areas else math.nan

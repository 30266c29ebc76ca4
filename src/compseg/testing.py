"""Contract checks for a segmenter, a pool or a loss of your own: what training and evaluation rely on.

    from compseg.testing import check_segmenter, check_pool, check_objective

    check_segmenter(lambda channels, maps: Mine(channels, maps))
    check_pool(MyPool())
    check_objective(MyLoss())

Each raises an AssertionError with a sentence that says what is wrong. They need torch alone and take seconds; the tests
of compseg run the same checks on everything in conf/. Shapes: B samples, C channels, M maps, H x W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from compseg.comparative import HeadOutput, Objective, SigmaHead

MakeSegmenter = Callable[[int, int], nn.Module]
"""From C and M to a network with random weights."""

LABELS = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])


def check_segmenter(make: MakeSegmenter) -> None:
    """Check that networks meet what training, evaluation and export ask of a segmenter.

    Args:
        make: Makes a network from images `(B, C, H, W)` to logits `(B, M, H, W)`, with other weights each time.

    Raises:
        AssertionError: One does not.
    """
    for check in SEGMENTER_CHECKS:
        check(make)


def check_pool(pool: nn.Module) -> None:
    """Check that a pool meets what a comparative head asks of it.

    Args:
        pool: From logits `(B, M, H, W)`, here of two maps, and tissue `(B, 1, H, W)` bool to x `(B,)` in [0, 1].

    Raises:
        AssertionError: It does not.
    """
    for check in POOL_CHECKS:
        check(pool)


def check_objective(objective: Objective) -> None:
    """Check that a loss or a regulariser meets what training asks of it.

    Raises:
        AssertionError: It does not.
    """
    for check in OBJECTIVE_CHECKS:
        check(objective)


def waves(batch: int = 2, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    """An image `(B, C, H, W)` of waves, independent of torch's random numbers."""
    count = batch * channels * height * width
    return torch.sin(torch.arange(count, dtype=torch.float64).square() / 1000).float().view(batch, channels, height, -1)


def _require(holds: bool | Tensor, sentence: str) -> None:
    # Not the statement: python -O removes it.
    if not holds:
        raise AssertionError(sentence)


def _require_close(found: Tensor, expected: Tensor, sentence: str, rtol: float = 1.3e-6, atol: float = 1e-5) -> None:
    alike = found.shape == expected.shape and found.dtype == expected.dtype
    _require(
        alike and torch.allclose(found, expected, rtol=rtol, atol=atol),
        f"{sentence} (got {_numbers(found)}, expected {_numbers(expected)})",
    )


def _numbers(values: Tensor) -> str:
    first = ", ".join(f"{value:.4g}" for value in values.detach().flatten()[:4].tolist())
    return f"{tuple(values.shape)}: {first}{', ...' if values.numel() > 4 else ''}"


# A segmenter


@torch.no_grad()
def logits_have_the_images_size(make: MakeSegmenter) -> None:
    """For 1 to 450 channels and one or two maps, in evaluation."""
    for channels, maps in [(1, 1), (3, 2), (64, 1), (450, 1)]:
        logits = make(channels, maps).eval()(waves(channels=channels))
        expected = (2, maps, 32, 32)
        _require(
            isinstance(logits, Tensor) and logits.shape == expected and logits.dtype == torch.float32,
            f"a segmenter of {channels} channels and {maps} maps has to give float32 logits {expected}, one value per "
            f"pixel and map; it gives {getattr(logits, 'dtype', type(logits))} {tuple(getattr(logits, 'shape', ()))}",
        )
        _require(logits.isfinite().all(), "logits have to be finite")
        _require(logits.min() < logits.max(), "logits have to depend on the image; these are the same everywhere")


def takes_any_size(make: MakeSegmenter) -> None:
    """One image per batch, in training, with odd sides and with sides smaller than what a network halves."""
    for height, width in [(37, 53), (5, 3)]:
        logits = make(3, 1).train()(waves(1, 3, height, width))
        _require(
            logits.shape == (1, 1, height, width),
            f"an image of {height} x {width} has to give a map of that size, not {tuple(logits.shape)}; "
            "compseg.models.Padded makes a network take any size",
        )
        _require(logits.isfinite().all(), f"logits of an image of {height} x {width} have to be finite in training")


def every_parameter_learns(make: MakeSegmenter) -> None:
    """Each gets a gradient, as training on several devices waits for all."""
    net = make(3, 1).train()
    net(waves()).square().mean().backward()
    for key, parameter in net.named_parameters():
        _require(parameter.grad is not None, f"{key} gets no gradient: training on several devices would wait for it")
        assert parameter.grad is not None
        _require(parameter.grad.isfinite().all(), f"the gradient of {key} has to be finite")
        # A bias may have a gradient of zero, where a norm follows that removes it.
        _require(parameter.ndim == 1 or parameter.grad.any(), f"the gradient of {key} is zero: it would never learn")


@torch.no_grad()
def evaluation_takes_samples_one_by_one(make: MakeSegmenter) -> None:
    """A map is the same each time, and does not depend on what else is in its batch."""
    net, x = make(3, 1).eval(), waves()
    together, apart = net(x), torch.cat([net(x[:1]), net(x[1:])])
    _require(torch.equal(net(x), together), "in evaluation the same image has to give the same logits each time")
    # Another batch size may take another algorithm, so equal means: by far less than the map varies.
    _require_close(
        together,
        apart,
        "in evaluation a map must not depend on the other samples of its batch",
        rtol=0,
        atol=1e-3 * together.std().item(),
    )


@torch.no_grad()
def comes_back_from_its_state_dict(make: MakeSegmenter) -> None:
    """All that a map depends on is saved."""
    net, other = make(3, 1).eval(), make(3, 1).eval()
    _require(not torch.equal(net(waves()), other(waves())), "two new networks have to differ: weights are random")
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    # `weights_only`, as all checkpoints of a run are read.
    other.load_state_dict(torch.load(file, weights_only=True))
    _require(
        torch.equal(net(waves()), other(waves())),
        "a network given another's state dict has to give its maps; keep all that they depend on in parameters and "
        "buffers",
    )


@torch.no_grad()
def exports(make: MakeSegmenter) -> None:
    """`torch.export` keeps its numbers."""
    net, x = make(3, 1).eval(), waves(1, 3, 37, 53)
    _require_close(
        torch.export.export(net, (x,)).module()(x), net(x), "an exported network has to give the same logits"
    )


@torch.no_grad()
def compiles(make: MakeSegmenter) -> None:
    """`torch.compile` keeps its numbers."""
    net, x = make(3, 1).eval(), waves()
    eager = net(x)
    # This backend traces and generates no code, for which a compiler would have to be installed.
    net.compile(backend="eager")
    _require_close(net(x), eager, "a compiled network has to give the same logits")


SEGMENTER_CHECKS: tuple[Callable[[MakeSegmenter], None], ...] = (
    logits_have_the_images_size,
    takes_any_size,
    every_parameter_learns,
    evaluation_takes_samples_one_by_one,
    comes_back_from_its_state_dict,
    exports,
    compiles,
)


# A pool


def pooled_batch() -> tuple[Tensor, Tensor]:
    """Logits `(4, 2, 12, 10)`, and tissue that covers none, a tenth, six tenths and all of each image."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 2, 12, 10, generator=generator)
    shares = torch.tensor([0.0, 0.1, 0.6, 1.0]).view(-1, 1, 1, 1)
    return logits, torch.rand(4, 1, 12, 10, generator=generator) < shares


def pools_to_fractions(pool: nn.Module) -> None:
    """One number in [0, 1] per sample, in float32; 0 where there is no tissue."""
    logits, tissue = pooled_batch()
    x = pool(logits, tissue).detach()
    _require(
        x.shape == (4,) and x.dtype == torch.float32,
        f"a pool has to give one float32 number per sample, {(4,)}; it gives {x.dtype} {tuple(x.shape)}",
    )
    _require((x >= 0).all() and (x <= 1).all(), f"x is a fraction, from 0 to 1; it is {_numbers(x)}")
    _require(x[0] == 0, f"a sample without tissue has to give 0; it gives {float(x[0]):.4g}")
    _require(x[1] > 0, "a sample with tissue has to give more than 0")


def pools_upwards(pool: nn.Module) -> None:
    """More activation is more x, up to 1, and none is 0."""
    logits, tissue = pooled_batch()
    raised = logits.clone()
    raised[:, 0] += 0.5
    # Without the first, which has no tissue: nothing raises its x.
    more, less = (pool(given, tissue)[1:] for given in (raised, logits))
    _require((more > less).all(), "a higher activation of map 0 has to raise x")
    full, empty = (pool(torch.full_like(logits, level), tissue) for level in (1e4, -1e4))
    _require_close(full[1:], torch.ones(3), "a map that is 1 everywhere has to give x = 1")
    _require_close(empty, torch.zeros(4), "a map that is 0 everywhere has to give x = 0")


def pools_tissue_alone(pool: nn.Module) -> None:
    """Gradients are finite, not 0 on the tissue of map 0, and 0 everywhere else."""
    logits, tissue = pooled_batch()
    pool(logits.requires_grad_(), tissue).sum().backward()
    gradient = logits.grad
    assert gradient is not None
    _require(gradient.isfinite().all(), "the gradient has to be finite, also of a sample without tissue")
    _require(
        (gradient[1:, :1].abs().amax((1, 2, 3)) > 0).all(), "map 0 of each sample with tissue has to get a gradient"
    )
    _require(not gradient[~tissue.expand_as(logits)].any(), "pixels off tissue must not count: their gradient is not 0")


def pools_without_regard_to_place(pool: nn.Module) -> None:
    """Neither the order of pixels nor padding changes x, nor does another sample."""
    logits, tissue = pooled_batch()
    x = pool(logits, tissue)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(1))
    moved = (given.flatten(2)[..., order].view(given.shape) for given in (logits, tissue))
    _require_close(pool(*moved), x, "x must not depend on where pixels are")
    margins = (2, 3, 1, 4)
    _require_close(
        pool(pad(logits, margins, value=7.0), pad(tissue, margins, value=False)),
        x,
        "padding an image outside its tissue must not change x",
    )
    alone = torch.cat([pool(logits[i : i + 1], tissue[i : i + 1]) for i in range(4)])
    _require_close(alone, x, "x of a sample must not depend on the other samples of its batch")


POOL_CHECKS: tuple[Callable[[nn.Module], None], ...] = (
    pools_to_fractions,
    pools_upwards,
    pools_tissue_alone,
    pools_without_regard_to_place,
)


# A loss


def judged_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits `(8, 2, 9, 11)`, tissue with one empty mask, and truth; labels are `LABELS`."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(8, 2, 9, 11, generator=generator) - 2
    tissue = torch.rand(8, 1, 9, 11, generator=generator) < 0.7
    # A crop may hold no tissue.
    tissue[1] = False
    return logits, tissue, torch.rand(8, 1, 9, 11, generator=generator) < 0.3


def head_output(logits: Tensor, tissue: Tensor) -> HeadOutput:
    """What a head gives of two maps, with all that an objective may read beyond it, made up of map 1."""
    out: HeadOutput = SigmaHead()(logits, tissue)
    other = out.logits[:, 1:]
    rotated, ema = torch.sigmoid(other), torch.sigmoid(-other / 2).detach()
    image = torch.cat([other, other.cos()], dim=1).detach()
    return out._replace(image=image, rotated=rotated, flipped=rotated, ema=ema)


def _statistics(objective: Objective, logits: Tensor, tissue: Tensor, truth: Tensor) -> Tensor:
    return objective.statistics(head_output(logits, tissue), LABELS, truth)


def loss_is_a_function_of_averages(objective: Objective) -> None:
    """`finish` of the mean of `statistics` is the loss, in any precision of the network."""
    logits, tissue, truth = judged_batch()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        given = logits.to(dtype)
        numbers = _statistics(objective, given, tissue, truth)
        expected = (8, objective.columns)
        _require(
            numbers.shape == expected and numbers.dtype == torch.float32,
            f"statistics have to be float32 {expected}, `columns` numbers per sample; they are {numbers.dtype} "
            f"{tuple(numbers.shape)}",
        )
        _require(numbers.isfinite().all(), f"statistics have to be finite, also of {dtype} logits and empty tissue")
        loss = objective(head_output(given, tissue), LABELS, truth)
        _require(loss.shape == (), f"the loss is one number, not {tuple(loss.shape)}")
        _require_close(loss, objective.finish(numbers.mean(0)), "the loss has to be finish(mean of statistics)")


def loss_has_a_gradient(objective: Objective) -> None:
    """It is finite, for extreme logits too, and not 0 on map 0."""
    for scale in (1.0, 1e3):
        logits, tissue, truth = judged_batch()
        logits = (scale * logits).requires_grad_()
        objective(head_output(logits, tissue), LABELS, truth).backward()
        assert logits.grad is not None
        _require(logits.grad.isfinite().all(), f"the gradient has to be finite, also of logits of about {2 * scale:g}")
        # Logits of a thousand saturate a sigmoid: there a gradient of 0 is right.
        _require(scale > 1 or logits.grad[:, 0].any(), "map 0, the disease map, has to get a gradient")


def loss_takes_one_class(objective: Objective) -> None:
    """A batch of one class has a finite loss and gradient."""
    for label in (0.0, 1.0):
        logits, tissue, truth = judged_batch()
        loss = objective(head_output(logits.requires_grad_(), tissue), torch.full((8,), label), truth)
        loss.backward()
        assert logits.grad is not None
        _require(
            loss.isfinite() and logits.grad.isfinite().all(),
            f"a batch whose labels are all {label:g} has to have a finite loss and gradient",
        )


def loss_judges_each_sample_alone(objective: Objective) -> None:
    """So that the mean over devices is that over one; and a rotated sample as the sample itself."""
    logits, tissue, truth = judged_batch()
    whole = _statistics(objective, logits, tissue, truth)
    for i in range(8):
        one = slice(i, i + 1)
        alone = objective.statistics(head_output(logits[one], tissue[one]), LABELS[one], truth[one])
        _require_close(alone, whole[one], "statistics of a sample must not depend on the other samples of its batch")
    rotated = [given.rot90(1, (2, 3)) for given in (logits, tissue, truth)]
    _require_close(
        _statistics(objective, *rotated), whole, "rotating an image and its masks must not change statistics"
    )


OBJECTIVE_CHECKS: tuple[Callable[[Objective], None], ...] = (
    loss_is_a_function_of_averages,
    loss_has_a_gradient,
    loss_takes_one_class,
    loss_judges_each_sample_alone,
)

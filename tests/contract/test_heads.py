"""What every head in conf/head and conf/method keeps to. A new YAML file there is tested by being there."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from choices import nodes_of
from compseg.comparative import ComparativeHead

HEADS = nodes_of("head")


@pytest.fixture(params=HEADS)
def head(request):
    made = instantiate(HEADS[request.param])
    assert isinstance(made, ComparativeHead)
    return made


@pytest.fixture
def batch(head):
    """Logits of two maps, and tissue masks of several sizes, one of them empty."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 2, 12, 10, generator=generator)
    if getattr(head.pool, "map", 0) == -1:
        logits = logits[:, :1]  # a Grad-CAM's head reads the last map, in training the only one
    tissue = torch.rand(4, 1, 12, 10, generator=generator) < torch.tensor([0.0, 0.1, 0.6, 1.0]).view(-1, 1, 1, 1)
    return logits, tissue


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shapes_types_and_ranges(head, batch, dtype):
    logits, tissue = batch
    out = head(logits.to(dtype), tissue)
    assert out.logits.shape == logits.shape
    assert out.activation.shape == (4, 1, 12, 10)
    assert out.tissue is tissue
    assert out.x.shape == out.o.shape == (4,)
    assert {out.logits.dtype, out.activation.dtype, out.x.dtype, out.o.dtype} == {torch.float32}
    torch.testing.assert_close(out.activation, torch.sigmoid(logits[:, :1].to(dtype).float()))
    assert (out.x >= 0).all()
    assert (out.x <= 1).all()
    assert (out.o >= 0).all()
    assert (out.o <= out.maximum + 1e-6).all()
    assert isinstance(out.alpha, float)
    assert isinstance(out.maximum, float)


def test_no_tissue_gives_0(head, batch):
    out = head(*batch)
    assert out.x[0] == 0
    assert out.o[0] == 0
    assert out.x[1] > 0


def test_more_activation_is_never_less_x(head, batch):
    logits, tissue = batch
    raised = logits.clone()
    raised[:, 0] += 0.5
    assert (head(raised, tissue).x[1:] > head(logits, tissue).x[1:]).all()


def test_saturated_maps_reach_the_ends(head, batch):
    logits, tissue = batch
    full, empty = (head(torch.full_like(logits, level), tissue).x for level in (1e4, -1e4))
    torch.testing.assert_close(full[1:], torch.ones(3))
    torch.testing.assert_close(empty, torch.zeros(4))


def test_gradient_reaches_the_tissue_and_nothing_else(head, batch):
    logits, tissue = batch[0].requires_grad_(), batch[1]
    head(logits, tissue).x.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[1:, :1].abs().amax((1, 2, 3)) > 0).all()
    assert not logits.grad[~tissue.expand_as(logits)].any()


def test_gradient_through_the_transfer_is_finite(head, batch):
    for scale in (1, 1e3):
        logits = (scale * batch[0]).requires_grad_()
        head(logits, batch[1]).o.sum().backward()
        assert torch.isfinite(logits.grad).all()


def test_places_do_not_matter(head, batch):
    logits, tissue = batch
    order = torch.randperm(120, generator=torch.Generator().manual_seed(1))
    moved = [t.flatten(2)[..., order].view(t.shape) for t in (logits, tissue)]
    torch.testing.assert_close(head(*moved).x, head(logits, tissue).x)


def test_padding_does_not_matter(head, batch):
    logits, tissue = batch
    padded = torch.nn.functional.pad(logits, (2, 3, 1, 4), value=7.0)
    mask = torch.nn.functional.pad(tissue, (2, 3, 1, 4), value=False)
    torch.testing.assert_close(head(padded, mask).x, head(logits, tissue).x)


def test_samples_do_not_see_each_other(head, batch):
    logits, tissue = batch
    alone = torch.cat([head(logits[i : i + 1], tissue[i : i + 1]).o for i in range(4)])
    torch.testing.assert_close(head(logits, tissue).o, alone)


def test_state_survives_a_trip_to_disk(head, batch, tmp_path):
    torch.save(head.state_dict(), tmp_path / "head.pt")
    head.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    assert torch.isfinite(head(*batch).o).all()

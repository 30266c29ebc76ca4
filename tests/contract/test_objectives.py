"""What every objective, regulariser and method in conf/ keeps to. A new YAML file there is tested by being there."""

from __future__ import annotations

import copy

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from choices import CONF, names, nodes_of, option
from compseg.comparative import Objective, OutsideTissue, SigmaHead

LABELS = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])  # of four, three and one on two ranks


def composed(*overrides):
    """The part of a training configuration that this room owns."""
    groups = {"method": "mean", "head": None, "objective": None, "pseudo_labels": None, "regulariser": None}
    defaults = ["_self_", *({group: chosen} for group, chosen in groups.items())]
    method = {"maps": 1, "baseline": None, "cam": None, "fallback": None}
    root = {"defaults": defaults, "method": method, "regularisers": {}, "pseudo_labels": None, "channels": 3}
    ConfigStore.instance().store("contract_of_objectives", root)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("contract_of_objectives", list(overrides))


OBJECTIVES = nodes_of("objective")
CHOICES = [*OBJECTIVES, *(f"regulariser/{name}" for name in names("regulariser"))]


def load(choice):
    """The objective or regulariser of `place/name`."""
    group, name = choice.split("/")
    if group == "regulariser":
        return instantiate(composed(f"regulariser={name}").regularisers[name])
    return instantiate(OBJECTIVES[choice])


@pytest.fixture(scope="module", params=CHOICES)
def objective(request):
    made = load(request.param)
    assert isinstance(made, Objective)
    return made


@pytest.fixture
def batch():
    """Logits of two maps, tissue with one empty mask, truth; eight samples."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(8, 2, 9, 11, generator=generator) - 2
    tissue = torch.rand(8, 1, 9, 11, generator=generator) < 0.7
    tissue[1] = False
    return logits, tissue, torch.rand(8, 1, 9, 11, generator=generator) < 0.3


def with_views(out):
    """The head's output with all that an objective may read beyond it, computed from map 1, pixel by pixel."""
    other = out.logits[:, 1:]
    rotated, ema = torch.sigmoid(other), torch.sigmoid(-other / 2).detach()
    views = {"rotated": rotated, "flipped": rotated, "ema": ema}
    return out._replace(image=torch.cat([other, other.cos()], dim=1).detach(), **views)


def output(logits, tissue):
    return with_views(SigmaHead()(logits, tissue))


def statistics(objective, logits, tissue, truth):
    return objective.statistics(output(logits, tissue), LABELS, truth=truth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_statistics_and_loss(objective, batch, dtype):
    logits, tissue, truth = batch
    numbers = statistics(objective, logits.to(dtype), tissue, truth)
    assert numbers.shape == (8, objective.columns)
    assert numbers.dtype == torch.float32
    assert torch.isfinite(numbers).all()
    loss = objective(output(logits.to(dtype), tissue), LABELS, truth)
    assert loss.shape == ()
    torch.testing.assert_close(loss, objective.finish(numbers.mean(0)))


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_gradient_is_finite_and_there(objective, batch, scale):
    logits, tissue, truth = (scale * batch[0]).requires_grad_(), *batch[1:]
    objective(output(logits, tissue), LABELS, truth).backward()
    assert torch.isfinite(logits.grad).all()
    if scale == 1:
        assert logits.grad[:, 0].any()


def test_half_a_batch_of_each_class_alone_is_finite(objective, batch):
    for label in (0.0, 1.0):
        logits = batch[0].clone().requires_grad_()
        loss = objective(output(logits, batch[1]), torch.full((8,), label), batch[2])
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


def test_statistics_are_those_of_each_sample_alone(objective, batch):
    whole = statistics(objective, *batch)
    for i in range(8):
        out = output(batch[0][i : i + 1], batch[1][i : i + 1])
        torch.testing.assert_close(objective.statistics(out, LABELS[i : i + 1], batch[2][i : i + 1]), whole[i : i + 1])


def test_rotating_the_image_does_not_matter(objective, batch):
    rotated = [t.rot90(1, (2, 3)) for t in batch]
    torch.testing.assert_close(statistics(objective, *rotated), statistics(objective, *batch))


@pytest.mark.parametrize("choice", OBJECTIVES)
def test_places_do_not_matter(choice, batch):
    order = torch.randperm(99, generator=torch.Generator().manual_seed(1))
    moved = [t.flatten(2)[..., order].view(t.shape) for t in batch]
    objective = load(choice)
    torch.testing.assert_close(statistics(objective, *moved), statistics(objective, *batch))


def test_padding_matters_only_to_what_reads_outside_the_tissue(objective, batch):
    padded = [nn.functional.pad(t, (2, 3, 1, 4), value=v) for t, v in zip(batch, (7.0, False, False), strict=True)]
    reads_outside = any(isinstance(part, OutsideTissue) for part in objective.modules())
    assert torch.allclose(statistics(objective, *padded), statistics(objective, *batch), atol=1e-6) != reads_outside


class Tiny(nn.Module):
    """The smallest segmenter, with the head."""

    def __init__(self):
        super().__init__()
        self.net, self.head = nn.Conv2d(3, 2, 1), SigmaHead()

    def forward(self, image, tissue):
        return self.head(self.net(image), tissue)


def images():
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(8, 3, 6, 5, generator=generator)
    return image, *(torch.rand(8, 1, 6, 5, generator=generator) < share for share in (0.8, 0.3))


def step(model, objective, rows):
    """Loss and gradient on some of the samples."""
    image, tissue, truth = (t[rows] for t in images())
    model.zero_grad()
    loss = objective(with_views(model(image, tissue)), LABELS[rows], truth)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


def on_rank(rank, folder, model, objectives):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    parallel = DistributedDataParallel(model)
    found = {name: step(parallel, made, slice(4 * rank, 4 * rank + 4)) for name, made in objectives.items()}
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """Loss and gradient of every objective: on one process with 8 samples, and on two with 4 each."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.manual_seed(0)
    model, objectives = Tiny(), {choice: load(choice) for choice in CHOICES}
    rmse = load("objective/printed")
    rmse.loss = "rmse"
    objectives["rmse"] = rmse
    multiprocessing.spawn(on_rank, (str(folder), copy.deepcopy(model), objectives), nprocs=2)
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return {name: step(model, made, slice(0, 8)) for name, made in objectives.items()}, ranks


@pytest.mark.parametrize("choice", [*CHOICES, "rmse"])
def test_two_ranks_of_four_are_one_of_eight(choice, two_ranks):
    single, ranks = two_ranks
    loss, gradient = single[choice]
    for rank in ranks:
        torch.testing.assert_close(rank[choice][0], loss, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(rank[choice][1], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", names("method"))
def test_method_is_a_head_and_an_objective_that_work_together(name, batch):
    cfg = composed(f"method={name}")
    assert cfg.method.name == name
    logits = batch[0][:, : cfg.method.maps].clone().requires_grad_()
    head, objective = instantiate(cfg.head), instantiate(cfg.objective)
    loss = objective(head(logits, batch[1]), LABELS, batch[2] if objective.needs_truth else None)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[:, 0].any()


def test_values_of_a_method_are_flat_keys_and_the_command_line_wins():
    cfg = composed("method=two_map", "head.alpha=0.05", "head.beta=2", "head.gamma=0.01")
    transfer = instantiate(cfg.objective).transfer
    assert (transfer.alpha, transfer.beta, transfer.gamma) == (0.05, 2, 0.01)
    assert instantiate(cfg.head).transfer.alpha == 0.05
    cfg = composed("method=paper2020_fixed", "objective=one_sided")
    assert instantiate(cfg.objective).one_sided
    assert composed("method=openvibspec2022", "head.beta=0.5").head.beta == 0.5


@pytest.mark.parametrize("method", ["compseg", "log_barrier", "lse"])
@pytest.mark.parametrize("choice", [f"{group}={name}" for group in ("head", "objective") for name in names(group)])
def test_what_is_chosen_replaces_all_of_the_methods_own(choice, method):
    group, name = choice.split("=")
    assert composed(f"method={method}", choice)[group] == option(group, name)


def test_the_pseudo_labeller_is_replaced_alike():
    assert composed("method=supervised", "pseudo_labels=none").pseudo_labels is None
    assert composed("method=supervised", "pseudo_labels=fisher").pseudo_labels.supervises
    cfg = composed("method=lse", "pseudo_labels=fisher", "pseudo_labels.supervises=false")
    assert not cfg.pseudo_labels.supervises
    assert cfg.pseudo_labels.neighbourhood == "auto"


@pytest.mark.parametrize("group", ["method", "regulariser"])
def test_each_has_its_row_in_the_reference(group):
    reference = (CONF.parent / "docs" / "reference" / "methods.md").read_text(encoding="utf-8")
    assert [name for name in names(group) if f"| `{name}` |" not in reference] == []


def test_every_regulariser_adds_itself_by_name():
    for name in names("regulariser"):
        cfg = composed(f"regulariser={name}")
        assert list(cfg.regularisers) == [name]
        assert instantiate(cfg.regularisers[name]).weight == cfg.regularisers[name].weight

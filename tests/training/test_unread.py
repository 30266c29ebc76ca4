"""A key that is given and that nothing reads is named in one line, before anything is trained."""

from __future__ import annotations

import copy
import re
from contextlib import nullcontext

import hydra
import pytest
import torch
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from choices import names, nodes_of
from compseg.comparative import SigmaHead
from compseg.config import check_targets, compose, conf_dir
from compseg.config.hints import explain
from compseg.errors import CompsegError
from compseg.studies.comparison import refuse_unread_in, training_config
from compseg.studies.plan import composed, plan
from compseg.studies.sweep import jobs_to_check
from compseg.training import refuse_unread
from compseg.training.build import build_comparison, build_module
from compseg.training.resolve import resolve_by_pseudo_labels
from compseg.training.unread import problem_with, refuse, unread

# What is given, and what the line has to say: the key, why, what to change.
# ruff: noqa: E501  # a case a line
DEAD = [
    ("method=supervised pseudo_labels.neighbourhood=3 head.pool={_target_:compseg.comparative.MaxPool}", "head.pool", "reads no o and no x", "an objective that does"),
    ("method=pixel_bce head=sigma", "head=sigma", "reads neither x nor o", "conf/objective"),
    ("method=pu head=sigma head.alpha=0.3", "head=sigma", "PositiveUnlabelled", "another method"),
    ("objective.terms.pooled.weight=0 head.beta=2", "head.beta=2", "SupervisedPixels) reads no o", "an objective that does"),
    ("objective.terms.pooled.weight=0 objective.terms.pooled.loss=mse", "objective.terms.pooled.loss=mse", "weight is 0", "a number above 0"),
    ("method=topk pseudo_labels=fisher pseudo_labels.supervises=true", "pseudo_labels.supervises=true", "no pixels that could be marked", "method=compseg"),
    ("method=paper2020 pseudo_labels.neighbourhood=3", "pseudo_labels.neighbourhood", "pseudo_labels is null", "choose what sets it"),
    ("method=paper2020 method.fallback.n_init=2", "method.fallback.n_init", "method.fallback is null", "choose what sets it"),
    ("method=lse pseudo_labels=encoder", "pseudo_labels=encoder", "reads no pixels", "method=pictures"),
    ("pseudo_labels=none method.fallback.n_init=2", "method.fallback.n_init=2", "there is none", "pseudo_labels=fisher"),
    ("method=paper2020 +objective.weight=2", "+objective.weight=2", "there are none", "a regulariser"),
    ("method=paper2020_fixed objective.one_sided=true", "objective.one_sided=true", "never exceeds", "target=alpha"),
    ("scheduler.total_steps=100", "scheduler.total_steps=100", "fills in how many steps", "trainer.max_epochs"),
    ("optimizer.lr=0.1 scheduler.max_lr=0.2", "optimizer.lr=0.1", "rates of its own", "those of scheduler"),
    ("method=all_ones model=unet", "model=unet", "a map of its own", "another method"),
    ("method=single_band optimizer.lr=0.1", "optimizer.lr=0.1", "trains nothing", "another method"),
    ("method=single_band regulariser=entropy", "regulariser=entropy", "trains nothing", "another method"),
    ("evaluation.split=none evaluation.threshold=0.5", "evaluation.threshold=0.5", "judges nothing", "evaluation.split=test"),
    ("evaluation.split=val evaluation.report=true", "evaluation.report=true", "writes no report", "evaluation.split=test"),
    ("data.held_out_as=val", "data.held_out_as=val", "no group is held out", "data.held_out"),
    ("data.cache=ram data.workers=2", "data.workers=2", "nothing to read", "data.cache=none"),
    ("+trainer.limit_test_batches=2", "+trainer.limit_test_batches=2", "neither tests nor predicts", "limit_val_batches"),
    ("+trainer.gradient_clip_algorithm=value", "+trainer.gradient_clip_algorithm=value", "no gradient is clipped", "gradient_clip_val"),
    ("data=cohort data.path=a.zarr data.source.size=20", "data.source.size", "data.source is null", "choose what sets it"),
]  # fmt: skip
READ = [
    "head.alpha=0.05 head.beta=1 head.gamma=0 objective.terms.pooled.weight=2 pseudo_labels.neighbourhood=3",
    "method=paper2020 head.alpha=0.2 +objective.weight=2 regulariser=entropy",
    "method=supervised regulariser=size_penalty pseudo_labels.supervises=false",
    "method=supervised head=sigma head.alpha=0.2 objective=one_sided",
    "method=openvibspec2022 head.alpha=0.1 head.pool={_target_:compseg.comparative.MaxPool}",
    "method=single_band method.baseline.pixels=100 evaluation.threshold=0.5",
    "evaluation.split=val evaluation.report=false data.held_out=A1 data.held_out_as=val",
    "optimizer.lr=0.01 scheduler=constant",
    "optimizer=rmsprop optimizer.lr=0.01 scheduler.max_lr=${optimizer.lr}",
    "experiment=paper_small seed=3 name=mine source@data.source=phantom_hard",
]


def line_for(overrides: list[str]) -> str:
    """What a user reads who gives these."""
    try:
        cfg = compose("train", overrides)
        check_targets(cfg)
        refuse_unread(cfg, overrides)
    except (CompsegError, HydraException, OmegaConfBaseException) as error:
        return explain(error) or ""
    return ""


@pytest.mark.parametrize(("given", "key", "why", "fix"), DEAD, ids=[case[0] for case in DEAD])
def test_what_cannot_act_is_refused(given, key, why, fix):
    line = line_for(given.split())
    assert line.startswith(f"{key}")
    assert "does nothing here: " in line
    assert why in line
    assert fix in line
    assert "\n" not in line


@pytest.mark.parametrize("given", READ)
def test_what_acts_is_not(given):
    assert line_for(given.split()) == ""


HEADER = "# @package _global_\n"
# What an experiment file of a user's own holds, and the line that has to come, if one has to.
OWN_FILES = [
    ("objective: {terms: {pooled: {weight: 0}}}\nhead: {beta: 2.0}", "in experiment/mine.yaml: head.beta=2.0: does nothing here: "),
    ("defaults: [override /method: supervised, override /head: sigma]", "in experiment/mine.yaml: head=sigma: does nothing here: "),
    ("defaults: [base]\ntrainer: {max_epochs: 2}", "in experiment/base.yaml: scheduler.total_steps=100: does nothing here: "),
    ("defaults: [paper_small]\nevaluation: {split: val, report: false}", ""),
    ("head: {beta: 2.0}\ndata: {source: {size: 20}}", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), OWN_FILES)
def test_what_a_file_of_ones_own_gives_in_vain_is_refused(tmp_path, text, line):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(HEADER + text)
    (tmp_path / "experiment" / "base.yaml").write_text(HEADER + "scheduler: {total_steps: 100}")
    compose("train")  # makes what the files need known to Hydra
    given = ["experiment=mine", f"hydra.searchpath=[file://{tmp_path}]"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("train", given, return_hydra_config=True)
    found = list(unread(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])))
    with pytest.raises(CompsegError, match=re.escape(line)) if line else nullcontext():
        refuse(given[:1], found, cfg.hydra)


# Nodes whose every key some steps of training can tell apart; the first four differ from method to method.
OWN, SHARED = ("head", "objective", "regularisers", "pseudo_labels"), ("optimizer", "scheduler")
STEPS = 2


def leaves(node: object, key: str) -> list[tuple[str, object]]:
    """Dotted key and value of all that a user may set in a node."""
    if not isinstance(node, dict):
        return [(key, node)] if isinstance(node, bool | int | float | str) and "${" not in str(node) else []
    return [leaf for name, child in node.items() if name[0] != "_" for leaf in leaves(child, f"{key}.{name}")]


def another(key: str, value: object) -> object:
    """Another value that a key takes."""
    if isinstance(value, bool):
        return not value
    if key.endswith("neighbourhood"):
        return 3
    if isinstance(value, int):
        return -1 - value
    if isinstance(value, float):
        return value / 2 or 0.5
    return {"l1": "mse", "bce": "mse", "alpha": "maximum", "maximum": "alpha", "auto": 0.3}[str(value)]


def samples() -> dict[str, object]:
    """A batch of twelve samples of four channels, half of them disease, with truth."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(12) % 2
    truth = (torch.rand(12, 1, 8, 8, generator=generator) < 0.3) & (label.view(-1, 1, 1, 1) > 0)
    image = torch.randn(12, 4, 8, 8, generator=generator) + 2 * truth
    tissue = torch.rand(12, 1, 8, 8, generator=generator) < 0.9
    return {"image": image, "tissue": tissue, "label": label.float(), "truth": truth, "index": list(range(12))}


def trained(cfg: DictConfig) -> torch.Tensor:
    """Weights after some steps on these, of networks that begin with little and with much activation."""
    return torch.cat([trained_from(OmegaConf.merge(cfg, {"model": {"prior": prior}})) for prior in (0.05, 0.9)])


def trained_from(cfg: DictConfig) -> torch.Tensor:
    torch.manual_seed(0)
    module, batch = build_module(cfg), samples()
    if module.pseudo_labels is not None:
        rows = list(zip(batch["image"], batch["tissue"], batch["label"].int().tolist(), strict=True))
        module.pseudo_labels.fit(rows, 12)
    module.compare_by(*build_comparison(resolve_by_pseudo_labels(cfg, module.pseudo_labels).cfg), config={})
    optimizer = module.make_optimizer(module.parameters())
    schedule = module.make_scheduler(optimizer, STEPS + 1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        module.training_step(dict(batch), 0)["loss"].backward()
        optimizer.step()
        schedule.step()
        module.views.follow(module.segmenter)
    return torch.cat([parameter.detach().flatten() for parameter in module.segmenter.parameters()])


def after(cfg: DictConfig, key: str, value: object) -> str | torch.Tensor:
    """The line that refuses a value, or the weights that training with it leads to."""
    cfg = copy.deepcopy(cfg)
    OmegaConf.update(cfg, key, value)
    try:
        # A baseline has no weights that could tell.
        return problem_with(f"{key}={value}", list(unread(cfg))) or ("" if cfg.method.baseline else trained(cfg))
    except InstantiationException as error:  # for example of a loss that allows one target alone
        return explain(error) or ""


@pytest.mark.parametrize("method", names("method"))
def test_every_key_of_a_method_is_read_or_refused(method):
    """Change and see: another value leads to other weights, or is refused."""
    given = [f"method={method}", "channels=4", "model.width=4", "model.depth=1", "preprocess=none", "augmentation=none"]
    given += ["regulariser=size_penalty", "head.alpha=0.1"] if method == "compseg" else []
    given += ["method.maps=2"] if "cam" in method else []
    weightless = [f"pseudo_labels.features.{value}" for value in ("magnify=8.0", "encoder_weights=null")]
    given += weightless if method == "pictures" else []
    cfg = compose("train", given)
    before = None if cfg.method.baseline else trained(cfg)
    for node in (*OWN, *SHARED) if method == "compseg" else OWN:
        for key, value in leaves(OmegaConf.to_container(cfg, resolve=False)[node], node):
            found = after(cfg, key, another(key, value))
            if isinstance(found, str):
                assert key.rpartition(".")[2] in found
            else:
                assert not torch.equal(found, before), key


@pytest.mark.parametrize("choice", [*nodes_of("objective"), *(f"regulariser/{name}" for name in names("regulariser"))])
def test_objectives_read_what_they_declare_and_no_more(choice):
    group, name = choice.split("/")
    made = compose("train", [f"regulariser={name}"]).regularisers[name] if group == "regulariser" else None
    objective = instantiate(made or nodes_of("objective")[choice])
    batch = samples()
    out = SigmaHead()(torch.randn(12, 2, 8, 8), batch["tissue"])
    views = {view: out.activation.flip(0) for view in ("rotated", "flipped", "ema")}
    out = out._replace(image=batch["image"], **views)
    plain = objective.statistics(out, batch["label"], batch["truth"])
    for field in ("x", "o", "image", *views):
        poisoned = out._replace(**{field: getattr(out, field) + 0.5})
        same = torch.equal(objective.statistics(poisoned, batch["label"], batch["truth"]), plain)
        assert same != (field in objective.reads) or field == "image", field


def test_a_sweep_is_checked_job_by_job_before_the_first():
    arguments = ["model=unet,segnet", "method=compseg,supervised", "head.alpha=0.05,0.1", "seed=range(0,9)", "name=a"]
    jobs = jobs_to_check(arguments)
    assert len(jobs) == 4 + 1 + 8  # combinations of names, then each further number
    assert {job[0] for job in jobs} == {"model=unet", "model=segnet"}
    assert {job[2] for job in jobs} == {"head.alpha=0.05", "head.alpha=0.1"}
    assert all(job[4] == "name=a" for job in jobs)
    assert jobs_to_check(["head.alpha=interval(0.1,0.5)"]) == [["head.alpha=0.1"]]


def checked(**entries: object) -> None:
    defaults = {"cohorts": ["a.zarr"], "models": ["unet_small"], "methods": ["compseg"], "seeds": 1, "overrides": None}
    chosen = plan(OmegaConf.create({**defaults, "split": "test", **entries}))
    refuse_unread_in(chosen, composed(chosen, training_config))


def test_a_comparison_may_give_a_baseline_what_it_does_not_read():
    checked(methods=["compseg", "all_ones", "single_band"], overrides={"optimizer.lr": 0.01, "trainer.max_epochs": 3})


def test_a_comparison_refuses_what_none_of_its_runs_reads():
    with pytest.raises(CompsegError, match=r"optimizer.lr=0.01: does nothing here"):
        checked(methods=["all_ones", "single_band"], overrides={"optimizer.lr": 0.01})
    with pytest.raises(CompsegError, match=r"head=sigma: does nothing here"):
        checked(methods=["compseg", {"method": "supervised", "overrides": {"head": "sigma"}}])

"""`check_targets` names the key, the target and the nearest argument."""

import sys

import pytest
from omegaconf import OmegaConf

from compseg.config import check_targets, compose
from compseg.config.schema import SCHEMAS, flags_of
from compseg.errors import CompsegError


class Base:
    def __init__(self, width: int, depth: int = 2):
        self.size = (width, depth)


class PassesOn(Base):
    def __init__(self, name: str = "", **kwargs):
        super().__init__(**kwargs)


class TakesAnything:
    def __init__(self, **kwargs):
        self.given = kwargs


def net(channels, *, base=8):
    return channels, base


def typed(
    count: int = 1,
    rate: float = 0.5,
    share: "float | None" = None,
    rates: "float | list[float]" = 0.1,
    size: "int | str" = 2,
):
    return count, rate, share, rates, size


NOT_CALLABLE = 3


def node(target, **arguments):
    return {"_target_": target if "." in target else f"{__name__}.{target}", **arguments}


@pytest.mark.parametrize(
    "good",
    [
        node("net", channels=3, base=4),
        node("net", channels="???"),
        node("net", channels="${elsewhere}"),
        node("net", _partial_=True),
        node("net", _args_=[3], base=1, _convert_="all", _recursive_=False),
        node("PassesOn", name="a", width=3, depth=1),
        node("TakesAnything", anything=1),
        node("builtins.print", sep=" "),
        node("torch.optim.AdamW", _partial_=True, lr=0.1),
        node("pytorch_lightning.Trainer", max_epochs=3),
        node("pytorch_lightning.loggers.WandbLogger", project="p", entity="a keyword of wandb.init"),
        node("collections.abc.Sized"),
        node("typed", count=2, rate=1, share=None, rates=[0.1, 0.2], size="auto"),
        node("typed", count=2.0, rate="${elsewhere}", share="???"),
        node("typed", count="auto", rate="auto", share="auto", rates="auto"),
        node("net", channels="auto"),
        {"no": "target", "list": [1, {"deep": None}]},
    ],
    ids=str,
)
def test_good_nodes_pass(good):
    check_targets(OmegaConf.create({"node": good}))


@pytest.mark.parametrize(
    ("bad", "key", "words"),
    [
        (node("net", channels=3, bsae=4), "node.bsae", "net takes no 'bsae'; did you mean 'base'?"),
        (node("net", channels=3, zzz=4), "node.zzz", "net takes no 'zzz'; it takes: base, channels"),
        (node("net", _partial_=True, bsae=4), "node.bsae", "did you mean 'base'?"),
        (node("net", base=4), "node", "net needs 'channels'; give node.channels=..."),
        (node("PassesOn", widht=3), "node.widht", "PassesOn takes no 'widht'; did you mean 'width'?"),
        (node("torch.optim.AdamW", _partial_=True, Lr=1), "node.Lr", "did you mean 'lr'?"),
        (node("torch.optim.adamw.Adam_W"), "node._target_", "torch.optim.adamw has no 'Adam_W'; did you mean 'AdamW'?"),
        (node("compseg.modles.UNet"), "node._target_", "compseg has no 'modles'; did you mean 'models'?"),
        (node("no_such_package.UNet"), "node._target_", "cannot load no_such_package.UNet: No module named"),
        (node("NOT_CALLABLE"), "node._target_", "is a int, not a class or a function"),
        (node("..relative"), "node._target_", "cannot load ..relative"),
        (node("typed", count="two"), "node.count", "expected a whole number, got 'two'"),
        (node("typed", count=2.5), "node.count", "expected a whole number, got 2.5"),
        (node("typed", rate=None), "node.rate", "expected a number, got null"),
        (node("typed", share="half"), "node.share", "expected a number or null, got 'half'"),
        (node("typed", rates="fast"), "node.rates", "expected a number or a list of them, got 'fast'"),
        (node("typed", rates=True), "node.rates", "expected a number or a list of them, got true"),
        (node("torch.optim.AdamW", _partial_=True, amsgrad=3), "node.amsgrad", "expected true or false, got 3"),
        (node("torch.optim.AdamW", _partial_=True, lr="fast"), "node.lr", "got 'fast'"),
        ({"steps": [node("net", channels=1), node("net", chanels=1)]}, "node.steps.1.chanels", "'channels'?"),
        (node("net", channels=node("net", chanels=1)), "node.channels.chanels", "'channels'?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_nodes_are_named(bad, key, words):
    with pytest.raises(CompsegError) as caught:
        check_targets(OmegaConf.create({"node": bad}))
    message = str(caught.value)
    assert message.startswith(f"{key}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("package", "extra"),
    [("monai", "monai"), ("segmentation_models_pytorch", "smp"), ("tensorboard", "tensorboard")],
)
def test_an_absent_extra_is_named(monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(CompsegError, match=rf"model\._target_: .* is not installed; pip install 'compseg\[{extra}\]'"):
        check_targets(OmegaConf.create({"model": {"_target_": f"{package}.Net"}}))


def test_an_extra_that_a_module_of_ours_needs_is_named(monkeypatch, tmp_path):
    (tmp_path / "needs_monai.py").write_text("import monai\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(CompsegError, match=r"pip install 'compseg\[monai\]'"):
        check_targets(OmegaConf.create({"model": {"_target_": "needs_monai.Net"}}))


FLAGS = [(verb, key, nullable) for verb, schema in SCHEMAS.items() for key, nullable in flags_of(schema)]


@pytest.mark.parametrize(("verb", "key", "nullable"), FLAGS)
def test_what_is_true_or_false_is_nothing_else(verb, key, nullable):
    for value in ("true", "false", *["null"] * nullable):
        check_targets(compose(verb, [f"{key}={value}"]))
    for value, said in (("3", "3"), ("yes", "'yes'"), *[("null", "null")] * (not nullable)):
        with pytest.raises(CompsegError, match=rf"^{key}: expected true or false.*, got {said}$"):
            check_targets(compose(verb, [f"{key}={value}"]))


def test_every_flag_is_known():
    assert {key for _, key, _ in FLAGS} >= {"overwrite", "preview", "report", "evaluation.report", "gzip", "tma_core"}

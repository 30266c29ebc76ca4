"""What each key means: of every key a meaning, and a page that a terminal of 100 columns shows whole."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from compseg.__main__ import VERBS
from compseg.config import compose, conf_dir
from compseg.config.help import WIDTH, asked, page
from compseg.config.keys import comments_in, groups_of, keys_of, meanings, options_of, title_of
from compseg.errors import CompsegError

ROOT = Path(__file__).parents[2]


def help_of(verb, *words):
    overrides, nodes = asked(words)
    module = importlib.import_module(f"compseg.{verb}")
    module = importlib.import_module(f"compseg.{verb}.__main__") if hasattr(module, "__path__") else module
    doc = inspect.getdoc(module.main)
    return page(conf_dir() / f"{verb}.yaml", doc, compose(verb, overrides, with_hydra=True), nodes)


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_fits_and_explains_every_key(verb):
    shown = help_of(verb)
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert f"python -m compseg.{verb}" in shown.split("==")[0]
    assert not any(word in shown for word in ("_target_", "Optional", "int |", "NoneType"))
    cfg = compose(verb, with_hydra=True)
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    said = meanings(conf_dir() / f"{verb}.yaml", cfg.hydra.runtime.choices)
    assert [key.name for key in keys_of(own, said) if not key.meaning] == []


def test_the_page_of_training_has_groups_first_and_long_nodes_folded():
    shown = help_of("train", "model=unet")
    groups, keys, folded = (shown.index(title) for title in ("== Groups", "== Keys: give", "== Keys of the groups"))
    assert groups < keys < folded
    assert re.search("^model +unet +the segmenter", shown, re.MULTILINE)
    assert re.search("^head +alpha, beta, gamma", shown, re.MULTILINE)
    assert len(shown.splitlines()) < 90


def test_a_node_is_unfolded():
    shown = help_of("train", "trainer", "head.alpha", "optimizer=rmsprop", "optimizer")
    assert "== trainer=... (now default): devices, epochs, precision: how it is computed ==" in shown
    assert "fsdp     Every device holds a share of the model" in shown
    assert "trainer.max_epochs " in shown
    assert "times that training goes through the samples" in shown
    assert "head.alpha  auto  level of saturation" in shown
    assert "(now rmsprop)" in shown
    assert "data.batch_size" not in shown
    with pytest.raises(CompsegError, match="trianer: no such node; did you mean 'trainer'"):
        help_of("train", "trianer")


@pytest.mark.parametrize("group", groups_of(conf_dir() / "train.yaml"))
def test_every_option_says_what_it_is(group):
    assert groups_of(conf_dir() / "train.yaml")[group]
    if group != "experiment":
        assert all(map(title_of, options_of(conf_dir(), group).values()))


def test_comments_are_found_below_their_keys(tmp_path):
    file = tmp_path / "verb.yaml"
    file.write_text(
        "# @package _global_\n# What it is, see (e.g.) there. More.\ndefaults:\n  - base_verb\n  - optional a: b  # 1\n"
        "  - c@d.e: f  # second\n  - override hydra/help: x\n  - hydra: y\n  - _self_\n"
        "one:   # a whole\n  two: 1  # inner\n  three:\n    four: 2  # innermost\nfive: 3\n"
    )
    assert title_of(file) == "What it is, see (e.g.) there"
    assert groups_of(file) == {"a": "1", "c": "second"}
    said = comments_in(file)
    assert {key: said[key] for key in said if not key.startswith("defaults")} == {
        "one": "a whole",
        "one.two": "inner",
        "one.three.four": "innermost",
    }


def keys_page():
    spec = importlib.util.spec_from_file_location("keys_page", ROOT / "docs" / "keys_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_of_every_option_is_explained_there_or_in_another_file():
    known, keys = set().union(*(comments_in(conf_dir() / f"{verb}.yaml") for verb in VERBS)), []
    of_option = keys_page().option_keys
    for group in {group for verb in VERBS for group in groups_of(conf_dir() / f"{verb}.yaml")}:
        keys += [key for option in options_of(conf_dir(), group) for key in of_option(group, option)]
    known |= {key.name for key in keys if key.meaning}
    assert {key.name for key in keys if key.value != "{}"} - known == set()


def test_the_page_of_all_keys_has_every_verb_group_option_and_key():
    module = keys_page()
    shown = module.keys_page()
    for verb in VERBS:
        assert f"## compseg.{verb}\n" in shown
        assert f"python -m compseg.{verb}" in shown
        for group in groups_of(conf_dir() / f"{verb}.yaml"):
            assert f"### Options of `{group}` {{ #group-{group} }}\n" in shown
            assert all(f"| `{option}` |" in shown for option in options_of(conf_dir(), group))
    for key in ("trainer.max_epochs", "head.alpha", "data.source.patient_mix", "evaluation.split", "pixel_size", "cv"):
        assert f"| `{key}` |" in shown
    assert re.search(r"\| `model.width` \| `\d+` \| channels of the first level \|", shown)
    assert "auto \\| none \\| ram" in shown
    assert "for example &#123;image: cube, truth: mask} |" in shown  # braces at the end of a cell are attributes
    assert not re.search(r"\|\s*\|$", shown, re.MULTILINE), "a row without meaning"
    assert all(line.count("|") - line.count("\\|") in (0, 3, 4) for line in shown.splitlines())
    assert module.PATH in (ROOT / "mkdocs.yml").read_text()

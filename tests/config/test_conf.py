"""Every file in conf/ composes, and every `_target_` in it takes what it is given."""

import pytest
import yaml

from compseg.config import check_targets, compose, conf_dir
from compseg.config.schema import SCHEMAS
from compseg.errors import CompsegError

CONF = conf_dir()
GROUPS = sorted(
    (str(file.parent.relative_to(CONF)), file.stem) for file in CONF.rglob("*/*.yaml") if "hydra" not in file.parts
)


def groups_of(name):
    defaults = yaml.safe_load((CONF / f"{name}.yaml").read_text())["defaults"]
    return {group for entry in defaults if isinstance(entry, dict) for group in entry}


def check(name, overrides=()):
    cfg = compose(name, overrides)
    try:
        check_targets(cfg)
    except CompsegError as error:
        if "is not installed; pip install" in str(error):
            pytest.skip(str(error))
        raise
    return cfg


def test_each_verb_has_a_file_and_a_schema():
    assert {file.stem for file in CONF.glob("*.yaml")} == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_verb_composes(name):
    assert set(check(name)) == set(SCHEMAS[name].__dataclass_fields__)


@pytest.mark.parametrize("group_option", GROUPS, ids="=".join)
def test_option_composes(group_option):
    group, option = group_option
    choosing = [name for name in SCHEMAS if group in groups_of(name)]
    for name in choosing:
        check(name, [f"{group}={option}"])
    if not choosing:  # a group that is added, not chosen
        check("train", [f"+{group}={option}"])


@pytest.mark.parametrize("method", [option for group, option in GROUPS if group == "method"])
def test_a_method_has_the_last_word(method):
    """What a method's file sets outside of head and objective is not overruled by the defaults of train.yaml."""
    written = yaml.safe_load((CONF / "method" / f"{method}.yaml").read_text())
    cfg = compose("train", [f"method={method}"])
    plain = {key: value for key, value in written.items() if not isinstance(value, dict | list)}
    assert {key: cfg[key] for key in plain} == plain

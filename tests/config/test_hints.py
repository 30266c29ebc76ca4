"""Every error of a user is one line that names the culprit and the fix; an error of the program is not explained."""

import errno

import pytest
from hydra.utils import instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch._utils import ExceptionWrapper

from compseg.config import check_targets, compose
from compseg.config.hints import RENAMED, explain, renamed
from compseg.config.schema import CompareConfig, EvaluateConfig, TrainConfig
from compseg.errors import CompsegError, closest

FILES = {
    "experiment/misspelt.yaml": "# @package _global_\nsead: 3\n",
    "experiment/mistyped.yaml": "# @package _global_\nseed: soon\n",
    "experiment/no_yaml.yaml": "# @package _global_\nseed: 3: 4\n",
    "experiment/no_option.yaml": "# @package _global_\ndefaults:\n  - override /model: unett\n",
    "scanner/mine.yaml": "{}",
    "experiment/old_key.yaml": "# @package _global_\nstarts: 3\n",
    "experiment/old_group.yaml": "# @package _global_\ndefaults:\n  - override /teacher: fisher\n",
    "experiment/old_option.yaml": "# @package _global_\ndefaults:\n  - override /augmentation: turns\n",
}


@pytest.fixture(scope="module")
def own_conf(tmp_path_factory):
    """A folder of a user's own configuration files, as an override that adds it."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return f"hydra.searchpath=[file://{folder}]"


def hint(overrides, groups=("model", "data", "experiment")):
    with pytest.raises(Exception) as caught:  # noqa: PT011  any that Hydra raises
        compose("train", overrides)
    return explain(caught.value, groups)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("sead=3", "sead: no such key; did you mean 'seed'?"),
        ("modle=unet", "modle: no such key; did you mean 'model'?"),
        ("max_epochs=3", "max_epochs: no such key at the top; did you mean 'trainer.max_epochs'?"),
        ("epochs=3", "epochs: no such key at the top; did you mean 'trainer.max_epochs'?"),
        ("batchsize=3", "batchsize: no such key at the top; did you mean 'data.batch_size'?"),
        ("seed=null", "seed: expected a value, got null"),
        ("trainer.max_epoch=3", "trainer.max_epoch: no such key; did you mean 'max_epochs'?"),
        ("seed=soon", "seed: expected a whole number, got 'soon'"),
        ("seed=[1", "seed=[1: not understood as key=value; a value with brackets, commas or blanks needs quotes"),
        ("+model=unet", "+model: it has a value already; give model=... without the plus sign"),
        ("scanner=mine", "scanner: not among what this verb chooses; +scanner=... adds it"),
        ("source=images", "source: did you mean 'source@data.source'?"),
        ("experiment=misspelt", "in experiment/misspelt.yaml: sead: no such key; did you mean 'seed'?"),
        (
            "experiment=mistyped",
            "in experiment/mistyped.yaml: seed: expected a whole number, got 'soon'",
        ),
        ("experiment=no_option", "model=unett: no such option; did you mean 'unet'?"),
        ("model=zzz", "model=zzz: no such option; options: "),
        ("model=1", "model=1: no such option; options: "),
        ("model=1.5", "model=1.5: no such option; options: "),
        ("experiment=true", "experiment=true: no such option; options: "),
        ("hydra/launcher=3", "hydra/launcher=3: no such option; options: "),
        ("source=3", "source: did you mean 'source@data.source'?"),
        ("regulariser=[entropi]", "regulariser=entropi: no such option; did you mean 'entropy'?"),
        ("regulariser=[entropy,2]", "regulariser=2: no such option; options: dense_negatives"),
        ("regulariser=[null]", "regulariser=null: no such option; options: dense_negatives"),
        ("learning_rate=1", "learning_rate: no such key; did you mean 'optimizer.lr'?"),
        ("gpus=2", "gpus: no such key; did you mean 'trainer.devices'?"),
    ],
)
def test_composition_errors(own_conf, override, line):
    assert hint([own_conf, override]).startswith(line)


@pytest.mark.parametrize("group", ["model", "optimizer", "preprocess"])
def test_a_group_that_is_needed_is_asked_for(group):
    with pytest.raises(Exception, match="Missing mandatory value") as caught:
        compose("train", [f"{group}=null"])[group]
    assert explain(caught.value) == f"{group}: no value; give {group}=..."


def test_null_chooses_no_option():
    assert compose("train", ["experiment=null", "augmentation=null"]).augmentation is None


NOW = {**dict.fromkeys(TrainConfig.__dataclass_fields__), "evaluation": None, "regulariser": None}  # and the groups


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("teacher", "pseudo_labels"),
        ("teacher.teaches", "pseudo_labels.supervises"),
        ("teacher.reach", "pseudo_labels.neighbourhood"),
        ("teacher.channels", "pseudo_labels.channels"),
        ("otherwise", "method.fallback"),
        ("otherwise.teacher", "method.fallback.pseudo_labels"),
        ("otherwise.starts", "method.fallback.n_init"),
        ("otherwise.head.alpha", "method.fallback.head.alpha"),
        ("floor", "method.baseline"),
        ("localiser", "method.cam"),
        ("localiser.layer", "method.cam.layer"),
        ("maps", "method.maps"),
        ("depth", "model.depth"),
        ("starts", "n_init"),
        ("threshold", "evaluation.threshold"),
        ("evaluate", "evaluation.split (test | val | none)"),
        ("test", "evaluation.split (test | val | none)"),
        ("report", "evaluation.report"),
        ("rank_by", "evaluation.rank_by"),
        ("regularisers.turn_consistency.weight", "regularisers.rotation_consistency.weight"),
        ("regulariser=turn_consistency", "regulariser=rotation_consistency"),
        ("augmentation=turns", "augmentation=flip_rotate90"),
        ("augmentation=mirror", "augmentation=horizontal_flip"),
        ("augmentation=turns_and_jitter", "augmentation=flip_rotate90_jitter"),
        ("objective=taught", "objective=pseudo_labels"),
        ("objective=ceiling", "objective=maximum"),
        ("model.width", None),
        ("objective.target", None),
        ("regularisers.entropy", None),
    ],
)
def test_what_an_old_key_of_training_is_called_now(old, new):
    assert renamed(old, NOW) == renamed(old) == new


@pytest.mark.parametrize(
    ("old", "new"), [("ceiling", "upper_bound"), ("floors", "baselines"), ("figures", "metrics"), ("teacher", None)]
)
def test_what_an_old_key_of_a_comparison_is_called_now(old, new):
    assert renamed(old, {*CompareConfig.__dataclass_fields__, "upper_bound", "baselines", "metrics"}) == new


def test_a_verb_is_offered_its_own_keys_alone():
    """What training has below `evaluation` may lie at the top of another verb; other verbs have no pseudo-labels."""
    keys = {*EvaluateConfig.__dataclass_fields__, "split"} - {"test"}
    assert renamed("test", keys) == "split (test | val | none)"
    assert renamed("teacher.reach", keys) is None


def test_no_new_name_is_an_old_one():
    assert not {new.split()[0] for new in RENAMED.values()} & set(RENAMED)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("teacher=fisher", "teacher: now called pseudo_labels"),
        ("teacher.teaches=false", "teacher.teaches: now called pseudo_labels.supervises"),
        ("starts=3", "starts: now called n_init"),
        ("otherwise.starts=3", "otherwise.starts: now called method.fallback.n_init"),
        ("floor=null", "floor: now called method.baseline"),
        ("maps=2", "maps: now called method.maps"),
        ("depth=3", "depth: now called model.depth"),
        ("threshold=0.5", "threshold: now called evaluation.threshold"),
        ("evaluate=false", "evaluate: now called evaluation.split (test | val | none)"),
        ("test=false", "test: now called evaluation.split (test | val | none)"),
        ("report=false", "report: now called evaluation.report"),
        ("rank_by=val/loss", "rank_by: now called evaluation.rank_by"),
        ("localiser=null", "localiser: now called method.cam"),
        (
            "regularisers.turn_consistency.weight=3",
            "regularisers.turn_consistency.weight: now called regularisers.rotation_consistency.weight",
        ),
        ("+regulariser=turn_consistency", "regulariser=turn_consistency: now called regulariser=rotation_consistency"),
        ("augmentation=turns", "augmentation=turns: now called augmentation=flip_rotate90"),
        ("augmentation=mirror", "augmentation=mirror: now called augmentation=horizontal_flip"),
        ("objective=taught", "objective=taught: now called objective=pseudo_labels"),
        ("experiment=old_key", "in experiment/old_key.yaml: starts: now called n_init"),
        ("experiment=old_group", "teacher: now called pseudo_labels"),
        ("experiment=old_option", "augmentation=turns: now called augmentation=flip_rotate90"),
    ],
)
def test_an_old_name_on_the_command_line_or_in_a_file(own_conf, override, line):
    assert hint([own_conf, override], ("model", "data", "pseudo_labels", "method")) == line


def test_an_argument_that_was_renamed(monkeypatch):
    monkeypatch.setitem(RENAMED, "model.breadth", "model.width")
    with pytest.raises(CompsegError, match=r"model\.breadth: .*UNet takes no 'breadth'; now called model\.width"):
        check_targets(compose("train", ["model=unet", "+model.breadth=3"]))


def test_yaml_that_cannot_be_read_names_file_and_line(own_conf):
    line = hint([own_conf, "experiment=no_yaml"])
    assert "mapping values are not allowed here" in line
    assert "no_yaml.yaml" in line
    assert "line 2" in line
    assert "\n" not in line


def test_a_value_that_was_not_given():
    with pytest.raises(Exception) as caught:  # noqa: PT011
        _ = compose("check").cohort
    assert explain(caught.value) == "cohort: no value; give cohort=..."


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12))
def test_any_command_line_ends_in_a_configuration_or_in_one_line(text):
    try:
        compose("check", [text])
    except Exception as error:
        line = explain(error)
        assert line
        assert len(line.splitlines()) == 1


def refuse(reason):
    raise reason


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (
            CompsegError("a.csv: row 3: label 2, expected 0 or 1; fix it"),
            "a.csv: row 3: label 2, expected 0 or 1; fix it",
        ),
        (
            ValueError("Invalid\nlearning rate"),
            "node: {here}.refuse: ValueError: Invalid learning rate (COMPSEG_DEBUG=1",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.npy"),
            "node: {here}.refuse: a.npy: No such file or directory; check the path (COMPSEG_DEBUG=1",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_target_that_fails(reason, line):
    cfg = OmegaConf.create({"node": {"_target_": f"{__name__}.refuse"}}, flags={"allow_objects": True})
    cfg.node.reason = reason
    with pytest.raises(Exception) as caught:  # noqa: PT011
        instantiate(cfg.node)
    assert explain(caught.value).startswith(line.format(here=__name__))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CompsegError("two\nlines"), "two lines"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device; free some space or write elsewhere",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "out"), "out: Permission denied; check the permissions"),
        (OSError("truncated file"), "truncated file"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_while_a_verb_runs(error, line):
    assert explain(error) == line


@pytest.mark.parametrize("kind", [CompsegError, OSError])
def test_an_error_from_a_worker_process_loses_its_traceback(kind):
    try:
        refuse(kind("spot.npy: 3 channels, expected 4; prepare it again"))
    except kind:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(kind) as caught:
        wrapped.reraise()
    assert "Traceback" in str(caught.value)
    assert explain(caught.value) == "spot.npy: 3 channels, expected 4; prepare it again"


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division by zero"), KeyError("a"), RuntimeError("shape mismatch")]
)
def test_errors_of_the_program_are_not_explained(error):
    assert explain(error) is None


def fumble_with_an_absent_file():
    try:
        refuse(FileNotFoundError(errno.ENOENT, "No such file or directory", "a.npy"))
    except FileNotFoundError:
        _ = 1 / 0


def test_an_error_of_the_program_is_not_blamed_on_the_file_it_was_handling():
    with pytest.raises(ZeroDivisionError) as caught:
        fumble_with_an_absent_file()
    assert explain(caught.value) is None


@pytest.mark.parametrize(
    ("word", "known", "words"),
    [
        ("sead", ["name", "seed"], "did you mean 'seed'?"),
        ("Adam_W", ["adamw", "AdamW", "SGD"], "did you mean 'AdamW'?"),
        ("ADAMW", ["SGD", "AdamW"], "did you mean 'AdamW'?"),
        ("zzz", ["b", "a"], "options: a, b"),
        ("zzz", [], "options: nothing"),
    ],
)
def test_closest(word, known, words):
    assert closest(word, known, "options") == words


@given(st.text(min_size=1, max_size=8), st.lists(st.text(min_size=1, max_size=8), max_size=5))
def test_closest_names_a_known_word_or_all(word, known):
    words = closest(word, known)
    if words.startswith("did you mean"):
        assert any(f"'{name}'" in words for name in known)
    else:
        assert word not in known
        assert all(name in words for name in known)

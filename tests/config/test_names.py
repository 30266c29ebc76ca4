"""Names and paths stay the text that was typed, on the command line and in files."""

from dataclasses import fields

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from compseg.config import compose
from compseg.config.names import BELOW, check_text, is_text, keep_text
from compseg.config.schema import SCHEMAS
from compseg.errors import CompsegError

LOOK_ALIKE = [
    "1",
    "0",
    "001",
    "1e5",
    "1E5",
    "1_000",
    "1.0",
    ".5",
    "-1",
    "+5",
    "nan",
    "inf",
    "-inf",
    "true",
    "False",
    "on",
]
LOOK_ALIKE += ["2020-01-01", "0x10", "1:30", "A 1", "P1", "C:1", "data/1e5"]
KEYS = [
    *(("train", key) for key in (*BELOW, "name")),
    *(("prepare", key) for key in ("out", "upload", "pixel_unit", "source.manifest", "source.unit")),
    *(("predict", key) for key in ("run", "segmenter", "input", "out")),
    *(("export", key) for key in ("maps", "run", "out", "class_name", "ome_zarr", "license")),
    *(("evaluate", key) for key in ("run", "cohort")),
    *(("compare", key) for key in ("out", "upper_bound")),
    ("check", "cohort"),
    ("sweep_report", "dir"),
    ("sweep_report", "rank_by"),
]


@pytest.mark.parametrize("text", LOOK_ALIKE)
def test_a_name_stays_as_it_was_typed(text):
    parser = OverridesParser.create()
    for verb, key in KEYS:
        # Whole numbers become text in `check_text`, or because the schema says so.
        assert str(parser.parse_override(keep_text(verb, f"{key}={text}")).value()) == text


def test_the_configuration_holds_what_was_typed():
    cfg = compose("train", ["data.held_out=1", "data.path=1e5", "name=1_000", "evaluation.rank_by=nan", "seed=1"])
    check_text(cfg)
    assert (cfg.data.held_out, cfg.data.path, cfg.name, cfg.evaluation.rank_by) == ("1", "1e5", "1_000", "nan")
    assert cfg.seed == 1


@pytest.mark.parametrize("key", ["data.held_out", "data.source.manifest"])
def test_null_is_no_value_and_quotes_make_it_one(key):
    assert keep_text("train", f"{key}=null") == f"{key}=null"
    assert keep_text("train", f"{key}='null'") == f"{key}='null'"
    assert compose("train", ["data.held_out='null'"]).data.held_out == "null"


@pytest.mark.parametrize(
    ("verb", "given", "kept"),
    [
        ("train", "data.held_out=1e5,2,A", "data.held_out='1e5',2,A"),
        ("train", "data.held_out=choice(1e5, 1.0)", "data.held_out=choice('1e5', '1.0')"),
        ("train", "data.held_out=range(1,3)", "data.held_out=range(1,3)"),
        ("train", "+data.source.manifest=1e5", "+data.source.manifest='1e5'"),
        ("prepare", "source.keys={image: 1e5, truth: m}", "source.keys={image: '1e5', truth: m}"),
        ("compare", "baselines=[1e5, a, 2]", "baselines=['1e5', a, 2]"),
        ("train", "head.alpha=1e5", "head.alpha=1e5"),
        ("train", "data.batch_size=1_0", "data.batch_size=1_0"),
        ("train", "--multirun", "--multirun"),
        ("prepare", "splits.train=0.5", "splits.train=0.5"),
        ("predict", "threshold=1e-3", "threshold=1e-3"),
    ],
)
def test_what_is_quoted(verb, given, kept):
    assert keep_text(verb, given) == kept


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("model=1", "model='1'"),
        ("model=unet,2", "model=unet,'2'"),
        ("regulariser=[entropy, 1e5]", "regulariser=[entropy, '1e5']"),
        ("source@data.source=nan", "source@data.source='nan'"),
        ("hydra/launcher=3", "hydra/launcher='3'"),
        ("experiment=null", "~experiment"),
        ("+model={_target_: my.Net, width: 8}", "+model={_target_: my.Net, width: 8}"),
        ("model=unet", "model=unet"),
        ("model=unet2", "model=unet2"),
        ("trainer.devices=2", "trainer.devices=2"),
    ],
)
def test_the_name_of_an_option_is_text(given, kept):
    assert keep_text("train", given, ["model", "regulariser", "source", "experiment", "trainer"]) == kept


@pytest.mark.parametrize("value", [1e5, True, float("nan")])
def test_a_file_that_has_lost_the_text_is_refused(value):
    with pytest.raises(CompsegError, match=r"data\.held_out: .* was read as (float|bool); quote it"):
        check_text(OmegaConf.create({"data": {"held_out": value}}))


def test_every_key_of_text_is_one():
    """Whoever adds a key of text to a schema gets this for nothing."""
    for verb, schema in SCHEMAS.items():
        for field in fields(schema):
            text = ("str", "str | None", "list[str]", "dict[str, str | None]")
            assert is_text(verb, field.name) == (str(field.type) in text)

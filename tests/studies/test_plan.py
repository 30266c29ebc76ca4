"""Entries of a comparison become overrides, names and folders."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from compseg.config.literals import literal, quoted
from compseg.errors import CompsegError
from compseg.studies.plan import composed, plan

PLAIN = {
    "cohorts": ["phantom"],
    "methods": ["compseg"],
    "models": ["unet"],
    "seeds": 1,
    "overrides": None,
    "split": "test",
}


def planned(**entries):
    return plan(OmegaConf.create({**PLAIN, **entries}))


def test_names_choose_options():
    (job,) = planned().jobs({})
    assert job.name == "phantom/unet/compseg/seed_0"
    assert job.contender == ("unet", "compseg")
    assert job.devices == 1
    assert job.overrides == (
        "trainer.devices=1",
        "data=phantom",
        "source@data.source=phantom",
        'data.path="data/phantom.zarr"',
        "model=unet",
        "method=compseg",
        "seed=0",
    )


def test_the_more_particular_override_wins():
    entry = {"method": "mean", "name": "wide mean", "overrides": {"model.width": 3}}
    entry["name"] = "wide_mean"
    (job,) = planned(
        cohorts={"mine": {"path": "a b.zarr", "overrides": ["data.batch_size=2", "trainer.max_epochs=5"]}},
        methods=[entry],
        models=[{"model": "unet", "overrides": {"model.norm": "group", "model.width": 2}}],
        overrides={"trainer.max_epochs": 9, "model.width": 1, "trainer.devices": 2},
        seeds=[7],
    ).jobs({})
    assert job.name == "mine/unet/wide_mean/seed_7"
    assert job.overrides[1:6] == (
        "data=cohort",
        'data.path="a b.zarr"',
        "model=unet",
        "method=mean",
        "trainer.max_epochs=9",
    )
    last = {item.partition("=")[0]: item.partition("=")[2] for item in job.overrides}
    assert (last["model.width"], last["model.norm"]) == ("3", "group")
    assert (last["trainer.max_epochs"], last["data.batch_size"], last["seed"]) == ("5", "2", "7")
    assert job.devices == 2


def test_every_combination_is_there_once_seed_by_seed():
    jobs = planned(cohorts=["phantom", "x/y.zarr"], methods=["a", "b"], models=["m", "n"], seeds=3).jobs(
        {"y": ["A1", "A2"]}
    )
    assert len({job.name for job in jobs}) == len(jobs) == (1 + 2) * 2 * 2 * 3
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    left_out = [job for job in jobs if job.held_out == "A2"]
    assert all(job.cohort == "y" and 'data.held_out="A2"' in job.overrides for job in left_out)
    assert all("data.held_out_as=test" in job.overrides for job in left_out)
    assert {job.name for job in left_out} >= {"y/m/a/without_A2/seed_0"}
    assert not any("held_out" in item for job in jobs if job.cohort == "phantom" for item in job.overrides)


def test_group_names_with_slashes_make_no_folders_of_their_own():
    (job,) = planned().jobs({"phantom": ["slide/3"]})
    assert job.name == "phantom/unet/compseg/without_slide_3/seed_0"
    assert 'data.held_out="slide/3"' in job.overrides


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"seeds": 0}, "seeds=0: expected how many"),
        ({"seeds": ["a"]}, "seeds="),
        ({"seeds": [0, 1, 0]}, "seeds=[0, 1, 0]: a seed is there twice"),
        ({"methods": ["a", "a"]}, "methods: a is there twice"),
        ({"methods": ["a", "A"]}, "methods: A is there twice"),
        ({"methods": [{"method": "a", "name": "x" * 300}]}, "becomes a folder"),
        ({"methods": []}, "methods: nothing to compare"),
        ({"methods": [{"name": "a"}]}, "methods: {'name': 'a'}: which method"),
        (
            {"methods": [{"method": "a", "overides": {}}]},
            "methods: overides: no such key of an entry; keys: method, name",
        ),
        ({"methods": [3]}, "methods: 3: expected a name"),
        ({"methods": [{"method": "a", "name": "../a b"}]}, "becomes a folder"),
        ({"models": [{"model": "a", "overrides": "x=1"}]}, "models: overrides: x=1: expected"),
        ({"overrides": ["trainer.max_epochs"]}, "overrides: overrides:"),
        ({"cohorts": {"a": {"name": "b"}}}, "cohorts: {'name': 'b'}: expected the path of a cohort or the name"),
        ({"cohorts": ["x/y.zarr", "z/y.zarr"]}, "cohorts: y is there twice"),
    ],
)
def test_what_is_not_understood_is_refused(entries, words):
    with pytest.raises(CompsegError) as error:
        planned(**entries)
    assert words in str(error.value)


def test_each_choice_is_composed_at_least_once():
    chosen = planned(cohorts=["phantom", "x/y.zarr"], methods=["a", "b"], models=["m", "n"])
    seen = []
    found = composed(chosen, lambda overrides: seen.append(overrides) or OmegaConf.create({}))
    assert set(found) == {
        *(("phantom", model, method) for model in "mn" for method in "ab"),
        ("y", "m", "a"),
    }
    assert len(seen) == 5


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab_1 ,:{}[]'\"=$\\").filter(lambda text: "${" not in text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(values)
def test_any_value_reaches_hydra_unchanged(value):
    parsed = OverridesParser.create().parse_override(f"key={literal(value)}").value()
    assert parsed == value


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc"))).filter(lambda text: "${" not in text))
def test_any_text_reaches_hydra_unchanged(text):
    assert OverridesParser.create().parse_override(f"key={quoted(text)}").value() == text


def test_a_group_cannot_ask_for_the_environment():
    with pytest.raises(CompsegError, match=r"\$\{oc.env:HOME\}: a configuration would replace"):
        planned().jobs({"phantom": ["a", "${oc.env:HOME}"]})


def test_each_left_out_group_has_a_folder_of_its_own():
    groups = ["A 1", "A_1", "a_1", "A/1", "..", "日本"]
    jobs = planned().jobs({"phantom": groups})
    names = [job.name for job in jobs]
    assert len({name.lower() for name in names}) == len(groups)
    assert "phantom/unet/compseg/without_A_1/seed_0" in names
    assert "phantom/unet/compseg/without_日本/seed_0" in names
    assert {name.count("/") for name in names} == {4}
    assert [job.held_out for job in jobs] == groups
    assert names == [job.name for job in planned().jobs({"phantom": groups})]

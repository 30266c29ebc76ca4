"""What cannot be compared is refused before anything is trained."""

import pytest
from omegaconf import OmegaConf

from compseg.config import compose
from compseg.config.hints import explain
from compseg.errors import CompsegError
from compseg.samples import SampleInfo
from compseg.studies.comparison import compare, groups_of, layout_of, refuse_what_needs_truth
from compseg.studies.plan import Layout

PLAIN = {"split": "test", "cv": "none", "metrics": ["pixel_ap"], "upper_bound": "supervised", "baselines": ["all_ones"]}
BCE = {"_target_": "compseg.comparative.PooledLoss", "loss": "bce", "target": "maximum"}
MASKS = {"_target_": "compseg.comparative.SupervisedPixels"}


class Samples:
    """A cohort that knows what it holds; its disease samples have truth in some splits."""

    path = "c.zarr"

    def __init__(self, truth=(), groups=("A", "B", "C")):
        places = zip(("train", "val", "test"), groups, strict=True)
        self.infos = [SampleInfo(f"{split}{i}", i, split=split, group=group) for split, group in places for i in (0, 1)]
        self.truth = truth

    def split(self, which):
        return [info for info in self.infos if info.split == which]

    def has_truth(self, name):
        return name.startswith(tuple(self.truth)) if self.truth else False


def layout(**more):
    return layout_of(OmegaConf.create({**PLAIN, **more}))


def test_the_first_metric_ranks():
    assert layout() == Layout("test", ("pixel_ap",), "supervised", ("all_ones",))
    assert layout(metrics=["dice_mean", "pixel_ap"]).rank_by == "test/dice_mean"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"split": "train"}, "split=train: expected val or test"),
        ({"cv": "patients"}, "cv=patients: expected none, group or patient"),
        ({"metrics": ["pixel_app"]}, "metrics: pixel_app: no such metric; metrics: area_auc"),
        ({"metrics": []}, "the first ranks, with split=test one of"),
        ({"metrics": ["dice_mean"], "split": "val"}, "with split=val one of area_auc, pixel_ap, dice_best"),
    ],
)
def test_settings_are_checked(more, words):
    with pytest.raises(CompsegError) as error:
        layout(**more)
    assert words in str(error.value)


def test_groups_are_those_that_may_be_left_out():
    assert groups_of({"c": Samples()}, "test") == {"c": ["A", "B", "C"]}
    assert groups_of({"c": Samples()}, "val") == {"c": ["A", "B"]}
    with pytest.raises(CompsegError, match=r"cv=group: c .*at least 2 groups .* found none"):
        groups_of({"c": Samples(groups=("", "", ""))}, "test")
    with pytest.raises(CompsegError, match="found A"):
        groups_of({"c": Samples(groups=("A", "A", "B"))}, "val")


def configs(objective, pseudo_labels=None, method="m"):
    return {
        ("c", "unet", method): OmegaConf.create(
            {
                "objective": objective,
                "regularisers": {},
                "pseudo_labels": pseudo_labels,
                "method": {"name": method, "learns_from": "masks" if objective is MASKS else "labels"},
            }
        )
    }


@pytest.mark.parametrize(
    ("truth", "metric", "split", "objective", "words"),
    [
        ((), "pixel_ap", "test", BCE, "metrics: pixel_ap ranks and needs truth, c .* none in split test"),
        (("test",), "dice_best", "val", BCE, "none in split val"),
        (("test", "val"), "area_auc", "test", MASKS, "methods: m learns from truth, c .* none in split train"),
    ],
)
def test_a_cohort_without_the_truth_that_is_needed_is_refused(truth, metric, split, objective, words):
    with pytest.raises(CompsegError, match=words):
        refuse_what_needs_truth(Layout(split, (metric,), "", ()), configs(objective), {"c": Samples(truth)})


@pytest.mark.parametrize(
    ("truth", "metric", "objective"),
    [((), "area_auc", BCE), (("test",), "pixel_ap", BCE), (("train", "test"), "pixel_ap", MASKS)],
)
def test_what_needs_no_more_than_there_is_may_run(truth, metric, objective):
    refuse_what_needs_truth(Layout("test", (metric,), "", ()), configs(objective), {"c": Samples(truth)})


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["methods=[compsg]"], "method=compsg: no such option; did you mean 'compseg'?"),
        (["models=[unett]"], "model=unett: no such option; did you mean 'unet'?"),
        (["cohorts=phantm"], "source=phantm: no such option; did you mean 'phantom'?"),
        (["cohorts=nowhere/c.zarr"], "nowhere/c.zarr: no such cohort"),
        (["overrides={trainer.max_epocs: 3}"], "trainer.max_epocs: no such key; did you mean 'max_epochs'?"),
        (["methods=[{method: mean, overrides: {model.depht: 2}}]"], "model.depht: no such key; did you mean 'depth'?"),
    ],
)
def test_a_problem_is_one_line_before_anything_runs(tmp_path, given, line):
    cfg = compose("compare", ["methods=[mean]", f"out={tmp_path / 'out'}", *given])
    with pytest.raises(Exception) as error:  # noqa: PT011 (any error that a verb puts into one line)
        compare(cfg)
    assert explain(error.value).startswith(line)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    with pytest.raises(CompsegError, match="taken: cannot be written to; check the permissions, or give another out="):
        compare(compose("compare", ["out=taken/out"]))
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path / "read_only")
    (tmp_path / "read_only").mkdir()
    with pytest.raises(CompsegError, match="read_only: cannot be written to"):
        compare(compose("compare", [f"out={tmp_path}/read_only/below/out"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["read_only", "taken"]

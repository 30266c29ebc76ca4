"""What a user may search over; a search that is killed and continued has as many trials in the end as it should."""

import math
import sys
from collections import Counter

import optuna
import pytest
from omegaconf import OmegaConf

from compseg.errors import CompsegError
from compseg.studies.search import Space, SweepStudy, load_study, open_study, trial_of_job

ARGUMENTS = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "model=unet,segnet", "seed=1"]


@pytest.fixture
def settings(tmp_path):
    return OmegaConf.create(
        {
            "storage": f"sqlite:///{tmp_path}/sweep/study.db",
            "study_name": "compseg",
            "pruner": {"_target_": "optuna.pruners.NopPruner"},
        }
    )


@pytest.fixture
def begin(settings, tmp_path):
    """Opens the study as a new process would."""

    def open_again(arguments=ARGUMENTS, rank_by="val/loss", seed=0, sweep="sweep", study_name="compseg"):
        settings.study_name = study_name
        sampler = optuna.samplers.TPESampler(seed=seed + len(open_study(settings, rank_by).trials))
        return SweepStudy(open_study(settings, rank_by, sampler), Space(arguments), tmp_path / sweep, arguments)

    return open_again


def states(study):
    return Counter(trial.state.name for trial in study.study.trials)


def test_twelve_trials_interrupted_twice_are_twelve(begin):
    first = begin()
    jobs = first.jobs(12)
    begun = dict(next(jobs) for _ in range(5))
    for number in (0, 1, 3):
        first.tell(number, "finished", float(number))
    assert states(first) == {"COMPLETE": 3, "RUNNING": 2}  # and here it is killed

    second = begin()
    jobs = second.jobs(12)
    again = dict(next(jobs) for _ in range(3))
    assert [again[2], again[4]] == [begun[2], begun[4]]
    assert set(again) == {2, 4, 5}
    second.tell(2, "finished", 2.0)

    third = begin()
    rest = {}
    for number, overrides in third.jobs(12):
        rest[number] = overrides
        third.tell(number, "finished", float(number))
    assert list(rest) == [4, 5, *range(6, 12)]
    assert states(third) == {"COMPLETE": 12}
    assert list(begin().jobs(12)) == []
    assert len(list(zip(begin().jobs(14), range(1)))) == 1  # noqa: B905 (more are asked for: there are more)


def test_a_search_that_is_taken_up_does_not_repeat_its_first_trials(begin):
    seen = set()
    for _ in range(3):
        study = begin()
        jobs = study.jobs(9)
        for _ in range(3):
            number, overrides = next(jobs)
            seen.add(overrides[0])
            study.tell(number, "finished", 1.0)
    assert len(seen) == 9


def test_a_failed_job_is_a_failed_trial_and_is_run_again_in_its_folder_another_time(begin):
    first = begin()
    numbers = {}
    for number, overrides in first.jobs(3):
        numbers[number] = overrides
        first.tell(number, "failed" if number == 1 else "finished", math.nan if number == 1 else 0.5)
    assert list(numbers) == [0, 1, 2]  # the sweep goes on, and does not try again by itself
    assert states(first) == {"COMPLETE": 2, "FAIL": 1}

    second = begin()
    ((number, overrides),) = second.jobs(3)
    assert (number, overrides) == (1, numbers[1])
    second.tell(number, "finished", 0.25)
    assert states(second) == {"COMPLETE": 3, "FAIL": 1}
    assert second.study.best_value == 0.25
    assert list(begin().jobs(3)) == []


def test_pruned_jobs_count_and_stopped_ones_are_taken_up(begin):
    first = begin()
    for number, _ in first.jobs(3):
        first.tell(number, ("pruned", "unfinished", "finished")[number], (math.nan, math.nan, 1.0)[number])
    assert states(first) == {"PRUNED": 1, "RUNNING": 1, "COMPLETE": 1}
    second = begin()
    assert [number for number, _ in second.jobs(3)] == [1]


def test_two_machines_share_a_study(begin):
    here, there = begin(), begin(sweep="another")
    ours, theirs = here.jobs(4), there.jobs(4)
    numbers = [next(ours)[0], next(theirs)[0], next(ours)[0], next(theirs)[0]]
    assert numbers == [0, 1, 2, 3]
    assert list(ours) == list(theirs) == []
    assert [number for number, _ in begin().jobs(4)] == [0, 2]


def test_a_trial_that_never_became_a_job_does_not_count(begin):
    study = begin()
    study.study.ask()  # and killed
    assert len(list(study.jobs(2))) == 2


def test_other_values_are_refused(begin):
    begin()
    with pytest.raises(CompsegError, match=r"begun with other values \(seed=1 seed=2\).*hydra\.sweep\.dir"):
        begin([*ARGUMENTS[:-1], "seed=2"])


def test_the_direction_is_that_of_the_metric(begin):
    assert begin().study.direction.name == "MINIMIZE"
    assert begin(rank_by="val/area_auc", study_name="another").study.direction.name == "MAXIMIZE"
    for metric in ("val/area_auc", "test/loss"):
        with pytest.raises(CompsegError, match=f"rank_by={metric}: the study compseg goes by another metric"):
            begin(rank_by=metric)


def test_a_database_that_cannot_be_opened(settings):
    settings.storage = "sqlite:////proc/none/study.db"
    with pytest.raises(CompsegError, match=r"storage=sqlite:////proc/none/study\.db: cannot be opened"):
        open_study(settings, "val/loss")
    settings.storage = "nosuch://server/base"
    with pytest.raises(CompsegError, match=r"cannot be opened"):
        open_study(settings, "val/loss")


def test_a_job_finds_its_trial_as_long_as_it_is_awaited(begin, settings, tmp_path):
    study = begin()
    jobs = study.jobs(2)
    next(jobs), next(jobs)
    loaded = load_study(settings)
    assert trial_of_job(loaded, tmp_path / "sweep", 1).number == 1
    assert trial_of_job(loaded, tmp_path / "elsewhere", 1) is None
    study.tell(1, "finished", 0.5)
    assert trial_of_job(loaded, tmp_path / "sweep", 1) is None


def test_without_optuna(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CompsegError, match=r"optuna is not installed; pip install 'compseg\[sweep\]'"):
        open_study(settings, "val/loss")


def suggested(*arguments, trials=25):
    """Trials of a random search: their overrides, and the distributions that were asked for."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space, overrides = Space(arguments), []
    for _ in range(trials):
        trial = study.ask()
        overrides.append(space.suggest(trial))
    return overrides, trial.distributions


def values(overrides):
    return [line[0].split("=", 1)[1] for line in overrides]


def test_a_choice_of_names_and_what_is_fixed():
    overrides, _ = suggested("model=unet,segnet", "data.path='a b.zarr'", "+experiment=paper")
    assert {line[0] for line in overrides} == {"model=unet", "model=segnet"}
    assert all(line[1:] == ["data.path='a b.zarr'", "+experiment=paper"] for line in overrides)


def test_numbers_with_a_point_are_drawn_from_their_interval():
    overrides, _ = suggested("head.alpha=interval(0.01,0.5)")
    numbers = [float(value) for value in values(overrides)]
    assert all(0.01 <= number <= 0.5 for number in numbers)
    assert max(numbers) > 0.3
    assert len(set(numbers)) == len(numbers)


def test_a_logarithmic_interval():
    overrides, found = suggested("optimizer.lr=tag(log,interval(1e-5,1e-1))", trials=200)
    numbers = [float(value) for value in values(overrides)]
    assert 0.35 < sum(number < 1e-3 for number in numbers) / 200 < 0.65  # half of the decades
    assert found["optimizer.lr"] != suggested("optimizer.lr=interval(1e-5,1e-1)", trials=1)[1]["optimizer.lr"]


def test_whole_numbers_stay_whole():
    overrides, _ = suggested("model.width=int(interval(8,16))", trials=80)
    assert {int(value) for value in values(overrides)} == set(range(8, 17))


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [("range(2,9,3)", {"2", "5", "8"}), ("range(3)", {"0", "1", "2"}), ("range(9,2,-3)", {"9", "6", "3"})],
)
def test_a_range_of_whole_numbers_ends_where_hydra_ends_it(sweep, expected):
    assert set(values(suggested(f"seed={sweep}")[0])) == expected


def test_choices_of_numbers_are_as_they_were_written():
    assert set(values(suggested("head.alpha=0.050,1e-1")[0])) == {"0.05", "0.1"}


def test_nothing_to_search():
    with pytest.raises(CompsegError, match=r"nothing to search.*model=unet,segnet"):
        Space(["model=unet", "seed=1"])

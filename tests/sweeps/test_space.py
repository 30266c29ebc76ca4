"""What a user may search over, and what Optuna makes of it."""

import optuna
import pytest

from compseg.errors import CompsegError
from compseg.sweeps.space import Space


def drawn(*arguments, trials=25):
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
    overrides, _ = drawn("model=unet,segnet", "data.path='a b.zarr'", "+experiment=paper")
    assert {line[0] for line in overrides} == {"model=unet", "model=segnet"}
    assert all(line[1:] == ["data.path='a b.zarr'", "+experiment=paper"] for line in overrides)


def test_numbers_with_a_point_are_drawn_from_their_interval():
    overrides, _ = drawn("head.alpha=interval(0.01,0.5)")
    numbers = [float(value) for value in values(overrides)]
    assert all(0.01 <= number <= 0.5 for number in numbers)
    assert max(numbers) > 0.3
    assert len(set(numbers)) == len(numbers)


def test_a_logarithmic_interval():
    overrides, found = drawn("optimizer.lr=tag(log,interval(1e-5,1e-1))", trials=200)
    numbers = [float(value) for value in values(overrides)]
    assert 0.35 < sum(number < 1e-3 for number in numbers) / 200 < 0.65  # half of the decades
    assert found["optimizer.lr"] != drawn("optimizer.lr=interval(1e-5,1e-1)", trials=1)[1]["optimizer.lr"]


def test_whole_numbers_stay_whole():
    overrides, _ = drawn("model.width=int(interval(8,16))", trials=80)
    assert {int(value) for value in values(overrides)} == set(range(8, 17))


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [("range(2,9,3)", {"2", "5", "8"}), ("range(3)", {"0", "1", "2"}), ("range(9,2,-3)", {"9", "6", "3"})],
)
def test_a_range_of_whole_numbers_ends_where_hydra_ends_it(sweep, expected):
    assert set(values(drawn(f"seed={sweep}")[0])) == expected


def test_choices_of_numbers_are_as_they_were_written():
    assert set(values(drawn("head.alpha=0.050,1e-1")[0])) == {"0.05", "0.1"}


def test_nothing_to_search():
    with pytest.raises(CompsegError, match=r"nothing to search.*model=unet,segnet"):
        Space(["model=unet", "seed=1"])

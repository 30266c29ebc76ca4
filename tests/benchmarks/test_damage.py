"""Damage and kills at random: a few here, and with `benchmarks/fuzz.py` and `kills.py` as many as one has time for."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest
from fuzz import Case

from running import HANGS, environment

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def case(outcome, group):
    return Case(group, "a.npy flip", outcome, "", names_file=True)


def test_every_file_is_changed_and_the_same_way_each_time(tmp_path):
    contents = {
        "a.npy": bytes(range(200)),
        "a.csv": b"sample,label\na,1\n",
        "a.json": json.dumps({"a": [1, 2]}).encode(),
    }
    for name, content in contents.items():
        for number in range(60):
            twice = []
            for _ in range(2):
                (tmp_path / name).write_bytes(content)
                kind = fuzz.mutate(tmp_path / name, random.Random(number))
                twice.append((kind, (tmp_path / name).read_bytes()))
            assert twice[0] == twice[1]
            assert twice[0][1] != content


def test_what_is_wrong_and_the_table():
    cases = [
        case("line", "npy"),
        case("other", "npy"),
        case("other", "weights"),
        case("hang", "npy"),
        case("same", "npy"),
    ]
    assert fuzz.wrong(cases) == [cases[2], cases[3]]
    rows = fuzz.table(cases).splitlines()
    assert rows[2] == "| npy | 4 | 1 (25%) | 1 (25%) | 1 (25%) |  | 1 (25%) |  | 1 of 1 |"
    assert rows[3].startswith("| weights (checked) | 1 |")
    assert rows[4].startswith("| all | 5 |")


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("arguments", [("fuzz.py", "--count=200"), ("kills.py", "--count=8")], ids=["damage", "kills"])
def test_nothing_wrong_comes_of_it(arguments):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / arguments[0], *arguments[1:], "--seed=1"],
        capture_output=True, text=True, env=environment(), check=False, timeout=4 * HANGS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

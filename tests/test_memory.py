"""Memory is used again, and never while someone holds any of it."""

import pickle
import platform
import subprocess
import sys

import numpy as np
import pytest

from compseg.memory import ReusableBuffer

HOLDERS = {
    "the array": lambda lent: lent,
    "a part": lambda lent: lent[1:],
    "a part of a part": lambda lent: lent[1:].T[:2],
    "another shape": lambda lent: lent.reshape(-1),
    "a view as bytes": lambda lent: lent.view("u1"),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_held_is_left_alone(holder):
    room = ReusableBuffer("f4")
    lent = room.lend((3, 4))
    lent[:] = 1
    place, held = lent.ctypes.data, HOLDERS[holder](lent)
    content = held.copy()
    del lent
    other = room.lend((3, 4))
    other[:] = 2
    np.testing.assert_array_equal(held, content)
    del held, other
    assert room.lend((3, 4)).ctypes.data != place  # the memory of the one before is the other's


def test_memory_is_used_again_by_what_fits():
    room = ReusableBuffer("f2")
    places = [room.lend(shape).ctypes.data for shape in ((3, 4), (12,), (2, 2, 2), (3, 4))]
    assert len(set(places)) == 1
    assert room.lend((50, 50)).shape == (50, 50)
    assert room.lend((2,)).dtype == np.float16


def test_what_lies_there_can_be_looked_at_without_holding_it():
    room = ReusableBuffer("f4")
    room.lend((2, 3))[:] = 7
    content = room.content((2, 3))
    assert (content == 7).all()
    room.lend((2, 3))[:] = 8
    assert (content == 8).all()


def test_a_copy_elsewhere_is_empty():
    room = pickle.loads(pickle.dumps(ReusableBuffer("f2")))
    assert room.lend((2, 2)).dtype == np.float16


STEPS = """
import resource, torch
from compseg.memory import keep_freed
{}
net = torch.nn.Sequential(torch.nn.Conv2d(2, 16, 3), torch.nn.Softplus(), torch.nn.Conv2d(16, 1, 3))
faults = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    net(torch.ones(1, 2, 800, 800)).mean().backward()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is asked of glibc alone")
@pytest.mark.parametrize(("asked", "fewest", "most"), [("", 10_000, 1e9), ("keep_freed()", 0, 1_000)])
def test_steps_use_the_memory_of_those_before_where_that_is_asked_for(asked, fewest, most):
    """A result of the first convolution has 10,000 pages; a step may find no whole place for one, not all of them."""
    command = [sys.executable, "-c", STEPS.format(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert fewest <= int(done.stdout) <= most

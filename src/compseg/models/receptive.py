"""How far a pixel of the map looks: exact, by walking the network backwards."""

from __future__ import annotations

from collections.abc import Sequence

CONV, POOL, UNPOOL, BILINEAR = "3x3", "down 2", "up 2", "bilinear 2"


def receptive_field(steps: Sequence[str]) -> int:
    """Side in pixels of the square of the input that one output pixel can depend on, at the pixel where it is largest.

    Args:
        steps: The longest path from input to output, of `CONV` (3x3), `POOL` (2x2, stride 2), `UNPOOL` (2x2, stride 2)
            and `BILINEAR` (doubling). Norms do not count: group and instance norm add the image's mean and variance.
    """
    period = 2 ** sum(step == POOL for step in steps)
    return max(_span(steps, pixel) for pixel in range(period))


def _span(steps: Sequence[str], pixel: int) -> int:
    low = high = pixel
    for step in reversed(steps):
        low, high = _before(step, low, high)
    return high - low + 1


def _before(step: str, low: int, high: int) -> tuple[int, int]:
    """The input range of one step whose output range is `low..high`."""
    match step:
        case "3x3":
            return low - 1, high + 1
        case "down 2":
            return 2 * low, 2 * high + 1
        case "up 2":
            return low // 2, high // 2
        case _:
            return (low - 1) // 2, (high + 1) // 2

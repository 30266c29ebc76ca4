"""How far a pixel of the map looks: exact, by walking the network backwards."""

from __future__ import annotations

from collections.abc import Sequence

CONV, POOL, UNPOOL, BILINEAR = "3x3", "down 2", "up 2", "bilinear 2"


def receptive_field(layers: Sequence[str]) -> int:
    """Side in pixels of the square of the input that one output pixel can depend on, at the pixel where it is largest.

    Args:
        layers: The longest path from input to output, of `CONV` (3x3), `POOL` (2x2, stride 2), `UNPOOL` (2x2, stride 2)
            and `BILINEAR` (doubling). Norms do not count: group and instance norm add the image's mean and variance.
    """
    seen = [_seen(layers, pixel) for pixel in range(stride(layers))]
    return max(high - low + 1 for low, high in seen)


def radius(layers: Sequence[str]) -> int:
    """Pixels from an output pixel to the furthest input pixel that it can depend on, to any side.

    A tile that begins on the `stride` and is read with this margin gives the whole image's values in its middle.
    """
    return max(
        max(pixel - low, high - pixel) for pixel in range(stride(layers)) for low, high in [_seen(layers, pixel)]
    )


def stride(layers: Sequence[str]) -> int:
    """Pixels after which the network repeats itself: 2 to the number of halvings."""
    return int(2 ** sum(step == POOL for step in layers))


def before(layers: Sequence[str], pixels: slice) -> slice:
    """The pixels before some steps that those after them can depend on; they may reach beyond the image."""
    low, high = pixels.start, pixels.stop - 1
    for step in reversed(layers):
        low, high = _before(step, low, high)
    return slice(low, high + 1)


def _seen(layers: Sequence[str], pixel: int) -> tuple[int, int]:
    """First and last input pixel that an output pixel can depend on."""
    seen = before(layers, slice(pixel, pixel + 1))
    return seen.start, seen.stop - 1


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

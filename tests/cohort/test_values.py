"""What the values of images and masks must be for a cohort to keep what they say."""

from dataclasses import replace

import numpy as np
import pytest
from memory_source import MemorySource

from compseg.cohort import prepare
from compseg.errors import CompsegError


def of_image(make):
    """A source whose second sample has another image, of the same random numbers of spread 1."""
    changed = lambda info, a: replace(a, image=make(a.image.astype(float))) if info.label else a  # noqa: E731
    return MemorySource(4, (20, 24, 8), change=changed)


def jitter(image):
    """Channels that were divided by one of them: that one is 1 but for rounding."""
    image = np.abs(image) + 1
    return np.concatenate([image[..., :1] / image[..., :1] + 1e-7 * image[..., :1], image[..., 1:]], axis=2)


KEPT = {
    "absorbance": ("float16", lambda x: 0.5 + 0.1 * x),
    "counts": ("float16", lambda x: np.clip(2000 + 500 * x, 0, None).round().astype(np.uint16)),
    "transmittance": ("float16", lambda x: 0.98 + 0.005 * x),
    "small units": ("float16", lambda x: 1e-3 * x),
    "constant": ("float16", lambda x: x * 0 + 0.1),
    "constant, large": ("float32", lambda x: x * 0 + 12345.678),
    "one constant channel": ("float16", jitter),
    "pedestal": ("float32", lambda x: (30000 + 20 * x).round()),
    "large offset": ("float32", lambda x: 1e4 + 0.1 * x),
    "large": ("float32", lambda x: 1e12 * x),
}
REFUSED = {
    "1e4 +- .1": (
        "float16",
        lambda x: 1e4 + 0.1 * x,
        r"values near 9999.* vary by 0\.0.*float16 .*; give dtype=float32",
    ),
    "1e4 +- .001": ("float32", lambda x: 1e4 + 0.001 * x, "float32 rounds away .*; subtract the offset"),
    "1e4 +- .001, half": ("float16", lambda x: 1e4 + 0.001 * x, "float16 rounds away .*; subtract the offset"),
    "counts on a pedestal": (
        "float16",
        lambda x: (30000 + 20 * x).round().astype(np.uint16),
        "s01 .* float16 rounds away up to .*; give dtype=float32",
    ),
    "5e-8": ("float16", lambda x: 5e-8 * x, "its values vary by .*, expected 1e-05; scale all images"),
    "5e-8, float32": ("float32", lambda x: 5e-8 * x, "expected 1e-05; scale all images"),
    "1e30": ("float32", lambda x: 1e30 * x, r"is beyond float32 \(at most 1e\+15\); scale the values"),
    "-1e30": ("float32", lambda x: -1e30 - x, "beyond float32"),
    "1e30, half": ("float16", lambda x: 1e30 * x, r"beyond float16 \(at most 65504\); give dtype=float32, or scale"),
    "two of eight channels": (
        "float16",
        lambda x: np.concatenate([x[..., :6], 1e4 + 0.1 * x[..., 6:]], axis=2),
        "in a channel values near 9999.* vary by .*; give dtype=float32",
    ),
}


@pytest.mark.parametrize(("dtype", "make"), KEPT.values(), ids=KEPT)
def test_what_keeps_its_signal(tmp_path, dtype, make):
    prepare(of_image(make), tmp_path / "c", dtype=dtype, progress=False)


@pytest.mark.parametrize(("dtype", "make", "words"), REFUSED.values(), ids=REFUSED)
def test_what_would_lose_its_signal_is_refused(tmp_path, dtype, make, words):
    with pytest.raises(CompsegError, match=words) as raised:
        prepare(of_image(make), tmp_path / "c", dtype=dtype, progress=False)
    assert "sample s01 (s01.npy): " in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "c").exists()


def inverted(info, arrays):
    """Tissue in one half, truth in most of the other."""
    left = np.arange(arrays.tissue.shape[1]) < 12
    tissue = arrays.tissue & left
    return replace(arrays, tissue=tissue, truth=(~left | (arrays.tissue & (np.arange(24) < 2))) & bool(info.label))


ODD = {
    "covers the tissue": (
        lambda info, a: replace(a, truth=a.tissue & bool(info.label)),
        "truth covers all of the tissue (3 samples: s01, s03, s05)",
    ),
    "healthy": (
        lambda info, a: replace(a, truth=a.truth | (a.tissue & (info.name == "s02"))),
        "healthy, but its truth marks disease; correct its label or its truth (1 samples: s02)",
    ),
    "inverted": (inverted, "most of the truth is not on tissue; is it inverted? (3 samples: s01, s03, s05)"),
    "types": (
        lambda info, a: replace(a, image=(a.image * 20 + 99).astype(np.uint8)) if info.name == "s04" else a,
        "values of type uint8, others not; are all on one scale? (1 samples: s04)",
    ),
    "said by the source": (
        lambda info, a: replace(a, remarks=("truth: 255 is taken for disease",) if info.label else ()),
        "truth: 255 is taken for disease (3 samples: s01, s03, s05)",
    ),
}


@pytest.mark.parametrize(("change", "words"), ODD.values(), ids=ODD)
def test_what_is_odd_is_said_once(tmp_path, capfd, change, words):
    prepare(MemorySource(change=change), tmp_path / "c")
    assert capfd.readouterr().err.count(f"c: {words}") == 1


def test_what_is_not_odd_is_not_said(tmp_path, capfd):
    prepare(MemorySource(), tmp_path / "c")
    assert "c: " not in capfd.readouterr().err

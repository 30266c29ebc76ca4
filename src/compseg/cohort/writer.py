"""From a source to a cohort: one sample in memory at a time, and all or nothing at the end."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import track

from compseg.cohort.layout import (
    ATTRIBUTE,
    DTYPES,
    SAMPLES,
    SCHEMA,
    THUMBNAIL,
    VALUES,
    Array,
    Record,
    node,
    partial_path,
    write_array,
)
from compseg.cohort.locations import is_url
from compseg.cohort.problems import Contents, problems_in, summary_of
from compseg.cohort.splits import DEFAULT_SPLITS, assign_splits
from compseg.cohort.store import Cohort, read_attributes
from compseg.errors import CompsegError
from compseg.file_names import file_name, printable, same_file
from compseg.inputs import merged, seen_values
from compseg.log import console
from compseg.preprocessing.tissue import has_own_tissue, resolve_rule, tissue_mask, tissue_of
from compseg.samples import Channels, SampleArrays, SampleInfo, Source

Header = dict[str, Any]

# Variances are of the squares of values, which float32 has from 1e-38 to 3e38; and preprocessing takes a channel for
# constant that varies by less than 1e-6.
SMALLEST, LARGEST = 1e-5, 1e15
ROUNDING = 0.05  # of the spread: spectra of absorbance stay below .01, counts on a pedestal of a hundred spreads above
OF_TYPE = "values of type"
SEEN = 4096  # pixels of a sample that are enough to know the spread


def prepare(
    source: Source,
    path: str | Path,
    *,
    splits: Mapping[str, float] = DEFAULT_SPLITS,
    tissue: str = "auto",
    dtype: str = "float16",
    chunk: int = 64,
    pixel_size: float | None = None,
    pixel_unit: str = "um",
    progress: bool = True,
    overwrite: bool = False,
) -> Cohort:
    """Write a source's samples as a cohort.

    The cohort is built in `PATH.partial` and renamed when it is complete. After an interruption, finished samples are
    kept if source and settings are still the same. If the cohort exists already and was made the same way, nothing is
    done, so all processes of a distributed run may call this: one works, the others wait.

    float16 keeps values between 6.1e-5 and 65504 to within 2**-11 of themselves (smaller ones to within 3e-8), and
    whole numbers up to 2048, thus 8-bit pictures, exactly.

    Args:
        source: Where the samples come from.
        path: The cohort to write.
        splits: Fractions `train`, `val`, `test` and `seed` for samples without a split; see `assign_splits`.
        tissue: Rule for samples without a tissue mask: `auto`, `all`, `nonzero` or `otsu`.
        dtype: `float16` or `float32`.
        chunk: Edge of a stored block in pixels.
        pixel_size: Edge of a pixel in `pixel_unit`, if known.
        pixel_unit: Unit of `pixel_size`.
        progress: Whether to show progress on stderr.
        overwrite: Whether to replace an existing cohort.

    Returns:
        The cohort, open.

    Raises:
        CompsegError: A file, a shape or a value is wrong (not finite, beyond the range of `dtype`, or rounded by it to
            less than the sample itself varies by), or there is something else at `path`, or `path` is a URL.
    """
    if is_url(path):
        raise CompsegError(f"{path}: a cohort is built in a folder; give out=data/mine.zarr and upload={path}")
    path = Path(path)
    header = _header(
        source, tissue, dtype=dtype, chunk=chunk, pixel_size=pixel_size, pixel_unit=pixel_unit, splits=dict(splits)
    )
    log = console(quiet=not progress, markup=False, soft_wrap=True)
    # With overwrite=true too: a mistyped out= must not delete a folder of other things.
    if path.exists() and read_attributes(path) is None:
        raise CompsegError(f"{path}: exists and is no cohort, so it is left alone; give another out=")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, log):
        # Looked at inside the lock, so that a rank that waited finds what the other has made.
        if path.exists() and not overwrite:
            _check_same(path, header)
            log.print(f"{path}: exists already, made from the same samples and settings")
        else:
            _build(source, path, header, log)
    return Cohort.open(path)


def _header(source: Source, tissue: str, *, dtype: str, chunk: int, **rest: Any) -> Header:
    """What determines the contents of the cohort, as its attributes will hold it."""
    if dtype not in DTYPES:
        raise CompsegError(f"dtype={dtype}: expected {' or '.join(DTYPES)}")
    if chunk < 1:
        raise CompsegError(f"chunk={chunk}: expected a number of pixels, at least 1")
    channels = source.channels()
    rule = resolve_rule(tissue, channels)
    # Refuses an unknown rule before hours of work, not after.
    tissue_mask(np.ones((1, 1, channels.count)), rule, channels)
    header = {
        "schema": SCHEMA,
        "channels": channels.to_dict(),
        "tissue_rule": rule,
        "dtype": dtype,
        "chunk": chunk,
        **rest,
        "provenance": source.provenance(),
    }
    plain: Header = json.loads(json.dumps(header))  # tuples become lists
    return plain


@contextmanager
def _locked(path: Path, log: Console) -> Iterator[None]:
    """Hold the lock file of the cohort; other ranks wait here while one prepares."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        # First without waiting, because a wait that is not announced looks like a process that hangs.
        lock.acquire(timeout=0)
    except Timeout:
        log.print(f"{path}: another process is preparing it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_same(path: Path, header: Header) -> None:
    """Refuse an existing cohort that was made from other samples or with other settings."""
    made = read_attributes(path) or {}
    differing = [key for key in header if made.get(key) != header[key]]
    if differing:
        raise CompsegError(
            f"{path}: exists, made with other {', '.join(differing)}; give another out=, or overwrite=true"
        )


def _build(source: Source, path: Path, header: Header, log: Console) -> None:
    infos = source.infos()
    _check_names(infos)
    infos = assign_splits(infos, header["splits"])
    partial = partial_path(path)
    root = _open_partial(partial, header, log)
    remarks: dict[str, list[str]] = defaultdict(list)  # and the samples that each is about
    if any(info.patient for info in infos) and (nobody := [info.name for info in infos if not info.patient]):
        remarks["no patient is named, so that a patient may be in two splits"] += nobody
    try:
        written = [
            _finished(root, info) or _write_sample(source, root, partial, info, header, remarks)
            for info in track(infos, f"Preparing {path.name}", console=log, disable=log.quiet)
        ]
    finally:  # an interrupted preparation does not read its finished samples again
        _tell(path, _without_one_type(remarks), log)
    classes = {info.class_name: info.label for info in infos if info.class_name}
    samples = [each.record.to_dict() for each in written]
    values: Any = merged(each.values for each in written)
    own_tissue = any(each.own_tissue for each in written)
    # Only now: a group without `samples` is an unfinished cohort, which no reader opens.
    root.attrs.put(
        {ATTRIBUTE: {**header, "classes": classes, "values": values, "own_tissue": own_tissue, "samples": samples}}
    )
    # No folder can be replaced in one step, so an old cohort is first renamed and deleted at the end.
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    _tell_problems(Cohort.open(path), [each.seen for each in written], log)


def _without_one_type(remarks: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The remarks; those on the type of values only where types differ, since their scales may differ too."""
    types = [remark for remark in remarks if remark.startswith(OF_TYPE)]
    return {remark: names for remark, names in remarks.items() if len(types) > 1 or remark not in types}


def _tell_problems(cohort: Cohort, contents: Sequence[Contents], log: Console) -> None:
    """Say what is wrong with the new cohort, the worst first, while the files that it came from are at hand."""
    found: dict[str, list[str]] = defaultdict(list)
    for problem in sorted(problems_in(cohort, contents), key=lambda problem: not problem.fatal):
        training = "training will refuse this: " if problem.fatal else ""
        found[f"{training}{problem.what}; {problem.fix}"] += [problem.sample] * bool(problem.sample)
    _tell(Path(cohort.path), found, log)


def _tell(path: Path, remarks: Mapping[str, Sequence[str]], log: Console) -> None:
    for remark, names in remarks.items():
        of = f" ({len(names)} samples: {', '.join(names[:3])}{' ...' if names[3:] else ''})" if names else ""
        log.print(printable(f"{path}: {remark}{of}"))  # with words of a manifest, which may be a stranger's


def _check_names(infos: Sequence[SampleInfo]) -> None:
    """Refuse names that cannot be file names, or that some file system does not tell apart."""
    if not infos:
        raise CompsegError("the source has no samples; expected at least one")
    seen: set[str] = set()
    for info in infos:
        if (fitting := file_name(info.name)) != info.name:
            raise CompsegError(f"sample {info.name!r}: no name for a file; rename it, for example {fitting}")
        if (key := same_file(info.name)) in seen:
            raise CompsegError(f"sample {info.name}: its name comes twice; rename one")
        seen.add(key)


def _open_partial(partial: Path, header: Header, log: Console) -> zarr.Group:
    """The group to write to: that of an interrupted preparation with the same header, else a new one."""
    begun = read_attributes(partial)
    if begun is not None and all(begun.get(key) == header[key] for key in header):
        log.print(f"{partial}: continuing where an earlier preparation stopped")
        for left in filter(Path.is_file, partial.rglob("*.partial")):
            left.unlink()  # what Zarr was writing when it was killed
        return zarr.open_group(partial, mode="a", zarr_format=3)
    if partial.exists():
        log.print(f"{partial}: left by a preparation with other samples or settings; starting again")
        shutil.rmtree(partial)
    return zarr.create_group(partial, zarr_format=3, attributes={ATTRIBUTE: header})


class _Written(NamedTuple):
    record: Record
    seen: Contents
    values: tuple[str, float]  # of the file: kind and high, see `inputs.seen_values`
    own_tissue: bool  # see `preprocessing.tissue.has_own_tissue`


def _finished(root: zarr.Group, info: SampleInfo) -> _Written | None:
    """The record of a sample that an earlier preparation finished, and what it holds, if its bytes are unchanged."""
    try:
        group: Any = root[node(info.name)]
        record = Record.from_dict(group.attrs[ATTRIBUTE])
        seen = _contents(info, {part: group[part][...] for part in record.checksums})
        kind, high, own_tissue = group.attrs[VALUES]
    except (KeyError, OSError, ValueError, TypeError, RuntimeError):  # half-written: it is written again
        return None
    return _Written(record, seen, (kind, high), own_tissue) if record == _record(seen) else None


def _contents(info: SampleInfo, parts: Mapping[str, Array]) -> Contents:
    summaries = {part: summary_of([array]) for part, array in parts.items()}
    return Contents(info, parts["image"].shape, summaries, {})


def _record(seen: Contents) -> Record:
    height, width, channels = seen.shape
    checksums = {part: summary.checksum for part, summary in seen.parts.items()}
    return Record(seen.info, (height, width, channels), checksums)


def _write_sample(
    source: Source, root: zarr.Group, partial: Path, info: SampleInfo, header: Header, remarks: dict[str, list[str]]
) -> _Written:
    arrays = source.read(info)
    parts = _parts(info, arrays, header)
    values = seen_values(arrays.image, parts["tissue"])
    own_tissue = has_own_tissue(arrays, header["tissue_rule"], Channels.from_dict(header["channels"]))
    of_type = f"{OF_TYPE} {values[0]}, others not; are all on one scale?"
    for remark in (of_type, *arrays.remarks, *_odd_truth(parts["tissue"], parts.get("truth"))):
        remarks[remark].append(info.name)
    # What an interruption left of this sample may have other shapes.
    shutil.rmtree(partial / SAMPLES / info.name, ignore_errors=True)
    for part, array in parts.items():
        write_array(root, node(info.name, part), array, header["chunk"])
    seen = _contents(info, parts)
    record = _record(seen)
    found: Any = {VALUES: (*values, own_tissue), ATTRIBUTE: record.to_dict()}
    root[node(info.name)].attrs.put(found)  # last: the sample is finished
    return _Written(record, seen, values, own_tissue)


def _parts(info: SampleInfo, arrays: SampleArrays, header: Header) -> dict[str, Array]:
    """The arrays that are stored of a sample, checked."""
    where = f"sample {info.name}" + (f" ({info.origin})" if info.origin else "")
    image, channels = arrays.image, Channels.from_dict(header["channels"])
    _check_image(where, image, channels)
    tissue = tissue_of(arrays, header["tissue_rule"], channels)
    parts: dict[str, Array] = {"image": _converted(where, image, header["dtype"]), "tissue": tissue}
    if arrays.truth is not None:
        parts["truth"] = arrays.truth
    for name, mask in parts.items():
        if name != "image" and (mask.shape != image.shape[:2] or mask.dtype != bool):
            raise CompsegError(
                f"{where}: {name} is {mask.dtype} {mask.shape}, expected bool {image.shape[:2]}; give one of its size"
            )
    _check_spread(where, image, parts["image"], tissue)
    if arrays.thumbnail is not None:
        parts[THUMBNAIL] = arrays.thumbnail
    return parts


def _odd_truth(tissue: Array, truth: Array | None) -> Iterator[str]:
    """What speaks against a truth mask without disproving it; what disproves it is a problem."""
    if truth is None or not truth.any():
        return
    if tissue.any() and truth[tissue].all():
        yield "truth covers all of the tissue"
    if 2 * np.count_nonzero(truth & ~tissue) > np.count_nonzero(truth):
        yield "most of the truth is not on tissue; is it inverted?"


def _check_image(where: str, image: Array, channels: Channels) -> None:
    if image.ndim != 3 or 0 in image.shape or image.shape[2] != channels.count:
        raise CompsegError(
            f"{where}: image is {image.shape}, expected (H, W, {channels.count}); all samples need the same channels"
        )
    if image.dtype.kind == "f" and (bad := int(image.size - np.isfinite(image).sum())):
        raise CompsegError(
            f"{where}: {bad} of {image.size} values are NaN or infinite; "
            "set them to 0 and mask their pixels out of the tissue"
        )


def _converted(where: str, image: Array, dtype: str) -> Array:
    # `float` first, because the negative of an unsigned number wraps around. Unchecked, astype would store inf.
    largest, limit = max(float(image.max()), -float(image.min())), min(float(np.finfo(dtype).max), LARGEST)
    if largest > limit:
        fix = "scale the values" if dtype == "float32" else "give dtype=float32, or scale the values"
        raise CompsegError(f"{where}: value {largest:g} is beyond {dtype} (at most {limit:g}); {fix}")
    return image.astype(dtype, order="C")


def _check_spread(where: str, image: Array, stored: Array, tissue: Array) -> None:
    """Refuse values that vary too little for the computation, or for the stored type.

    In a quarter of the channels that vary at all rounding may not take more than `ROUNDING` of the sample's own spread.
    """
    # On a grid, because the places of all pixels of a large image would need more memory than the image.
    step = max(1, math.isqrt(np.count_nonzero(tissue) // SEEN))
    rows, columns = (place * step for place in np.nonzero(tissue[::step, ::step]))
    given, kept = (array[rows, columns].astype(np.float64) for array in (image, stored))
    varying = np.ptp(given, axis=0) > 0 if len(given) else np.zeros(image.shape[2], bool)
    if not varying.any():
        return
    given, kept = given[:, varying], kept[:, varying]
    spread = given.std(axis=0)
    if spread.max() < SMALLEST:
        raise CompsegError(f"{where}: its values vary by {spread.max():.2g}, expected {SMALLEST:g}; scale all images")

    def lost(rounded: Array) -> Array:
        return np.asarray(np.sqrt(np.square(rounded - given).mean(axis=0)) / spread)

    share = lost(kept)
    if 4 * np.count_nonzero(share > ROUNDING) < len(share):
        return
    enough = stored.dtype == np.float16 and (lost(given.astype(np.float32)) <= ROUNDING).all()
    fix = "give dtype=float32" if enough else "subtract the offset that all pixels share"
    channel = int(share.argmax())
    raise CompsegError(
        f"{where}: in a channel values near {given[:, channel].mean():g} vary by {spread[channel]:.2g}, "
        f"and {stored.dtype} rounds away up to {share[channel]:.0%} of that; {fix}"
    )

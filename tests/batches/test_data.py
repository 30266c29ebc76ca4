"""Batches: what is in them, what is read for them, and where they are kept."""

import gc
import tracemalloc
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec

from compseg.batches import BalancedBatches, CohortData
from compseg.batches.datamodule import decoded_size
from compseg.batches.dataset import CohortSplit, Crops, tissue_cells
from compseg.batches.loader import Prefetcher
from compseg.batches.sampler import BatchIndex, BatchIndexSampler
from compseg.cohort import Cohort, prepare
from compseg.errors import CompsegError
from compseg.memory import free_host_memory
from compseg.samples import Channels, SampleArrays, SampleInfo

HOST, META = torch.device("cpu"), torch.device("meta")


class Numbered:
    """Samples of given sizes whose pixels all differ: value = 1000 * sample + its place, exact in float32."""

    def __init__(self, sizes, tissue=None, truth=True):
        self.sizes, self.tissue, self.truth = sizes, tissue, truth

    def infos(self):
        names = ("train", "train", "val", "train", "train", "val")
        return [SampleInfo(f"s{i:02d}", i % 2, split=names[i % 6]) for i in range(len(self.sizes))]

    def read(self, info):
        number = int(info.name[1:])
        height, width = self.sizes[number]
        image = np.arange(height * width * 2, dtype=np.float32).reshape(height, width, 2) + 1e5 * number
        tissue = np.ones((height, width), bool) if self.tissue is None else self.tissue(height, width)
        truth = image[..., 0] % 3 == 0 if self.truth and info.label else None
        return SampleArrays(image, tissue, truth)

    def channels(self):
        return Channels(2, names=("a", "b"))

    def provenance(self):
        return {"source": "numbered", "sizes": [list(size) for size in self.sizes]}


def made(path, sizes, chunk=32, **options):
    return prepare(Numbered(sizes, **options), path, dtype="float32", chunk=chunk, progress=False)


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    return made(tmp_path_factory.mktemp("data") / "alike", [(20, 24)] * 12)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return made(tmp_path_factory.mktemp("data") / "mixed", [(20, 24), (16, 30), (20, 24), (9, 9)] * 3)


@pytest.mark.parametrize("cache", [None, HOST])
@pytest.mark.parametrize("which", ["alike", "mixed"])
def test_a_batch_holds_its_samples(which, cache, request):
    cohort = request.getfixturevalue(which)
    split = CohortSplit(cohort, cohort.infos, with_truth=True, cache=cache)
    for indices in ([3, 0, 5], [7], [4, 4]):
        batch = split[BatchIndex(indices)]
        shapes = [cohort.shape(cohort.infos[index].name) for index in indices]
        height, width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
        assert batch["image"].shape == (len(indices), 2, height, width)
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        assert batch["index"] == indices
        assert batch["label"].tolist() == [index % 2 for index in indices]
        for slot, index in enumerate(indices):
            name = cohort.infos[index].name
            h, w, _ = cohort.shape(name)
            truth = cohort.truth(name)
            for part, expected in (
                ("image", cohort.image(name).transpose(2, 0, 1)),
                ("tissue", cohort.tissue(name)[None]),
                ("truth", np.zeros((1, h, w), bool) if truth is None else truth[None]),
            ):
                np.testing.assert_array_equal(batch[part][slot, :, :h, :w].numpy(), expected)
            assert not batch["tissue"][slot, :, h:].any()
            assert not batch["image"][slot, :, :, w:].any()


def test_batches_do_not_share_memory_with_the_cache(alike):
    split = CohortSplit(alike, alike.infos, cache=HOST)
    split[BatchIndex([1, 2])]["image"].zero_()
    np.testing.assert_array_equal(split[BatchIndex([1])]["image"][0].permute(1, 2, 0).numpy(), alike.image("s01"))


@pytest.mark.parametrize("cache", [None, HOST])
def test_memory_is_taken_again_only_when_nobody_holds_it(alike, cache):
    split = CohortSplit(alike, alike.infos, cache=cache)
    held = split[BatchIndex([0, 1])]
    part, kept = held["image"][1:, :1], held["image"].clone()
    others = [split[BatchIndex([2, 3])]["image"] for _ in range(9)]
    assert len({batch.data_ptr() for batch in (held["image"], *others)}) == 10
    where = held["image"].data_ptr()
    del held, others
    assert split[BatchIndex([2, 3])]["image"].data_ptr() != where  # a view is enough to hold it
    assert torch.equal(part, kept[1:, :1])
    first = split[BatchIndex([2, 3])]["image"].data_ptr()
    assert split[BatchIndex([4, 5])]["image"].data_ptr() == first
    np.testing.assert_array_equal(split[BatchIndex([5])]["image"][0].permute(1, 2, 0).numpy(), alike.image("s05"))


def test_truth_must_be_there_where_it_is_asked_for(tmp_path):
    cohort = made(tmp_path / "c", [(8, 8)] * 2, truth=False)
    split = CohortSplit(cohort, cohort.infos, with_truth=True)
    assert not split[BatchIndex([0])]["truth"].any()
    with pytest.raises(CompsegError, match="s01: method=supervised needs truth"):
        split[BatchIndex([1])]


def counted_reads(cohort, monkeypatch):
    """Names of the arrays as they are read."""
    reads, real = [], Cohort.read_into

    def read_into(self, out, name, part, window=None):
        reads.append((name, part))
        real(self, out, name, part, window)

    monkeypatch.setattr(Cohort, "read_into", read_into)
    return reads


@pytest.mark.parametrize(("cache", "times"), [("none", 3), ("ram", 1)])
def test_a_cached_sample_is_read_once_even_if_set_up_again(alike, monkeypatch, cache, times):
    reads = counted_reads(alike, monkeypatch)
    data = CohortData(str(alike.path), batch_size=4, cache=cache, workers=0)
    data.setup()
    assert len(list(data.training_tissue())) == len(data.train) == 8
    for _ in range(2):
        data.setup("fit")  # as Lightning does once more
        list(data.train_dataloader())
    assert len(reads) == 2 * 8 * times


def test_what_lies_on_a_device_is_handed_out_there(alike):
    """`meta` holds no numbers, but knows shapes and where things are."""
    split = CohortSplit(alike, alike.infos, with_truth=True, cache=META)
    batch = split[BatchIndex([1, 2, 3])]
    assert {batch[part].device for part in ("image", "tissue", "truth", "label")} == {META}
    assert batch["image"].shape == (3, 2, 20, 24)
    assert batch["index"] == [1, 2, 3]


def test_batches_come_one_ahead_in_their_order(alike):
    data = CohortData(str(alike.path), batch_size=4, cache="none", workers=0)
    data.setup()
    log, loader = [], data.train_dataloader()
    loader.collate_fn = lambda batch: log.append(("read", batch["index"])) or batch
    expected = [list(batch.indices) for batch in loader.sampler]
    ahead = Prefetcher(loader, META)
    assert len(ahead) == len(expected) == 2
    for batch in ahead:
        assert batch["image"].device == META
        log.append(("used", batch["index"]))
    first, second = expected
    assert log == [("read", first), ("read", second), ("used", first), ("used", second)]


class Recorder(pl.LightningModule):
    """Learns nothing and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), {}

    def training_step(self, batch, batch_idx):
        self.seen.setdefault(self.current_epoch, []).append(batch["index"])
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_every_epoch_of_a_trainer_is_shuffled_again(alike, cache):
    data, module = CohortData(str(alike.path), batch_size=4, cache=cache, workers=0, seed=5), Recorder()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    pl.Trainer(max_epochs=3, accelerator="cpu", use_distributed_sampler=False, **quiet).fit(module, datamodule=data)
    assert all(before != after for before, after in pairwise(module.seen.values()))
    sampler = BatchIndexSampler(BalancedBatches([info.label for info in data.train.infos], 4, seed=5))
    sampler.set_epoch(2)
    assert module.seen[2] == [list(batch.indices) for batch in sampler]


def test_workers_read_the_same_batches(mixed):
    batches = []
    for workers in (0, 2):
        data = CohortData(str(mixed.path), batch_size=4, cache="none", workers=workers, crop=10)
        data.setup()
        loader = data.train_dataloader()
        loader.sampler.set_epoch(3)
        batches.append([(batch["index"], batch["image"].sum(dtype=torch.float64).item()) for batch in loader])
    assert batches[0] == batches[1]


@pytest.mark.parametrize(
    ("free", "asked", "workers"),
    [(4.1, "auto", 0), (3.9, "auto", 3), (0, "ram", 0), (100, "none", 3), (0, "device", 0)],
)
def test_what_fits_is_cached(alike, monkeypatch, free, asked, workers):
    size = decoded_size(alike, alike.infos)
    assert size == 12 * 20 * 24 * (2 * 4 + 1)
    monkeypatch.setattr("compseg.batches.datamodule.free_memory", lambda _: free * size)
    monkeypatch.setattr("compseg.batches.datamodule.usable_cores", lambda: 3)
    data = CohortData(str(alike.path), cache=asked)
    data.setup()
    assert (data.cached is None) == bool(workers)
    assert data.train_dataloader().num_workers == workers


def test_the_device_comes_first_and_ranks_share_the_host(alike, monkeypatch):
    size, free = decoded_size(alike, alike.infos), {}
    monkeypatch.setattr("compseg.batches.datamodule.free_memory", lambda device: free[device.type] * size)
    chosen = []
    for free in ({"meta": 5, "cpu": 100}, {"meta": 3, "cpu": 9}, {"meta": 3, "cpu": 7}):  # noqa: B007
        data = CohortData(str(alike.path))
        data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=META), num_devices=2)
        chosen.append(data._cache_device(alike.infos))
    assert chosen == [META, HOST, None]


def test_a_wrong_word_for_the_cache(alike):
    with pytest.raises(CompsegError, match=r"data\.cache=disk: expected auto, none, ram, device"):
        CohortData(str(alike.path), cache="disk")


def peak_of(epoch) -> int:
    """Bytes at the peak of an epoch of what is held, and not of cycles that Zarr leaves for Python to collect."""
    gc.collect()
    tracemalloc.start()
    for step, _ in enumerate(epoch):
        if step % 4 == 0:
            gc.collect()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    """What streaming holds is a batch or two, for a cohort and for one eight times as large."""
    peaks = []
    for count in (12, 96):
        cohort = made(tmp_path / str(count), [(64, 64)] * count)
        data = CohortData(str(cohort.path), batch_size=2, cache="none", workers=0)
        data.setup()
        list(data.train_dataloader())  # arrays are open, codecs are loaded
        peaks.append(peak_of(data.train_dataloader()))
    image = 64 * 64 * 2 * 4
    assert peaks[0] > image  # what is read does show up
    assert peaks[1] < peaks[0] + 4 * image


def write_tree(root, **files):
    for path, text in files.items():
        file = root / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_job_may_be_granted_less_than_the_machine_has(tmp_path):
    write_tree(tmp_path, proc__meminfo="MemTotal: 100 kB\nMemAvailable:  90 kB\n")
    assert free_host_memory(tmp_path) == 90 * 1024
    write_tree(tmp_path, proc__self__cgroup="1:name=systemd:/x\n0::/job/step\n")
    group = tmp_path / "sys/fs/cgroup/job"
    write_tree(
        group, **{"memory.max": "50000\n", "memory.current": "30000\n", "memory.stat": "anon 1\ninactive_file 10000\n"}
    )
    write_tree(group, **{"step__memory.max": "max\n"})
    assert free_host_memory(tmp_path) == 30000


# Crops


def corner(height, width):
    """Tissue in the last few pixels alone."""
    mask = np.zeros((height, width), bool)
    mask[-3:, -2:] = True
    return mask


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    return made(tmp_path_factory.mktemp("data") / "mosaic", [(130, 97)] * 6, tissue=corner)


@given(st.integers(2, 140), st.integers(0, 5), st.integers(0, 50), st.integers(0, 3))
def test_a_crop_has_its_size_lies_inside_and_holds_tissue(mosaic, edge, index, epoch, seed):
    crops, name = Crops(edge, seed), f"s{index:02d}"
    window = crops.window(mosaic, name, index, epoch)
    assert crops.window(mosaic, name, index, epoch) == Crops(edge, seed).window(mosaic, name, index, epoch) == window
    if edge >= 130:
        assert window is None
        return
    for axis, length, size in zip(window, (130, 97), crops.size((130, 97, 2)), strict=True):
        assert axis.stop - axis.start == size == min(edge, length)
        assert 0 <= axis.start < axis.stop <= length
    assert mosaic.tissue(name, window).any()


def test_crops_differ_between_epochs_and_stay_in_validation(tmp_path):
    cohort = made(tmp_path / "c", [(90, 90)] * 2)
    crops = Crops(16, seed=1)
    windows = {str(crops.window(cohort, "s00", 0, epoch)) for epoch in range(20)}
    assert len(windows) > 15
    assert crops.window(cohort, "s00", 0, None) == crops.window(cohort, "s00", 0, None)


def test_every_tissue_pixel_is_shown_about_as_often(tmp_path):
    """Tissue on the right half alone: crops stay there, and cover all of it."""
    cohort = made(tmp_path / "c", [(64, 64)] * 2, tissue=lambda h, w: np.tile(np.arange(w) >= w // 2, (h, 1)))
    crops, shown = Crops(16, seed=0), np.zeros((64, 64))
    for epoch in range(600):
        shown[crops.window(cohort, "s00", 0, epoch)] += 1
    inside = shown[8:-8, 40:56]
    assert inside.min() > 0.5 * inside.mean()
    assert shown[:, :17].sum() == 0
    assert shown[:, 32:].all()


@given(st.integers(1, 60))
def test_cells_count_tissue(mosaic, cell):
    counts, mask = tissue_cells(mosaic, "s01", cell), mosaic.tissue("s01")
    assert counts.sum() == mask.sum() == 6
    assert counts.shape == (-(-130 // cell), -(-97 // cell))
    assert counts[129 // cell, 96 // cell] >= 1


def test_a_sample_without_tissue_still_gives_crops(tmp_path):
    cohort = made(tmp_path / "c", [(40, 40)] * 2, tissue=lambda h, w: np.zeros((h, w), bool))
    assert Crops(8, 0).window(cohort, "s00", 0, 0) is not None


def test_an_edge_must_be_a_size(alike):
    with pytest.raises(CompsegError, match=r"data\.crop=1"):
        CohortData(str(alike.path), crop=1)


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_crops_are_cut_out_of_their_samples(mosaic, cache):
    data = CohortData(str(mosaic.path), batch_size=2, cache=cache, workers=0, crop=30, seed=3)
    data.setup()
    loader = data.train_dataloader()
    loader.sampler.set_epoch(7)
    for batch in loader:
        assert batch["image"].shape == (2, 2, 30, 30)
        assert batch["tissue"].any((1, 2, 3)).all()
        for slot, index in enumerate(batch["index"]):
            name = data.train.infos[index].name
            window = Crops(30, 3).window(mosaic, name, index, 7)
            np.testing.assert_array_equal(batch["image"][slot].permute(1, 2, 0).numpy(), mosaic.image(name)[window])
    again = [[batch["image"] for batch in data.val_dataloader()] for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*again, strict=True))


def test_a_crop_reads_its_blocks_alone(tmp_path, monkeypatch):
    """Of a mosaic of 16 x 16 blocks, a crop of two blocks' edge decodes at most 3 x 3 of each array."""
    cohort = made(tmp_path / "c", [(512, 512)] * 6)
    data = CohortData(str(cohort.path), batch_size=2, cache="none", workers=0, crop=64)
    data.setup()
    next(iter(data.train_dataloader()))  # finds out where tissue is
    decoded, real = [], BloscCodec._decode_single

    async def counting(self, chunk, spec):
        decoded.append(len(spec.shape))
        return await real(self, chunk, spec)

    monkeypatch.setattr(BloscCodec, "_decode_single", counting)
    data.train[BatchIndex([0], epoch=1)]
    assert 4 <= decoded.count(3) <= 9
    assert 4 <= decoded.count(2) <= 9
    cohort.image("s00")
    assert decoded.count(3) > 256

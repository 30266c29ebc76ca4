"""Epochs made by hand: maps in, the diagnosis that training would have gathered of them out."""

from __future__ import annotations

import numpy as np
import torch

from compseg.comparative import HeadOutput, SigmaHead
from compseg.monitor.diagnostics import Collector, Diagnosis
from compseg.samples import SampleInfo

SIDE = 12


def infos_of(labels, groups=None):
    groups = groups or [""] * len(labels)
    return [
        SampleInfo(f"s{i}", int(label), group=group)
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


def disc():
    """Tissue `(SIDE, SIDE)`: all but a frame of two pixels."""
    tissue = np.zeros((SIDE, SIDE), bool)
    tissue[2:-2, 2:-2] = True
    return tissue


def output_of(maps, tissue=None) -> HeadOutput:
    """What the paper's head makes of activation maps `(B, H, W)`."""
    a = torch.as_tensor(np.asarray(maps), dtype=torch.float64)[:, None]
    masks = torch.as_tensor(disc() if tissue is None else tissue).expand(a.shape)
    out = SigmaHead()(torch.logit(a).float(), masks)
    return out._replace(activation=a.float())


def epoch_of(maps, labels, groups=None, train_x=None, train_labels=None, tissue=None) -> Diagnosis:
    """The diagnosis of validation maps `(N, H, W)`; training samples have the same x unless they are given another."""
    collector, val = Collector(), infos_of(labels, groups)
    out = output_of(maps, tissue)
    train = val if train_labels is None else infos_of(train_labels)
    x = out.x if train_x is None else torch.as_tensor(train_x, dtype=torch.float64)
    collector.add_training(list(range(len(train))), x)
    collector.add_validation(list(range(len(val))), out, torch.as_tensor(labels).float())
    return collector.finish(train, val, SigmaHead().transfer, lambda sums: sums)


def spots(rng, labels, inside=0.9, rest=0.05, outside=0.0):
    """Maps as they should be: a lit half of the tissue in disease samples, noise on the rest."""
    maps = np.full((len(labels), SIDE, SIDE), outside)
    for a, label in zip(maps, labels, strict=True):
        a[disc()] = rest
        if label:
            a[2:6, 2:-2] = inside
    return np.clip(maps + rng.uniform(0, 0.03, maps.shape), 0, 1)

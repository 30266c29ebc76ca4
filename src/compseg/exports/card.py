"""A model card: what a run was trained on, how, how good it is, and what it is not for, for people who were not there.

Markdown with the fields that model hubs read at its head, after Mitchell et al., Model Cards for Model Reporting (2019,
arXiv:1810.03993).
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from omegaconf import DictConfig

from compseg.cohort import Cohort, is_url
from compseg.errors import CompsegError
from compseg.evaluation.names import METRICS
from compseg.file_names import printable
from compseg.files import atomic_text, read_json
from compseg.inference import Segmenter, load_segmenter
from compseg.monitor.collapse import read_findings
from compseg.run_folder import fingerprint_of, load_config
from compseg.samples import SPLITS

TEMPLATE = """\
---
license: {{ license | yaml }}
library_name: compseg
pipeline_tag: image-segmentation
tags: [weak-supervision, segmentation, compseg]
---

# {{ name | text }}

A segmenter that marks disease regions in {{ channels.count }}-channel images, trained by compseg from
{{ "sample labels alone" if config.method.learns_from == "labels" else "an expert's masks" }}.

```python
import compseg

activation = compseg.load_segmenter("RUN")(cube)  # (H, W, {{ channels.count }}) raw values to (H, W) in [0, 1]
```

{% if threshold %}Above {{ "%.6g" | format(threshold.value) }} a pixel counts as disease: {{ threshold.how | text }}.
{% else %}It has no threshold yet: `compseg.evaluate` fits one.
{% endif %}
## Data

| | |
|---|---|
| cohort | {{ cohort_name | text }} |
| channels | {{ axis | text }} |
| stored as | {{ dtype }}; pixels that count, where no mask is given: {{ tissue_rule }} |
{% for split, row in splits.items() %}| {{ split }} | {{ row.healthy }} healthy and {{ row.disease }} disease samples, \
{{ row.patients or "no" }} named patients{% if row.groups %}, groups: {{ row.groups | text }}{% endif %} |
{% endfor %}{% if not splits %}
The cohort is no longer where it was, so its samples are not counted here.
{% endif %}
## Training

| | |
|---|---|
| method | {{ config.method.name | text }} |
| network | {{ network | text }}, {{ parameters }} parameters |
| corrections | {{ corrections | text }} |
| epochs | {{ config.trainer.max_epochs }}, of which number {{ provenance.epoch }} was kept (from 0) |
| seed | {{ provenance.seed }} |
| compseg | {{ provenance.compseg | text }} |

## Metrics

{% if metrics %}| metric | value | 95 % interval | what it is |
|---|---|---|---|
{% for row in metrics %}| `{{ row.name }}` | {{ row.value }} | {{ row.interval }} | {{ row.meaning }} |
{% endfor %}
Intervals are of a bootstrap over patients, or samples where no patient is named. `test` samples had no part in
training, nor in the threshold.
{% else %}The run was not evaluated.
{% endif %}
## Limits

* It knows the instruments, tissues and preparations of its cohort. Whether it holds on others has to be measured on \
samples of theirs.
* It expects the channels above, in this order, as raw values.
* It was made for research. It is no medical device, and its maps are no diagnosis.
{% if config.method.learns_from == "labels" %}* No outline of a region was shown to it: it marks what tells disease \
samples from healthy ones, which may be something that goes along with disease.
{% endif %}{% if pseudo_labels %}* It compares a pixel with its own sample, so it has to be given whole samples.
{% endif %}{% for warning in warnings %}* While it was trained: {{ warning | text }}
{% endfor %}
## Licence

{{ "Not stated: ask whoever gave you this segmenter." if license == "unknown" else license | text }}
"""


def write_card(run: Path, out: Path, license: str | None = None, trust: tuple[str, ...] = ()) -> list[Path]:
    """Write `README.md`, the model card of a run.

    Args:
        run: A run folder.
        out: Folder, made if absent.
        license: Of the segmenter, as hubs name them, for example `cc-by-4.0`; None: not stated.
        trust: What the segmenter may be built from beyond the known packages.

    Returns:
        The path written.

    Raises:
        CompsegError: The folder holds no run, or no segmenter.
    """
    config, segmenter = load_config(run), load_segmenter(run, trust=trust)
    # Names may be a stranger's: `text` shows them as they are, and nothing of the run is a template.
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters |= {"text": text, "yaml": json.dumps}
    page = environment.from_string(TEMPLATE).render(
        name=run.resolve().name,
        license=license or "unknown",
        config=config,
        cohort_name=str(config.data.path).rstrip("/").rpartition("/")[2],
        splits=_splits(config),
        metrics=_metrics(run),
        warnings=[finding.words for finding in read_findings(run)],
        **_of_segmenter(segmenter),
    )
    atomic_text(out / "README.md", page)
    return [out / "README.md"]


def text(value: object) -> str:
    """Any text as one line of Markdown that shows it as it is."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(printable(str(value)), quote=False))


def _of_segmenter(segmenter: Segmenter) -> dict[str, Any]:
    channels, threshold = segmenter.channels, segmenter.threshold
    axis = f"{channels.count}"
    if channels.spectral:
        axis += f", from {channels.values[0]:g} to {channels.values[-1]:g} {channels.unit}"
    elif channels.names:
        axis += f": {', '.join(channels.names)}"
    return {
        "channels": channels,
        "axis": axis,
        "dtype": segmenter.dtype,
        "tissue_rule": segmenter.tissue_rule,
        "threshold": threshold,
        "network": str(segmenter.model_node.get("_target_")),
        "parameters": f"{sum(value.numel() for value in segmenter.model.parameters()):,}",
        "corrections": ", ".join(type(part).__name__ for part in segmenter.preprocess.corrections) or "none",
        "provenance": {"epoch": "?", "seed": "?", "compseg": "?"} | segmenter.provenance,
        "pseudo_labels": segmenter.pseudo_labels is not None,
    }


def _splits(config: DictConfig) -> dict[str, dict[str, Any]]:
    """What each split holds, if the cohort that the run was trained on is still there."""
    path = str(config.data.path)
    # Not over the network: what a stranger's folder names would be fetched.
    if is_url(path):
        return {}
    try:
        cohort = Cohort.open(path)
    except CompsegError:
        return {}
    if cohort.fingerprint != fingerprint_of(config):
        return {}
    held = cohort.holding_out(config.data.get("held_out"), config.data.get("held_out_as", "test"))
    found = {}
    for split in SPLITS:
        infos = held.split(split)
        labels = Counter(info.label for info in infos)
        found[split] = {
            "healthy": labels[0],
            "disease": labels[1],
            "patients": len({info.patient for info in infos} - {""}),
            "groups": ", ".join(sorted({info.group for info in infos} - {""})),
        }
    return found


def _metrics(run: Path) -> list[dict[str, str]]:
    path = run / "metrics.json"
    values = read_json(path, dict, "run compseg.evaluate again") if path.is_file() else {}
    rows = []
    for name, value in values.items():
        metric = METRICS.get(name.partition("/")[2])
        if metric is not None and name.startswith(("test/", "val/")):
            low, high = values.get(f"{name}_ci_low"), values.get(f"{name}_ci_high")
            interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
            rows.append({"name": name, "value": f"{value:.3f}", "interval": interval, "meaning": metric.description})
    return rows

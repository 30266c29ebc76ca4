"""The project speaks the words of its field: none of its earlier, private ones is left in src, conf, docs or README.

Each row of WORDS is an earlier word, a pattern that finds it, and today's word. Where a match is legitimate, EXCEPTIONS
says where and why; a better sentence is the better choice.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

WORDS = {
    "rooms": (
        r"compseg[./](learning|maps|measures|spectra|comparison|sweeps)\b",
        "training, inference, ...",
    ),
    "figure": (r"\b[Ff]igures?\b(?! S?\d)(?![/\"`.])(?<!`figures)", "metric, number, value; `figures/` holds pictures"),
    "teach": (r"\b(teach\w*|taught|Teacher)\b|FisherTeacher", "pseudo-labels, pseudo_labels, supervises"),
    "otherwise": (r"(?i)\botherwise\b", "fallback; in prose: else, if not"),
    "floor, ceiling": (r"(?i)\b(floors?|ceilings?)\b", "baseline, upper bound"),
    "localiser": (r"(?i)locali[sz]er", "cam"),
    "looks": (r"(?i)\b(further|the|which|several|other|third|of) looks\b|\blooks (of|to take)\b|\blooks? = ", "views"),
    "turned": (
        r"\b[Tt]urned\b|(?<![Ii]n )\bturns?\b|Turns|\bMirror\b|augmentation[=:] ?mirror|moves_only|turn_consistency",
        "rotated, rotation, flip; RandomFlipRotate90, RandomHorizontalFlip, is_geometric",
    ),
    "sight, reach": (
        r"(?i)\bsight\b|\breach(es|ed|ing)?\b",
        "receptive field, radius, neighbourhood",
    ),
    "draw": (r"(?i)\b(re)?draw(s|n|ing)?\b|\bdrew\b", "sample, resample, replicate; a picture is plotted"),
    "Room": (r"\bclass Room\b|\bRoom\(", "BatchIndex, ReusableBuffer, Slots, Workers"),
    "settle": (r"(?i)\bsettl(e|es|ed|ing)\b", "resolve, fit, converge"),
    "starts": (
        r"(?i)\b(two|three|five|several|best|other|wrong|many|all|between|\d+|N) starts\b|\bstarts=|\bstarting\b[=:,)]",
        "n_init, seeds, initialisations; run_dir",
    ),
    "Ahead": (
        r"\bAhead\b|\bFromHere\b|\bclass Watch\b|\b_Peers\b|(?i:\bdeaf\b)",
        "Prefetcher, Watchdog",
    ),
    "SameStatistics": (r"SameStatistics", "SyncBatchNorm..."),
    "say, claim, estimate": (r"(?<![\w.`])(say|claim|estimate)\(", "log, run_lock, eta"),
    "classes": (
        r"\b(Writing|Found|Way|Standing|Place|Entrant)[(\]]",
        "writer, fit, score, rank, contender",
    ),
    "mend": (r"(?i)\bmend(s|ed|ing)?\b", "fix"),
    "complaint": (r"(?i)\bcomplain(s|t|ts|ed|ing)?\b|_complain\b", "problem, error, report"),
    "anew": (r"(?i)\banew\b", "again"),
    "whatever": (r"(?i)\bwhatever\b", "any, regardless of"),
    "fault": (r"(?i)(?<!page )(?<!compseg\.)(?<!compseg/)\bfaults?\b(?!/)", "error, problem"),
}

PLOTS = r"src/compseg/(plots/.+|report/.+|studies/(pictures|interactive|comparison_page)\.py)|docs/.+\.py"
EXCEPTIONS = [  # (word, files, what may be on the line; None: anything)
    ("figure", PLOTS, r"[Ff]igure|figures\."),  # matplotlib's and plotly's class, HTML's element
    ("figure", r"src/compseg/monitor/dashboards\.py", r"\bfigures: Path|figures\.glob"),  # the folder of that name
    ("draw", PLOTS + r"|src/compseg/monitor/previews\.py", None),  # pictures are drawn
    ("floor, ceiling", r"docs/architecture\.md", r"floors below"),  # of the house
    ("fault", r"docs/architecture\.md", r"^faults "),  # the room
    *((word, r"src/compseg/config/hints\.py", None) for word in WORDS),  # the table of renamed keys
    *((word, r"src/compseg/inference/folder\.py", r"^ +\"compseg\.|^MOVED") for word in WORDS),  # formats 1 and 2
    ("teach", r"src/compseg/run_folder\.py", r"teache[rs]"),  # configurations of old runs
]

FILES = sorted(
    path
    for path in [
        *ROOT.glob("*.*"),
        *(path for folder in ("src", "conf", "docs") for path in (ROOT / folder).rglob("*")),
    ]
    if path.suffix in {".py", ".html", ".yaml", ".yml", ".md"} and path.name != "CHANGELOG.md"
)


def excepted(word: str, path: str, line: str) -> bool:
    return any(
        word == of and re.fullmatch(files, path) and (allowed is None or re.search(allowed, line))
        for of, files, allowed in EXCEPTIONS
    )


@pytest.mark.parametrize("word", WORDS)
def test_an_earlier_word_is_gone(word):
    pattern, now = WORDS[word]
    found = [
        f"{name}:{number}: {line.strip()}"
        for path in FILES
        for name in [path.relative_to(ROOT).as_posix()]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line) and not excepted(word, name, line)
    ]
    assert not found, f"today's words: {now}\n" + "\n".join(found)


def test_there_is_something_to_read():
    assert len(FILES) > 150

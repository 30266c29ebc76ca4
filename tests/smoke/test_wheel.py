"""The wheel carries the package and its configuration, and works far from the checkout."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from running import HANGS, TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the unpacked wheel: what `pip install --no-deps --target` would leave there."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=HANGS)
    (wheel,) = folder.glob("compseg-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(installed, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=installed.parent, env=environment, capture_output=True, text=True, timeout=HANGS)


def test_every_configuration_file_is_aboard(installed):
    def files(folder):
        return {file.relative_to(folder) for file in folder.rglob("*.yaml")}

    assert files(installed / "compseg" / "conf") == files(ROOT / "conf")


def test_package_data_and_metadata_are_aboard(installed):
    def data(folder):
        kept = (file for file in folder.rglob("*") if file.is_file() and file.suffix not in {".py", ".pyc", ".yaml"})
        return {file.relative_to(folder) for file in kept}

    assert data(installed / "compseg") == data(ROOT / "src" / "compseg")
    (metadata,) = installed.glob("compseg-*.dist-info")
    assert (metadata / "licenses" / "LICENSE").is_file()
    assert "compseg = compseg.__main__:main" in (metadata / "entry_points.txt").read_text()


def test_a_verb_finds_the_configuration_in_the_wheel(installed):
    where = python(installed, "-c", "import compseg.config as c; print(c.conf_dir())")
    assert Path(where.stdout.strip()) == installed / "compseg" / "conf"
    shown = python(installed, "-m", "compseg.train", "model=unet", "--cfg", "job")
    assert shown.returncode == 0, shown.stderr
    assert "_target_: compseg.models.UNet" in shown.stdout
    assert "name: compseg" in shown.stdout


def test_hydra_finds_the_launchers_in_the_wheel(installed):
    program = "from hydra.core.plugins import Plugins; import hydra_plugins.compseg_plugins as p; print(p.__file__); "
    program += "print([kind.__name__ for kind in Plugins.instance().discover()])"
    found = python(installed, "-c", program)
    assert str(installed / "hydra_plugins" / "compseg_plugins.py") in found.stdout, found.stderr
    for kind in ("LocalLauncher", "SlurmLauncher", "OptunaSweeper"):
        assert f"'{kind}'" in found.stdout


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A new environment with the wheel of the source distribution; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("elsewhere")
    # Of the source distribution, which `build` makes first: it must hold all that a wheel is made of.
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=HANGS)
    venv.create(folder / "env", with_pip=True)
    (site,) = (folder / "env/lib").glob("python*/site-packages")
    # A path file in it adds what is installed here, but not the checkout, which another path file there adds.
    (site / "present.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = (folder / "dist").glob("*.whl")
    options = ["--quiet", "--no-index", "--no-deps", "--ignore-installed", str(wheel)]
    subprocess.run([folder / "env/bin/pip", "install", *options], check=True, capture_output=True, timeout=HANGS)
    (folder / "work").mkdir()
    return folder


def run(elsewhere, *words):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # nothing is to be fetched
    done = subprocess.run(
        [elsewhere / "env/bin" / words[0], *words[1:]],
        cwd=elsewhere / "work", env={**environment, **proxies, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=HANGS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout


@pytest.mark.slow
def test_it_works_in_a_new_environment_without_the_checkout(elsewhere):
    where = run(elsewhere, "python", "-c", "import compseg; print(compseg.__file__)")
    assert where.startswith(str(elsewhere / "env"))
    assert run(elsewhere, "compseg", "--version").startswith("compseg ")
    assert "all passed" in run(elsewhere, "compseg", "doctor")
    said = run(elsewhere, "compseg", "train", *TINY, "hydra.run.dir=run")
    assert said.splitlines()[-1] == f"report: {elsewhere / 'work/run/report.html'}"
    np.save(elsewhere / "work/new.npy", np.random.default_rng(0).random((20, 20, 8), np.float32))
    run(elsewhere, "compseg", "predict", "run=run", "input=new.npy", "out=maps")
    code = "import compseg, numpy; s = compseg.load_segmenter('run'); a = s(numpy.load('new.npy')); "
    code += "p = compseg.predict(run='run', input='new.npy', out='again'); print((p.map('new') == a).all())"
    assert "True" in run(elsewhere, "python", "-c", code)


INSTRUCTIONS = {"FROM", "ARG", "COPY", "RUN", "USER", "WORKDIR", "ENTRYPOINT", "CMD", "ENV"}


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_container_is_well_formed(name):
    text = (ROOT / f"docker/Dockerfile.{name}").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    instructions = [line.split(maxsplit=1) for line in "\n".join(lines).replace("\\\n", "").splitlines()]
    words = [instruction for instruction, _ in instructions]
    assert set(words) <= INSTRUCTIONS
    assert (words[0], words[-2:]) == ("FROM", ["ENTRYPOINT", "CMD"])
    assert [json.loads(arguments) for _, arguments in instructions[-2:]] == [["compseg"], ["--help"]]
    assert words.index("USER") > max(place for place, word in enumerate(words) if word == "RUN")
    copied = next(arguments.split()[:-1] for word, arguments in instructions if word == "COPY")
    assert all(item == "dist/*.whl" or (ROOT / item).is_file() for item in copied)
    version = re.search(r"python:(3\.\d+)", text)[1]
    assert f"Programming Language :: Python :: {version}" in metadata()["classifiers"]


def metadata():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_that_of_this_software_and_of_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited)  # what the format requires
    assert (cited["title"], cited["license"]) == tuple(metadata()[key] for key in ("name", "license"))
    (paper,) = cited["references"]
    assert paper["doi"].endswith("2020.02.27.20028845")
    assert [author["family-names"] for author in paper["authors"]] == ["Schuhmacher", "Gerwert", "Mosig"]


def version_in(folder):
    command = [sys.executable, "-W", "ignore", "-m", "hatchling", "version"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=HANGS).stdout.strip()


def fallback():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return tools["hatch"]["version"]["raw-options"]["fallback_version"]


def test_the_changelog_the_citation_and_the_version_of_a_copy_agree():
    comes_next = f"{fallback().partition('.dev')[0]}.0"
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    # Before the first release the citation names the one that comes.
    assert cited == (released[0] if released else comes_next)
    assert [numbers(version) for version in released[:1]] < [numbers(comes_next)]


def numbers(version):
    return tuple(map(int, version.split(".")))


def test_the_version_is_that_of_the_last_tag(tmp_path):
    for name in ("pyproject.toml", ".gitattributes", ".git_archival.txt"):
        shutil.copy(ROOT / name, tmp_path)
    assert version_in(tmp_path) == fallback()  # a copy without git
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]

    def in_git(*words):
        return subprocess.run([*git, *words], check=True, capture_output=True, timeout=HANGS).stdout

    def exported(name):
        (tmp_path.parent / name).mkdir()
        with tarfile.open(fileobj=io.BytesIO(in_git("archive", "HEAD"))) as archive:
            archive.extractall(tmp_path.parent / name, filter="data")
        return version_in(tmp_path.parent / name)

    in_git("init", "-q")
    in_git("add", ".")
    in_git("commit", "-qm", "first")
    assert version_in(tmp_path).startswith("0.1.dev1+g")
    assert exported("untagged") == fallback()
    in_git("tag", "v0.2.0")
    assert (version_in(tmp_path), exported("tagged")) == ("0.2.0", "0.2.0")
    in_git("commit", "-qm", "second", "--allow-empty")
    assert version_in(tmp_path).startswith("0.2.1.dev1+g")


def test_templates_of_issues_are_well_formed():
    for file in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        plain = yaml.safe_load(file.read_text())
        if file.stem != "config":
            assert {"name", "description", "body"} <= set(plain)
            assert len({part["id"] for part in plain["body"]}) == len(plain["body"])
            assert all(part["attributes"]["label"] for part in plain["body"])


def test_each_python_that_is_said_to_be_supported_is_what_the_doctor_expects():
    from compseg.doctor import TESTED

    said = [word.rpartition(" ")[2] for word in metadata()["classifiers"] if ":: Python :: 3." in word]
    assert said == [f"3.{minor}" for minor in range(TESTED[0][1], TESTED[1][1] + 1)]
    assert metadata()["requires-python"] == f">={said[0]}"
    *first, last = said
    assert f"Supported are Python {', '.join(first)} and {last}." in (ROOT / "CONTRIBUTING.md").read_text()

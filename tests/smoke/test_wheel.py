"""The wheel carries the package and its configuration, and works far from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from running import HANGS

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

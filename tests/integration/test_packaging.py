"""What is installed works from anywhere: the wheel and an editable install, in fresh environments."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from fr_twisted.config import UNITS, default_text, setting_of
from tests.daemons import ROOT

PACKAGED = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "fr_twisted", "twisted")
LIMIT = 240.0


def run(*command: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as a user would, without anything of ours in its environment."""
    ours = ("FR_", "PYTHON", "COVERAGE", "PIP_USER", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def done(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; return what it wrote."""
    result = run(*command, cwd=cwd)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def find_python(version: str) -> str:
    """Return an interpreter of this version that really runs, or skip."""
    pyenv = sorted(
        Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python{version}"), reverse=True
    )
    current = [sys.executable] if "{}.{}".format(*sys.version_info) == version else []
    for candidate in (*current, shutil.which(f"python{version}"), *map(str, pyenv)):
        script = "import sys, venv; print('{}.{}'.format(*sys.version_info))"
        if candidate and run(candidate, "-c", script, cwd=Path("/")).stdout.strip() == version:
            return candidate
    pytest.skip(f"no Python {version} runs here")


def make_environment(python: str, folder: Path, *what: str | Path) -> Path:
    """Make a fresh environment in ``folder``, install ``what`` into it, return its bin folder."""
    done(python, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check")
    done(*pip, "install", "--quiet", "--no-compile", *what, cwd=folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged: a build leaves files behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in PACKAGED:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(
                origin, folder / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache")
            )
        else:
            shutil.copy(origin, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel; built with the setuptools that is here, if it is new enough."""
    folder = tmp_path_factory.mktemp("wheel")
    try:
        here = int(metadata.version("setuptools").split(".")[0]) >= 77
    except metadata.PackageNotFoundError:
        here = False
    isolation = ["--no-isolation"] if here else []
    done(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", folder, source, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


def squeezed(text: str) -> str:
    """Return ``text`` without white space: help is wrapped, also behind hyphens."""
    return "".join(text.split())


def check_units(binaries: Path, folder: Path) -> None:
    """See that twistd knows all units, and explains every option of each, from a folder that is none of ours."""
    listed = done(binaries / "twistd", "--help", cwd=folder)
    for unit, model in UNITS.items():
        assert f"fr{unit} " in listed
        text = squeezed(done(binaries / "twistd", "-n", f"fr{unit}", "--help", cwd=folder))
        for field, info in model.model_fields.items():
            setting = setting_of(model, field)
            default = default_text(model, field) or "none"
            assert f"--{field.replace('_', '-')}=" in text
            assert squeezed(f"{info.description} [default: {default}; env: {setting.env}") in text
    assert "fr-twisted" in done(binaries / "twistd", "-n", "frhub", "--version", cwd=folder)


def check_core(binaries: Path, folder: Path) -> None:
    """See that a HUB needs neither numpy nor the embedded server, and that the lack of that is explained."""
    python = binaries / "python"
    script = (
        "from fr_twisted.hub import tap; options = tap.Options(); options.parseOptions([]); tap.makeService(options);"
        "import importlib.util as u; print([n for n in ('numpy', 'scipy', 'nibabel', 'secantus') if u.find_spec(n)])"
    )
    assert done(python, "-c", script, cwd=folder).strip() == "[]"
    store = run(binaries / "twistd", "-n", "--pidfile=", "frstore", cwd=folder)
    assert store.returncode == 1
    assert "pip install 'fr-twisted[embedded]'" in store.stdout


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_wheel(version: str, wheel: Path, tmp_path: Path) -> None:
    """The wheel, installed."""
    binaries = make_environment(find_python(version), tmp_path / "env", wheel)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    check_units(binaries, elsewhere)
    check_core(binaries, elsewhere)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_editable(version: str, source: Path, tmp_path: Path) -> None:
    """An editable install."""
    binaries = make_environment(find_python(version), tmp_path / "env", "--editable", source)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    check_units(binaries, elsewhere)
    origin = done(binaries / "python", "-c", "import fr_twisted; print(fr_twisted.__file__)", cwd=elsewhere)
    assert Path(origin.strip()).is_relative_to(source)


def test_content(wheel: Path) -> None:
    """The wheel has every module, the data, the licences and the plugins, and nothing of the tests."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "fr_twisted").rglob("*.py")}
    assert modules - names == set()
    assert {"fr_twisted/py.typed", "twisted/plugins/fr_twisted_plugins.py"} <= names
    assert not [name for name in names if name.startswith("tests") or name == "twisted/plugins/__init__.py"]
    for name in ("LICENSE", "NOTICE"):
        assert [entry for entry in names if entry.endswith(f"dist-info/licenses/{name}")]
    for folder in ("fr_twisted/brain/analysis/data", "fr_twisted/pacs/data"):
        shipped = {str(path.relative_to(ROOT)) for path in (ROOT / folder).iterdir() if path.is_file()}
        assert shipped
        assert shipped <= names

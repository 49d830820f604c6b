"""aifbench as a user has it who installed its wheel, with the toy benchmark beside it: no checkout, no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.workflow.campaign import HOSTILE, ROOT

TOY = ROOT / "tests" / "fixtures" / "toy_benchmark"
_SOURCES = ("README.md", "LICENSE", "pyproject.toml", "config", "containers", "profiles", "src", "workflow")


class Installed:
    """An environment in a folder whose name must stay a name. Its other packages are those of this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / HOSTILE
        self.python = self.folder / "env" / "bin" / "python"
        self.site = self.folder / "env" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        _run([sys.executable, "-m", "venv", "--without-pip", str(self.folder / "env")])
        (self.site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
        sources = folder / "sources"
        for name in _SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            options = {"symlinks": True, "ignore": _BUILT} if copy is shutil.copytree else {}
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / name, sources / name, **options)
        self.wheel = self.install(sources)
        self.install(shutil.copytree(TOY, folder / "toy", ignore=_BUILT))

    def install(self, sources: Path) -> Path:
        """Build the wheel of a package, which leaves its sources as they are, and install it."""
        wheels = sources.with_name(f"{sources.name}-wheel")
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(sources)])
        (wheel,) = wheels.glob("*.whl")
        _run([*pip, "--python", str(self.python), "install", "--no-index", "--no-deps", str(wheel)])
        return wheel

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a module of the environment, such as `aifbench plan`, or a script, whose name ends in `.py`."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"COLUMNS": "200"}
        argv = [str(self.python), *([] if command[0].endswith(".py") else ["-m"]), *command]
        return subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)


_BUILT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

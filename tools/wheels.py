"""The wheel in an empty environment for each extra: `make wheels`, or `python tools/wheels.py [EXTRA ...]`.

Builds the distributions once into `dist/`. Then, for the core, each extra that users install, and all of them: an environment
with nothing but the wheel (versions of constraints.txt), the checks of `wheel_checks.py` in it, and the environment is deleted.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPANIONS = {"stats": ("report",), "index": ("lm",)}
"""What an extra is for may need another one: `fit` draws figures, and an index of tokens is asked for a tokenizer's."""


def environments() -> dict[str, tuple[str, ...]]:
    """Environment to its extras; those for development have tests of their own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (everything,) = project["optional-dependencies"]["all"]
    extras = everything.removeprefix("memtax[").removesuffix("]").split(",")
    each = {name: (name, *COMPANIONS.get(name, ())) for name in extras}
    return {"core": (), **each, "all": ("all",)}


def build() -> Path:
    """The wheel, made from the source distribution as a release makes it."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(ROOT / "dist"), str(ROOT)], check=True, stdout=subprocess.DEVNULL
    )
    (wheel,) = (ROOT / "dist").glob("*.whl")
    return wheel


def check(name: str, extras: tuple[str, ...], wheel: Path, folder: Path) -> bool:
    """Install the wheel with extras in an empty environment in a folder, and run the checks there."""
    python = folder / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    clean |= {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(folder / "huggingface"), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", str(folder / "environment")], check=True)
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        str(ROOT / "constraints.txt"),
    ]
    wanted = f"memtax[{','.join(extras)}] @ {wheel.as_uri()}" if extras else str(wheel)
    if subprocess.run([*install, wanted], env=clean).returncode:
        return False
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    print(f"== {name}: installed in {time.monotonic() - began:.0f} s, {size / 1e6:,.0f} MB", flush=True)
    (folder / "work").mkdir()
    script = Path(__file__).with_name("wheel_checks.py")
    return not subprocess.run([str(python), "-I", str(script), name], env=clean, cwd=folder / "work").returncode


def main() -> int:
    """Check the named environments, or every one; 1 if one fails."""
    known = environments()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extra", nargs="*", help=f"default: {', '.join(known)}")
    names = parser.parse_args().extra or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown extra {unknown[0]!r}; known: {', '.join(known)}")
    wheel, failed = build(), []
    for name in names:
        with tempfile.TemporaryDirectory(prefix=f"memtax-{name}-") as folder:
            if not check(name, known[name], wheel, Path(folder)):
                failed.append(name)
    print(
        f"{wheel.name}: {len(names) - len(failed)} of {len(names)} environments pass"
        + f"; failed: {', '.join(failed)}" * bool(failed)
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

"""A wheel of the running memtax for a Space to install, whether or not memtax is on a package index."""

import base64
import functools
import hashlib
import importlib.metadata
import io
import sys
import zipfile
from pathlib import Path

from memtax.errors import MemtaxError
from memtax.files import asset

_EPOCH = (1980, 1, 1, 0, 0, 0)
_ASSETS = ("dataset_scripts", "metrics", "model_cards", "training")


@functools.cache
def build() -> tuple[str, bytes]:
    """File name and content of the wheel; the same bytes for the same code.

    Raises:
        MemtaxError: memtax is not installed, so its dependencies are unknown.
    """
    try:
        installed = importlib.metadata.distribution("memtax")
    except importlib.metadata.PackageNotFoundError as error:
        raise MemtaxError("memtax is not installed, so no wheel can be made; run pip install -e . in the checkout") from error
    package = Path(__file__).parents[1]
    version: str = sys.modules["memtax"].__version__
    files = {f"memtax/{path.relative_to(package).as_posix()}": path.read_bytes() for path in _sources(package)}
    for name in _ASSETS:
        # In a checkout these are next to the package; in a wheel they are part of it.
        try:
            folder = asset(name)
        except FileNotFoundError:
            continue
        files |= {f"memtax/_assets/{name}/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in _sources(folder)}
    info = f"memtax-{version}.dist-info"
    files[f"{info}/METADATA"] = _metadata(installed, version).encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: memtax\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nmemtax = memtax.cli:main\n"
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in sorted(files.items())]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    return f"memtax-{version}-py3-none-any.whl", _zip(files)


def _metadata(installed: importlib.metadata.Distribution, version: str) -> str:
    text = installed.read_text("METADATA") or ""
    lines = [f"Version: {version}" if line.startswith("Version: ") else line for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def _sources(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path for path in files if not path.name.startswith(".") and path.suffix != ".pyc")


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return buffer.getvalue()

"""The gallery of the documentation: `python tools/gallery.py runs/demo`, after `make demo`.

Runs further verbs on the demo's model and a part of its corpus, and takes a small picture of the top of each page with headless
Chromium (found by name, or MEMTAX_CHROMIUM): `docs/images/gallery/NAME.png`, and one of a phone. `--keep DIR` keeps the pages.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers import browser  # noqa: E402

PICTURES = ROOT / "docs" / "images" / "gallery"
COLORS = 48
"""Colors of a picture, which keep it below 100 kB."""


def pages(run: Path, output: Path) -> dict[str, Path]:
    """Name to page: the run's report, and what other verbs say about the same model."""
    import pyarrow.parquet as pq

    import memtax

    corpus = run.resolve() / "corpus" / "python-stdlib" / "default"
    train, unseen = (pq.read_table(corpus / f"{name}.parquet") for name in ("train", "held_out"))
    # Rows from every document. Pages show paths as they were given, so these are relative.
    few, probes = train.select(["text"])[::50], unseen.select(["text"])[::25]
    output.mkdir(parents=True, exist_ok=True)
    (output / "small-gpt-neox").symlink_to(run.resolve() / "models" / "small-gpt-neox")
    with contextlib.chdir(output):
        for name, table in (("train", train[::10]), ("unseen", unseen[::4]), ("few", few), ("probes", probes)):
            pq.write_table(table, f"{name}.parquet")
        data = {"train": "train.parquet", "held_out": "unseen.parquet"}
        memtax.audit(model="small-gpt-neox", output="audit", **data)
        memtax.mia(model="small-gpt-neox", members="train.parquet", nonmembers="unseen.parquet", output="mia")
        memtax.influence(train="few.parquet", test="probes.parquet", model="small-gpt-neox", output="influence")
    made = {name: output / name / "index.html" for name in ("audit", "mia", "influence")}
    return {"report": run / "report" / "index.html", **made}


def picture(page: Path, width: int, height: int, folder: Path) -> Image.Image:
    """The top of a page in a window of that many pixels."""
    shot = folder / "shot.png"
    command = [browser.FOUND, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=15000"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", f"--screenshot={shot}"]
    subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True, timeout=180)
    return Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")


def save(image: Image.Image, name: str, width: int) -> None:
    """Write a picture of that many pixels with few colors."""
    small = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    file = PICTURES / f"{name}.png"
    small.quantize(COLORS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}  {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Make the pages and their pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="output of memtax demo")
    parser.add_argument("--keep", type=Path, help="folder for the pages of the further verbs")
    given = parser.parse_args()
    if browser.FOUND is None:
        parser.error("no Chromium found; set MEMTAX_CHROMIUM")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = pages(given.run, given.keep or Path(folder) / "pages")
        for name, page in made.items():
            save(picture(page, 1200, 1400, Path(folder)), name, 900)
        save(picture(made["audit"], 500, 1000, Path(folder)), "phone", 400)


if __name__ == "__main__":
    main()

"""The report of a run with many sequences: time to write it, its size, and how long it takes to open, search, filter and sort.

    python benchmarks/report.py --rows 100000

The table is made up: windows of this Python's library, word by word, with seeded values for all that is measured. Needs
Chromium (found by name, or MEMTAX_CHROMIUM); without it only writing is measured. Times in the browser are from its own clock:
from the start of navigation, or from the change of a field to the next painted frame (the page waits 120 ms for more typing).
"""

import argparse
import functools
import http.server
import json
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from helpers import browser, report_run
from memtax import report

STEPS = {
    "search a word": {"search": "import numpy"},
    "search again": {"search": "return"},
    "filter by category": {"search": "", "category": "recollection"},
    "filter by memorized too": {"memorized": "yes"},
    "sort all by perplexity": {"category": "", "memorized": "", "sort": "continuation_perplexity"},
    "sort all by duplicates": {"sort": "sequence_duplicates", "order": "up"},
}
SCRIPT = """
addEventListener("load", async () => {
  const told = {loaded: performance.now(), steps: {}};
  const shown = document.getElementById("shown"), cards = document.getElementById("cards");
  while (shown.textContent.includes("Reading")) await new Promise((done) => setTimeout(done, 5));
  told.complete = performance.now();
  told.painted = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  const form = document.getElementById("filters");
  for (const [name, step] of Object.entries(STEPS)) {
    const start = performance.now();
    for (const [field, value] of Object.entries(step)) form.elements[field].value = value;
    const changed = new Promise((done) => new MutationObserver(done).observe(cards, {childList: true}));
    form.dispatchEvent(new Event("input", {bubbles: true}));
    await changed;
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    told.steps[name] = performance.now() - start;
  }
  navigator.sendBeacon("http://127.0.0.1:PORT/", JSON.stringify(told));
});
"""


class Listener(http.server.BaseHTTPRequestHandler):
    """Takes what the page tells."""

    def __init__(self, told: list[Any], *arguments: Any) -> None:
        self.told = told
        super().__init__(*arguments)

    def do_POST(self) -> None:
        """Keep one report."""
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def library(rows: int) -> list[tuple[str, str]]:
    """Modules of the library and of what is installed, shuffled, until there is text for so many windows."""
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"), key=str)
    random.Random(1).shuffle(files)
    size, chosen = 0, []
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        chosen.append((file.name, text))
        size += len(text)
        if size > rows * report_run.WINDOW * 6:
            break
    return chosen


def opened(page: Path, folder: Path) -> dict[str, Any]:
    """What one opening of the page in a fresh browser tells, in milliseconds."""
    told: list[dict[str, Any]] = []
    server = http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Listener, told))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = SCRIPT.replace("STEPS", json.dumps(STEPS)).replace("PORT", str(server.server_port))
    source = page.read_text(encoding="utf-8").replace("script-src '", "connect-src *; script-src 'nonce-ours' '", 1)
    copy = folder / "copy.html"
    copy.write_text(source.replace("</title>", f'</title><script nonce="ours">{script}</script>', 1), encoding="utf-8")
    command = [
        browser.FOUND,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ]
    command += [f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", copy.as_uri()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not told and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    process.wait()
    server.shutdown()
    return told[0]


def main() -> None:
    """Make the run, write the page, open it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report_run.SOURCES = library(options.rows)
        run = report_run.make_run(folder / "run", rows=options.rows)
        start = time.perf_counter()
        page = report.write(run)
        print(f"{options.rows:,} sequences of {report_run.WINDOW} tokens\n")
        print("| | |\n|---|---|")
        print(f"| written in | {time.perf_counter() - start:.1f} s |")
        print(f"| size of the page | {page.stat().st_size / 1e6:.1f} MB |")
        if browser.FOUND is None:
            sys.exit("no Chromium was found, so the page was not opened; set MEMTAX_CHROMIUM to its path")
        told = []
        for number in range(options.rounds):
            (folder / str(number)).mkdir()
            told.append(opened(page, folder / str(number)))
        for words, key in (("first painted", "painted"), ("loaded", "loaded"), ("all sequences can be searched", "complete")):
            print(f"| {words} | {statistics.median(one[key] for one in told) / 1000:.2f} s |")
        for step in STEPS:
            print(f"| {step} | {statistics.median(one['steps'][step] for one in told) / 1000:.2f} s |")


if __name__ == "__main__":
    main()

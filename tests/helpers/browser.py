"""Opening a page in headless Chromium, where there is one, with nothing but its command line."""

import html
import json
import os
import re
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = os.environ.get("MEMTAX_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)

HARNESS = """
(() => {
  const seen = {violations: [], errors: []};
  addEventListener("securitypolicyviolation", (event) => seen.violations.push(event.blockedURI || event.violatedDirective));
  addEventListener("error", (event) => seen.errors.push(String(event.message)));
  addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
  const pause = (time) => new Promise((done) => setTimeout(done, time));
  addEventListener("load", async () => {
    const shown = document.getElementById("shown");
    // The browser's clock runs ahead while another of its threads unpacks; counting takes real time, a few milliseconds a turn.
    for (let turn = 0; shown && turn < 4000 && shown.textContent.includes("Reading"); turn++) {
      for (let number = 0; number < 3e6; number++) seen.spun = number;
      await pause(1);
    }
    seen.answers = [];
    for (const step of STEPS) {
      const form = document.getElementById("filters");
      for (const [name, value] of Object.entries(step)) form.elements[name].value = value;
      form.dispatchEvent(new Event("input", {bubbles: true}));
      await pause(400);
      const ids = [...document.querySelectorAll(".card h3 .document:nth-of-type(3)")].map((span) => span.textContent);
      seen.answers.push({shown: shown.textContent, ids});
    }
    seen.resources = performance.getEntriesByType("resource").map((entry) => entry.name);
    seen.width = [document.documentElement.scrollWidth, innerWidth];
    const box = document.createElement("pre");
    box.id = "seen";
    box.textContent = JSON.stringify(seen);
    document.body.append(box);
  });
})();
"""


def visit(page, folder, steps=(), width=1366):
    """Open a copy of the page whose policy lets one more script of ours run, which tells what happens.

    Args:
        page: the HTML file.
        folder: where the copy and the browser's profile go.
        steps: values of the form's fields, one after another.
        width: of the window.

    Returns:
        `violations` and `resources` (anything that the page tried to fetch), `errors`, `answers` (what was shown after each
        step), `width` (of the content, and of the window), and `console`, the lines of the browser's console.
    """
    source = page.read_text(encoding="utf-8")
    script = HARNESS.replace("STEPS", json.dumps(list(steps)))
    if "script-src" in source:
        source = source.replace("script-src '", "script-src 'nonce-ours' '", 1)
    else:
        source = source.replace("default-src 'none'", "default-src 'none'; script-src 'nonce-ours'", 1)
    copy = folder / "copy.html"
    copy.write_text(source.replace("</title>", f'</title><script nonce="ours">{script}</script>', 1), encoding="utf-8")
    command = [FOUND, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=20000"]
    command += ["--enable-logging=stderr", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {**json.loads(html.unescape(told[1])), "console": console}

"""A real browser without a window, for the tests of pages: it opens one as wide as asked for, drives it by a script and
says what its console said."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
WORDS = [
    *("--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--dump-dom"),
    *("--allow-file-access-from-files", "--enable-logging=stderr", "--virtual-time-budget=20000"),
]
CONSOLE = re.compile(r"CONSOLE[:(].*")
# The page stands in a frame: the window of a browser is never narrower than 500 pixels. `page` is its window; `until`
# waits for something to become true, for 15 seconds at most.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin: 0">
<iframe id="frame" style="border: 0; width: {width}px; height: 900px" src="{page}"></iframe><p id="said"></p><script>
async function until(what) {{
  for (let i = 0; i < 300; i++) {{ if (what()) return; await new Promise((then) => setTimeout(then, 50)); }}
  throw new Error("never came: " + what);
}}
async function drive(page) {{ {script} }}
frame.onload = async () => {{
  frame.onload = null;
  try {{ said.textContent = JSON.stringify({{ found: await drive(frame.contentWindow) }}); }}
  catch (error) {{ said.textContent = JSON.stringify({{ failed: error.stack }}); }}
}};
</script>"""


def driven(page: Path, width: int, script: str, folder: Path) -> tuple[Any, list[str]]:
    """What `script`, the body of `async function drive(page)`, returns, and the lines of the console."""
    frame = folder / f"frame{width}.html"
    frame.write_text(FRAME.format(width=width, page=page.as_uri(), script=script), encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run([BROWSER, *WORDS, profile, frame.as_uri()], capture_output=True, text=True, timeout=120)
    said = re.search(r'<p id="said">(.+?)</p>', done.stdout, re.DOTALL)
    assert said, f"the script did not end; the browser said: {done.stderr[-2000:]}"
    answer = json.loads(unescape(said[1]))
    assert "failed" not in answer, answer["failed"]
    return answer["found"], CONSOLE.findall(done.stderr)

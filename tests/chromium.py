"""Runs a page in headless Chromium from the system's packages, with a test's script in it."""

import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

BROWSER = next(
  (
    found
    for name in ('chromium', 'chromium-browser', 'google-chrome')
    if (found := shutil.which(name))
  ),
  None,
)
needs_chromium = pytest.mark.skipif(BROWSER is None, reason='no chromium on this machine')

# What the scripts of tests may call; `wait` gives the page time for timers and events.
HELPERS = """
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const report = (value) => {
  const made = document.createElement('pre');
  made.id = 'test-result';
  made.textContent = JSON.stringify(value);
  document.body.append(made);
};
"""


def start(*arguments: str, seconds: float = 120) -> tuple[str, list[str]]:
  """(stdout, console messages) of the browser."""
  assert BROWSER is not None
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
    command = [
      BROWSER, '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
      '--no-first-run', '--hide-scrollbars', '--enable-logging=stderr', f'--user-data-dir={home}',
      *arguments,
    ]  # fmt: skip
    done = subprocess.run(
      command, capture_output=True, text=True, timeout=seconds, env={**os.environ, 'HOME': home}
    )
  console = re.findall(r':CONSOLE[^\]]*\] (.*)', done.stderr)
  return done.stdout, console


def run(page: pathlib.Path, script: str, *, clock: bool = False, address: str = ''):
  """(what the script reported, console messages).

  script is the body of an async function that returns a JSON value. Time is the browser's own,
  which hurries through waiting, unless `clock`: then it must not wait, and may measure.
  """
  body = f'{HELPERS}\n' + (
    f'report((() => {{ {script} }})());'
    if clock
    else f'(async () => {{ {script} }})().then(report, (e) => report({{ error: String(e) }}));'
  )
  text = page.read_text(encoding='utf-8')
  copy = page.with_name(f'{page.stem}-tested.html')
  before, body_end, after = text.rpartition('</body>')
  copy.write_text(f'{before}<script>{body}</script>{body_end}{after}', encoding='utf-8')
  budget = [] if clock else ['--virtual-time-budget=20000']
  shown, console = start(*budget, '--dump-dom', f'{copy.resolve().as_uri()}{address}')
  found = re.search(r'<pre id="test-result">(.*?)</pre>', shown, re.DOTALL)
  assert found, (console, shown[-500:])
  return json.loads(html.unescape(found[1])), console


def screenshot(page: pathlib.Path, to: pathlib.Path, width: int, height: int, address: str = ''):
  """A picture of the page's first `height` pixels at this width."""
  start(
    '--virtual-time-budget=5000', f'--window-size={width},{height}', f'--screenshot={to}',
    f'{page.resolve().as_uri()}{address}',
  )  # fmt: skip
  return to

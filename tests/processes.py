"""Runs of several processes on this machine, as users start them, and scripts in several."""

import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent


def free_port() -> int:
  """A port that is free, as is the one a thousand above it, which the watch takes."""
  while True:
    with socket.socket() as one, socket.socket() as other:
      one.bind(('', 0))
      port = one.getsockname()[1]
      if 20_000 < port < 58_000:
        try:
          other.bind(('', port + 1000))
        except OSError:
          continue
        return port


def environment(devices: int, cache: pathlib.Path) -> dict[str, str]:
  return os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    'JAX_COMPILATION_CACHE_DIR': str(cache),
    'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}',
  }


class Run:
  """main.py in `count` processes of `devices` devices; out(i) is what process i printed."""

  def __init__(
    self, workdir: pathlib.Path, count: int, devices: int = 1, /, *, port=0, **overrides
  ):
    self.workdir, self.count = workdir, count
    workdir.parent.mkdir(parents=True, exist_ok=True)
    flags = {'hosts.detect': False, **overrides}
    if count > 1:
      flags |= {'hosts.coordinator': f'localhost:{port or free_port()}', 'hosts.count': count}
    self.started = []
    for i in range(count):
      own = flags | ({'hosts.index': i} if count > 1 else {})
      with self._log(i).open('w') as log:
        self.started.append(
          subprocess.Popen(
            [
              *(sys.executable, 'main.py', '--config=configs/quickstart.py'),
              f'--workdir={workdir}',
              *(f'--config.{key}={value}' for key, value in own.items()),
            ],
            cwd=ROOT,
            env=environment(devices, workdir.parent / 'cache'),
            stdout=log,
            stderr=log,
          )
        )

  def _log(self, i: int) -> pathlib.Path:
    return self.workdir.parent / f'{self.workdir.name}.{i}.log'

  def out(self, i: int) -> str:
    return self._log(i).read_text()

  def wait(self, limit_s: float = 500) -> list[int]:
    """Exit codes."""
    try:
      return [one.wait(limit_s) for one in self.started]
    finally:
      for one in self.started:
        one.kill()
        one.wait()

  def check(self) -> 'Run':
    codes = self.wait()
    assert codes == [0] * self.count, (codes, [self.out(i)[-3000:] for i in range(self.count)])
    return self


def script(tmp_path: pathlib.Path, code: str, count: int, devices: int = 1, limit_s: float = 120):
  """(exit code, stdout and stderr) of each of `count` processes that run code, joined by hosts.

  In it `config` is the base config with hosts set; hosts.start is for the code to call.
  """
  port = free_port()
  started = []
  for i in range(count):
    head = f"""
import sys, pathlib
from configs import base
from rlvr_jax import hosts
config = base.get_config()
config.hosts.update({{'coordinator': 'localhost:{port}', 'count': {count}, 'index': {i}}})
config.hosts.detect = False
tmp_path = pathlib.Path({str(tmp_path)!r})
"""
    path = tmp_path / f'process_{i}.py'
    path.write_text(head + code)
    started.append(
      subprocess.Popen(
        [sys.executable, str(path)],
        env=environment(devices, tmp_path / 'cache'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
    )
  try:
    outs = [one.communicate(timeout=limit_s)[0] for one in started]
  finally:
    for one in started:
      one.kill()
      one.wait()
  return [(one.returncode, out) for one, out in zip(started, outs, strict=True)]


def smoke(config: str, workdir: pathlib.Path, timeout: float = 590) -> dict[str, Any]:
  """results.json of a config's smoke form, as a user runs it."""
  done = subprocess.run(
    [sys.executable, 'main.py', f'--config={config}', '--config.smoke', f'--workdir={workdir}'],
    env=environment(1, workdir.parent / 'cache'),
    capture_output=True,
    text=True,
    timeout=timeout,
    check=False,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return json.loads((workdir / 'results.json').read_text())

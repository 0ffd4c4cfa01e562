"""The ways onto other machines, as far as they go here: the pod script against a gcloud that
records and runs what it is told, the Dockerfile read and its steps carried out."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / 'scripts' / 'tpu_pod.sh'
# what stands in for gcloud: keeps its arguments; `ssh` runs the command in the worker's home
GCLOUD = f"""#!{sys.executable}
import json, os, subprocess, sys
with open(os.environ['CALLS'], 'a') as f:
  print(json.dumps(sys.argv[1:]), file=f)
command = [w.removeprefix('--command=') for w in sys.argv if w.startswith('--command=')]
if command and os.environ.get('WORKER_HOME'):
  sys.exit(subprocess.run(['bash', '-c', command[0]], cwd=os.environ['WORKER_HOME']).returncode)
"""
# what stands in for the run: says its arguments, ends with 0 at SIGTERM
RUN = f"""#!{sys.executable}
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))
print(sys.argv[1:], flush=True)
time.sleep(60)
"""


@pytest.fixture
def pod(tmp_path):
  """(run the script -> (exit code, output), calls of gcloud so far, the worker's home)."""
  place = tmp_path / 'bin'
  place.mkdir()
  (place / 'gcloud').write_text(GCLOUD)
  (place / 'gcloud').chmod(0o755)
  home, calls = tmp_path / 'home', tmp_path / 'calls'
  python = home / 'rlvr_jax' / '.venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  python.write_text(RUN)
  python.chmod(0o755)
  calls.touch()

  def script(*words, acted=False, **env):
    given = {'TPU_NAME': 'pod', 'ZONE': 'us-x', 'ACCELERATOR': 'v5litepod-64', 'CALLS': str(calls)}
    given |= {'WORKER_HOME': str(home)} if acted else {}
    path = f'{place}:{os.environ["PATH"]}'
    env = {'PATH': path, 'HOME': str(home)} | given | env
    env = {k: v for k, v in env.items() if v is not None}
    done = subprocess.run(
      ['bash', str(SCRIPT), *words], env=env, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr

  def asked():
    return [json.loads(line) for line in calls.read_text().splitlines()]

  return script, asked, home / 'rlvr_jax'


TPU = ['compute', 'tpus', 'tpu-vm']


def test_the_pod_script_is_sound_bash():
  subprocess.run(['bash', '-n', str(SCRIPT)], check=True)
  assert 'set -euo pipefail' in SCRIPT.read_text()
  assert os.access(SCRIPT, os.X_OK)


def test_slices_are_made_and_deleted(pod):
  script, asked, _ = pod
  assert script('create', SPOT='1', PROJECT='mine')[0] == 0
  assert script('create', ACCELERATOR='v5p-16', RUNTIME='other')[0] == 0
  assert script('delete')[0] == 0
  made, second, gone = asked()
  image = '--version=v2-alpha-tpuv5-lite'
  where = ['--zone=us-x', '--project=mine']
  assert made == [*TPU, 'create', 'pod', '--accelerator-type=v5litepod-64', image, '--spot', *where]
  assert second[-2:] == ['--version=other', '--zone=us-x']
  assert gone == [*TPU, 'delete', 'pod', '--quiet', '--zone=us-x']


def test_the_checkout_is_copied_and_installed(pod):
  script, asked, _ = pod
  assert script('install') == (0, '')
  copied, installed = asked()
  assert copied[:4] == [*TPU, 'scp']
  assert copied[5:7] == ['pod:rlvr_jax.tar.gz', '--worker=all']
  assert not pathlib.Path(copied[4]).exists()  # nothing is left behind
  command = installed[-2].removeprefix('--command=')
  assert "-e '.[tpu]'" in command
  assert '--python 3.12' in command
  subprocess.run(['bash', '-n', '-c', command], check=True)


def test_a_run_is_started_watched_and_stopped_on_every_worker(pod):
  script, asked, home = pod
  words = ['--config=configs/grpo_qwen7b.py', "--config.task.path=a b'c.jsonl"]
  assert script('run', *words, acted=True, EXTRA_ENV='HF_TOKEN=x') == (0, '')
  log, deadline = home / 'run.log', time.monotonic() + 20
  while time.monotonic() < deadline and (not log.exists() or 'grpo' not in log.read_text()):
    time.sleep(0.1)
  assert log.read_text() == f'{["main.py", *words]}\n'
  pid = int((home / 'run.pid').read_text())
  os.kill(pid, 0)
  code, said = script('run', *words, acted=True)
  assert (code, said) == (1, 'a run is going on: stop it first\n')
  assert 'running' in script('status', acted=True)[1]
  assert script('stop', acted=True) == (0, 'stopped\n')
  assert log.read_text().endswith('saved\n')
  assert 'no run' in script('status', acted=True)[1]
  assert script('stop', acted=True)[0] == 0  # nothing to stop
  assert all('--worker=all' in call for call in asked() if 'ssh' in call)
  assert script('logs', WORKER='3', LINES_SHOWN='5')[0] == 0
  assert asked()[-1][3:6] == ['ssh', 'pod', '--worker=3']


def test_a_run_that_does_not_stop_is_told_of(pod):
  script, _, home = pod
  deaf = subprocess.Popen(
    [sys.executable, '-c',
     'import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)'],
    stdout=subprocess.PIPE,
  )  # fmt: skip
  try:
    assert deaf.stdout is not None
    deaf.stdout.readline()
    (home / 'run.pid').write_text(f'{deaf.pid}')
    code, said = script('stop', acted=True, STOP_SECONDS='1')
    assert code == 1
    assert 'still running after 1 s' in said
  finally:
    deaf.send_signal(signal.SIGKILL)
    deaf.communicate()


def test_mistakes_and_a_dry_run(pod):
  script, asked, _ = pod
  assert script('create', ZONE=None) == (
    2, 'scripts/tpu_pod.sh: ZONE is not set; export it first (see --help)\n',
  )  # fmt: skip
  assert 'which flags of main.py?' in script('run')[1]
  code, said = script('launch')
  assert code == 2
  assert 'DRY_RUN=1 prints' in said
  assert script('--help')[0] == 0
  code, said = script('create', DRY_RUN='1')
  assert said.startswith('gcloud compute tpus tpu-vm create pod --accelerator-type=v5litepod-64')
  assert asked() == []


SBATCH = ROOT / 'scripts' / 'slurm.sbatch'


def test_the_slurm_script_starts_one_process_a_node(tmp_path):
  (tmp_path / 'srun').write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$@"\n')
  (tmp_path / 'srun').chmod(0o755)
  env = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_SUBMIT_DIR': str(ROOT)}

  def script(*words):
    return subprocess.run(
      ['bash', str(SBATCH), *words], env=env, capture_output=True, text=True, cwd=tmp_path
    )

  done = script('--config=configs/x.py', '--config.task.path=a b')
  place, *words = done.stdout.splitlines()
  assert pathlib.Path(place) == ROOT
  assert words[2:] == ['.venv/bin/python', 'main.py', '--config=configs/x.py',
                       '--config.task.path=a b']  # fmt: skip
  assert script().returncode == 2
  text = SBATCH.read_text()
  assert '#SBATCH --ntasks-per-node=1\n' in text
  assert re.search('#SBATCH --signal=TERM@\\d+\n', text)
  # SLURM reads its lines up to the first command
  assert text.index('#SBATCH --output') < text.index('set -euo pipefail')


# -- the Dockerfile


def instructions():
  """[(instruction, text)] with continued lines joined and comments gone."""
  lines = [line for line in (ROOT / 'Dockerfile').read_text().splitlines()
           if not line.lstrip().startswith('#')]  # fmt: skip
  text = '\n'.join(lines).replace('\\\n', ' ')
  return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def copied():
  return [words[:-1] for name, text in instructions() if name == 'COPY' for words in [text.split()]]


def test_what_the_image_copies_is_in_the_checkout():
  assert instructions()[0][0] == 'ARG'
  assert [n for n, _ in instructions()].count('FROM') == 1
  names = [name for words in copied() for name in words]
  assert {'rlvr_jax', 'configs', 'main.py', 'pyproject.toml'} <= set(names)
  ignored = (ROOT / '.dockerignore').read_text().split()
  for name in names:
    assert (ROOT / name).exists(), name
    assert name not in ignored, name
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  assert project['readme'] in names
  assert set(project['license-files']) <= set(names)


def install_step():
  return next(text for name, text in instructions() if name == 'RUN' and 'pip install' in text)


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu', 'abacus'])
def test_the_install_step_names_an_extra_there_is(platform, tmp_path):
  """Run by the shell, with a python that says what it is asked."""
  (tmp_path / 'python').write_text('#!/bin/sh\necho "$@"\n')
  (tmp_path / 'python').chmod(0o755)
  done = subprocess.run(
    ['sh', '-c', install_step()],
    env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PLATFORM': platform},
    capture_output=True,
    text=True,
  )
  if platform == 'abacus':
    assert done.returncode == 1
    assert 'PLATFORM=abacus is none of' in done.stderr
    return
  assert done.returncode == 0
  target = done.stdout.split()[-1]
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  extra = re.fullmatch(r'\.(?:\[(\w+)\])?', target)
  assert extra is not None
  assert extra[1] == (None if platform == 'cpu' else platform)
  assert extra[1] is None or extra[1] in extras['optional-dependencies']


@pytest.mark.check
def test_the_entry_runs_with_what_is_copied(tmp_path):
  """--help, and a config that is only checked, in a directory of the copied files alone."""
  for words in copied():
    for name in words:
      source, target = ROOT / name, tmp_path / name
      if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
      else:
        shutil.copy(source, target)
  entry = json.loads(next(text for name, text in instructions() if name == 'ENTRYPOINT'))
  assert json.loads(next(text for name, text in instructions() if name == 'CMD')) == ['--help']
  env = dict(os.environ, PYTHONPATH='', XDG_CACHE_HOME=str(tmp_path / 'cache'))

  def run(*flags):
    return subprocess.run(
      [sys.executable, *entry[1:], *flags],
      cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

  assert '--workdir' in run('--help').stdout
  checked = run('--config=configs/quickstart.py', '--config.job=train', '--config.dry_run')
  assert checked.returncode == 0, checked.stderr[-2000:]
  assert 'the config is sound' in checked.stderr


@pytest.mark.check
@pytest.mark.timeout(600)
def test_the_install_step_resolves():
  """pip finds every package of the image for the CPU; nothing is installed."""
  done = subprocess.run(
    [sys.executable, '-m', 'pip', 'install', '--dry-run', '--quiet', '-e', '.'],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  if 'Could not find a version' in done.stderr and 'Failed to establish' in done.stderr:
    pytest.skip('no package index can be reached')
  assert done.returncode == 0, done.stderr[-2000:]

"""Benchmarks are read as their public files are, prepared once, and refused where damaged."""

import functools
import hashlib
import http.server
import json
import pathlib
import subprocess
import sys
import threading

import pytest
from dataset_files import GSM8K, gsm8k, task, write_lines

from rlvr_jax.tasks import load
from rlvr_jax.tasks.datasets import builder, sources
from rlvr_jax.tasks.datasets.benchmark import Source
from rlvr_jax.tasks.datasets.load import benchmark_hash, load_benchmark, prepared_splits
from rlvr_jax.tasks.problem import Problem

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """Every test has a data cache of its own."""
  monkeypatch.setenv('RLVR_DATA_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


def test_a_benchmark_is_trained_on_its_train_split_and_measured_on_its_test_split(tmp_path):
  folder = gsm8k(tmp_path / 'gsm8k')
  train, test = load.load_problems(task('gsm8k', folder))
  assert [p.id for p in train] == ['train-0', 'train-1', 'train-2']
  assert [p.id for p in test] == ['0', '1', '2']
  assert [p.answer for p in test] == ['11', '7', '3']
  assert train[0] == Problem('train-0', 'gsm8k', '1 apples and 2 more?', '3', {'verifier': 'math'})
  assert load.load_problems(task('gsm8k', folder, holdout=1))[1] == test[:1]
  assert load.load_problems(task('gsm8k', folder, split='test')) == (test, [])
  assert load.load_problems(task('gsm8k', folder, split='train', holdout=2)) == (
    train[2:],
    train[:2],
  )
  # a file is the split that its name says, or that the user says
  assert load.load_problems(task('gsm8k', folder / 'train.jsonl')) == (train, [])
  renamed = (folder / 'test.jsonl').rename(folder / 'mine.jsonl')
  assert load.load_problems(task('gsm8k', renamed)) == (test, [])
  as_train, _ = load.load_problems(task('gsm8k', renamed, split='train'))
  assert [p.id for p in as_train] == ['train-0', 'train-1', 'train-2']


def test_prepared_once_keyed_by_content_and_read_without_tensorflow(tmp_path, cache, monkeypatch):
  folder = gsm8k(tmp_path / 'gsm8k')
  first = load_benchmark('gsm8k', path=str(folder))
  made = prepared_splits('gsm8k', path=str(folder))
  monkeypatch.setattr(builder, 'read_rows', None)  # nothing is made again
  assert load_benchmark('gsm8k', path=str(folder)) == first
  monkeypatch.undo()
  monkeypatch.setenv('RLVR_DATA_CACHE', str(cache))
  before = benchmark_hash('gsm8k', path=str(folder), split='test', params={})
  write_lines(folder / 'test.jsonl', GSM8K)
  assert load_benchmark('gsm8k', path=str(folder), split='test')['test'][0].answer == '3'
  assert prepared_splits('gsm8k', path=str(folder))['test'].folder != made['test'].folder
  assert benchmark_hash('gsm8k', path=str(folder), split='test', params={}) != before
  assert not list(cache.rglob('*incomplete*'))
  code = f"""
import sys
import rlvr_jax.tasks.load
assert 'tensorflow_datasets' not in sys.modules, 'imported before it is used'
from rlvr_jax.tasks.datasets.load import load_benchmark
print(len(load_benchmark('gsm8k', path={str(folder)!r})['train']))
assert not {{'tensorflow', 'jax', 'torch'}} & set(sys.modules)
"""
  ran = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert ran.stdout == '3\n', ran.stderr


def test_the_folder_is_a_tfds_data_set_for_anyone(tmp_path):
  tfds = pytest.importorskip('tensorflow_datasets')
  folder = prepared_splits('gsm8k', path=str(gsm8k(tmp_path / 'gsm8k')))['test'].folder
  found = tfds.builder_from_directory(folder)
  assert found.info.splits['test'].num_examples == 3
  record = found.as_data_source(split='test')[1]['problem']
  assert json.loads(record)['answer'] == '7'


def test_a_damaged_source_or_cache_is_named(tmp_path, cache):
  path = write_lines(tmp_path / 'HumanEval.jsonl.gz', [{'task_id': str(i)} for i in range(2000)])
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(ValueError, match=r'HumanEval\.jsonl\.gz.*(damaged after line|no column)'):
    load_benchmark('humaneval', path=str(path))
  path = write_lines(tmp_path / 'test.jsonl', [*GSM8K, {'question': 'cut'}])
  with pytest.raises(ValueError, match=r"test\.jsonl:4: there is no column 'answer'"):
    load_benchmark('gsm8k', path=str(path), split='test')
  assert not list((cache / 'benchmark').glob('*'))

  folder = gsm8k(tmp_path / 'gsm8k')
  load_benchmark('gsm8k', path=str(folder), split='test')
  (record,) = (cache / 'benchmark').rglob('*.array_record*')
  record.write_bytes(record.read_bytes()[:100])
  with pytest.raises(ValueError, match=r'prepared data in .* are damaged .*remove that folder'):
    load_benchmark('gsm8k', path=str(folder), split='test')


def test_messages_name_the_nearest(tmp_path):
  folder = gsm8k(tmp_path / 'gsm8k')
  with pytest.raises(ValueError, match=r"task\.name='gsm8' is not known; did you mean 'gsm8k'"):
    load.load_problems(task('gsm8'))
  with pytest.raises(ValueError, match=r"task\.split='tests': gsm8k has train, test; did you mean"):
    load.load_problems(task('gsm8k', folder, split='tests'))
  with pytest.raises(ValueError, match=r"params has \['level'\], unknown to gsm8k"):
    load.load_problems(task('gsm8k', folder, params={'level': 3}))
  with pytest.raises(ValueError, match='there is no such file or folder'):
    load.load_problems(task('gsm8k', tmp_path / 'nowhere'))
  (folder / 'train.jsonl').unlink()
  with pytest.raises(ValueError, match=r"for the split 'train': looked for train\.jsonl"):
    load.load_problems(task('gsm8k', folder, split='train'))
  with pytest.raises(ValueError, match=r"choose one of simplerl_zoo's, easy, medium, hard"):
    load.load_problems(task('simplerl_zoo', folder))
  with pytest.raises(ValueError, match='only benchmarks have that'):
    load.load_problems(task('countdown', split='test'))
  with pytest.raises(ValueError, match=r"task\.where='level=3': only benchmarks have that"):
    load.load_problems(task('countdown', where='level=3'))


class Server(http.server.SimpleHTTPRequestHandler):
  """A folder as a web server has it, and the two answers that the Hugging Face hub adds."""

  def do_HEAD(self):
    self.reply()

  def do_GET(self):
    self.reply()

  def reply(self):
    name = self.path.rpartition('/')[2]
    file = pathlib.Path(self.directory) / name
    if not file.is_file():
      self.send_error(404)
      return
    body = file.read_bytes()
    self.send_response(200)
    self.send_header('Content-Length', str(len(body) + self.server.lie))
    self.send_header('ETag', f'"{hashlib.sha256(body).hexdigest()}"')
    self.send_header('X-Repo-Commit', 'c' * 40)
    self.end_headers()
    if self.command == 'GET':
      self.wfile.write(body)

  def log_message(self, *_):
    pass


@pytest.fixture
def server(tmp_path):
  """(base URL, the folder it serves); server.lie is added to every Content-Length."""
  folder = tmp_path / 'www'
  folder.mkdir()
  handler = functools.partial(Server, directory=str(folder))
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
    running.lie = 0
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running, f'http://127.0.0.1:{running.server_port}', folder
    running.shutdown()


def test_fetching_from_a_home(server, cache):
  running, base, folder = server
  body = write_lines(folder / 'test.jsonl', GSM8K).read_bytes()
  digest = hashlib.sha256(body).hexdigest()
  source = Source('test', f'{base}/test.jsonl', ('test.jsonl',), digest)
  (found,) = sources._fetched('gsm8k', source)
  assert found.known
  assert found.path.read_bytes() == body
  (folder / 'test.jsonl').unlink()
  assert sources._fetched('gsm8k', source) == [found]  # not asked again

  with pytest.raises(OSError, match=r'404.*give a file or folder that you have by task\.path'):
    sources._fetched('gsm8k', Source('test', f'{base}/other.jsonl', (), digest))
  write_lines(folder / 'changed.jsonl', GSM8K)
  wrong = Source('test', f'{base}/changed.jsonl', (), '0' * 64)
  with pytest.raises(OSError, match=f'sha256 {digest}, where 0000'):
    sources._fetched('gsm8k', wrong)
  write_lines(folder / 'cut.jsonl', GSM8K)
  running.lie = 10
  with pytest.raises(OSError, match=r'cannot be fetched'):
    sources._fetched('gsm8k', Source('test', f'{base}/cut.jsonl', (), digest))
  with pytest.raises(OSError, match='cannot be fetched'):
    sources._fetched('gsm8k', Source('test', 'http://127.0.0.1:9/test.jsonl', (), digest))
  assert [p.name[13:] for p in (cache / 'downloads').iterdir()] == ['test.jsonl']
  copied = write_lines(folder / 'local.jsonl', GSM8K)
  (found,) = sources._fetched('gsm8k', Source('test', copied.as_uri(), (), ''))
  assert found.sha256 == digest


def test_fetching_from_the_hub(server, tmp_path):
  _, base, folder = server
  write_lines(folder / 'train.jsonl', GSM8K)
  code = f"""
import json
from rlvr_jax.tasks.datasets.sources import _fetched
from rlvr_jax.tasks.datasets.benchmark import Source
(found,) = _fetched('x', Source('train', 'hub:org/name@main/data/train.jsonl', ()))
print(found.path.read_text() == open({str(folder / 'train.jsonl')!r}).read())
try:
  _fetched('x', Source('train', 'hub:org/name@main/data/no.jsonl', ()))
except OSError as error:
  print(error)
"""
  environment = {
    'HF_ENDPOINT': base,
    'HF_HUB_OFFLINE': '0',
    'HF_HOME': str(tmp_path / 'hf'),
    'HF_HUB_DISABLE_XET': '1',
    'HF_HUB_DISABLE_PROGRESS_BARS': '1',
    'PATH': '/usr/bin:/bin',
    'RLVR_DATA_CACHE': str(tmp_path / 'cache'),
  }
  ran = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True
  )
  right, _, message = ran.stdout.partition('\n')
  assert right == 'True', ran.stderr
  assert message.startswith('hub:org/name@main/data/no.jsonl cannot be fetched (')
  assert "task.name='x'" in message

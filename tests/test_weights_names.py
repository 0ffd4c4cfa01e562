"""Models by name: directory, .gguf file, models directory, hub id; and the fingerprint."""

import pathlib
import shutil

import pytest

from rlvr_jax.models import load

GOLDENS = pathlib.Path(__file__).parent / 'goldens'


@pytest.fixture
def model(tmp_path):
  """A whole model directory: tiny random weights and a tokenizer."""
  directory = tmp_path / 'model'
  shutil.copytree(GOLDENS / 'logits' / 'qwen2_untied', directory)
  tokenizer = load.load_tokenizer(GOLDENS / 'tokenizer_qwen2.gguf')
  tokenizer.save_pretrained(directory)
  return directory


@pytest.fixture(autouse=True)
def empty_shelf(tmp_path, monkeypatch):
  monkeypatch.setenv('RLVR_MODELS', str(tmp_path / 'shelf'))
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))


def hub_cache(root, name, source):
  """The layout that huggingface_hub leaves behind after a download of `name` at main."""
  repo = root / f'models--{name.replace("/", "--")}'
  revision = '0123456789abcdef0123456789abcdef01234567'
  (repo / 'refs').mkdir(parents=True)
  (repo / 'refs' / 'main').write_text(revision)
  shutil.copytree(source, repo / 'snapshots' / revision)
  return repo / 'snapshots' / revision


def test_directory_loads_whole(model):
  config, params, tokenizer = load.load_model(model, dtype='bfloat16')
  assert (config.architecture, config.eos_ids) == ('qwen2', (2, 5))
  assert params['embed'].dtype == 'bfloat16'
  assert tokenizer.eos_ids[:2] == (2, 5)
  assert tokenizer.decode(tokenizer.encode('for 7 in x:')) == 'for 7 in x:'
  assert load.load_config(model) == config
  assert load.load_tokenizer(str(model)).eos_ids == tokenizer.eos_ids


def test_gguf_by_path_by_directory_and_from_the_shelf(tmp_path, monkeypatch):
  source = GOLDENS / 'tokenizer_smollm.gguf'
  shelf = tmp_path / 'shelf'
  shelf.mkdir()
  shutil.copy(source, shelf / 'small.gguf')
  for name in (shelf / 'small.gguf', shelf, 'small.gguf', 'small'):
    found = load.resolve(name)
    assert (found.kind, found.path.name) == ('gguf', 'small.gguf')
  monkeypatch.chdir(shelf)
  assert load.resolve('small.gguf').path == pathlib.Path('small.gguf')
  config = load.load_config('small')
  assert (config.architecture, config.num_layers) == ('llama', 1)
  assert load.load_tokenizer('small').vocab_size == config.vocab_size
  shutil.copy(source, shelf / 'other.gguf')
  with pytest.raises(ValueError, match=r'holds 2 .gguf files \(other.gguf, small.gguf\); name one'):
    load.resolve(shelf)


def test_hub_id_from_the_local_cache(tmp_path, model):
  snapshot = hub_cache(tmp_path / 'hub', 'org/tiny', model)
  source = load.resolve('org/tiny')
  assert (source.kind, source.path, source.name) == ('hf', snapshot, 'org/tiny')
  config, params, _ = load.load_model('org/tiny')
  assert params['embed'].shape == (config.vocab_size, config.embed_dim)
  assert load.load_config('org/tiny') == config


def test_hub_fetch_asks_only_for_what_is_needed(monkeypatch, model):
  asked = []

  def snapshot(name, *, allow_patterns):
    asked.append((name, set(allow_patterns)))
    return str(model)

  monkeypatch.setattr('huggingface_hub.snapshot_download', snapshot)
  load.load_config('org/tiny')
  load.load_tokenizer('org/tiny')
  load.load_model('org/tiny')
  config, tokenizer, whole = (patterns for _, patterns in asked)
  processor = {'preprocessor_config.json', 'processor_config.json'}
  assert config == {'config.json', 'generation_config.json'} | processor
  assert 'tokenizer.json' in tokenizer
  assert not any('safetensors' in p for p in tokenizer)
  assert config < tokenizer < whole


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('no-such-model', r"model='no-such-model' is neither.*RLVR_MODELS"),
    ('missing.gguf', r"model='missing.gguf' is neither"),
    ('/no/such/dir', r'is neither a directory'),
    ('org/not-there', r'the hub gave: .*hf download org/not-there'),
  ],
)
def test_not_found_says_what_to_do(name, message):
  with pytest.raises(ValueError, match=message):
    load.resolve(name)


def test_a_directory_or_file_that_is_no_model(tmp_path):
  (tmp_path / 'a.bin').touch()
  with pytest.raises(ValueError, match=r'neither a config\.json nor a \.gguf'):
    load.resolve(tmp_path)
  with pytest.raises(ValueError, match=r'is a file but no \.gguf'):
    load.resolve(tmp_path / 'a.bin')


def test_fingerprint_is_of_the_content(tmp_path, model):
  first = load.fingerprint(model)
  copy = tmp_path / 'elsewhere'
  shutil.copytree(model, copy)
  (copy / 'README.md').write_text('of no consequence')
  assert load.fingerprint(copy) == first
  weights = copy / 'model.safetensors'
  content = bytearray(weights.read_bytes())
  content[-1] ^= 1
  weights.write_bytes(content)
  assert load.fingerprint(copy) != first
  a = load.fingerprint(GOLDENS / 'tokenizer_smollm.gguf')
  shutil.copy(GOLDENS / 'tokenizer_smollm.gguf', tmp_path / 'renamed.gguf')
  assert load.fingerprint(tmp_path / 'renamed.gguf') == a != first

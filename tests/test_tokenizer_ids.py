"""Token ids are HF's, on a multilingual, code and maths corpus and whatever the route in."""

import itertools
import pathlib
import pickle
import unicodedata

import gguf
import numpy as np
import pytest

from rlvr_jax.models.gguf import GGUFFile
from rlvr_jax.models.load import models_dir
from rlvr_jax.models.tokenizer import gguf_tokenizer, read_tokenizer

GOLDENS = pathlib.Path(__file__).parent / 'goldens'
CORPUS = pathlib.Path(__file__).parent / 'fixtures' / 'corpus_500.txt'
FAMILIES = ('qwen2', 'smollm', 'llama3')


def texts():
  lines = CORPUS.read_bytes().decode().split('\n')[:-1]
  assert len(lines) == 500
  blocks = [lines[i : i + 10] for i in range(0, len(lines), 10)]
  return lines + ['\n'.join(b) for b in blocks] + ['\r\n'.join(b) for b in blocks]


def golden(family):
  """The oracle's ids for every text, and the real model's id for each small id."""
  with np.load(GOLDENS / f'tokenizer_{family}.npz') as stored:
    parts = np.split(stored['ids'], np.cumsum(stored['lengths'])[:-1])
    return [p.tolist() for p in parts], stored['real']


def small(family):
  return gguf_tokenizer(GGUFFile(GOLDENS / f'tokenizer_{family}.gguf'))


@pytest.mark.parametrize('family', FAMILIES)
def test_ids_equal_the_oracle(family):
  tokenizer = small(family)
  expected, _ = golden(family)
  for text, ids in zip(texts(), expected, strict=True):
    assert tokenizer.encode(text, special=False) == ids, text


@pytest.mark.check
@pytest.mark.parametrize(
  ('family', 'name'), [('qwen2', 'qwen2.5-coder-0.5b'), ('smollm', 'smollm2-135m')]
)
def test_ids_of_the_real_vocabulary(family, name):
  path = models_dir() / f'{name}.gguf'
  if not path.exists():
    pytest.skip(f'{name}.gguf is not in {models_dir()}')
  tokenizer = gguf_tokenizer(GGUFFile(path))
  expected, real = golden(family)
  for text, ids in zip(texts(), expected, strict=True):
    assert tokenizer.encode(text) == real[ids].tolist(), text


@pytest.mark.parametrize('family', FAMILIES)
def test_decoding_gives_the_text_back(family):
  tokenizer = small(family)
  for text in texts():
    kept = unicodedata.normalize('NFC', text) if family == 'qwen2' else text
    ids = tokenizer.encode(text, special=False)
    assert tokenizer.decode(ids, skip_special=False) == (
      kept if family != 'qwen2' else _nfc_between_specials(tokenizer, text)
    )


def _nfc_between_specials(tokenizer, text):
  """Added tokens are cut out before the rest is normalised, piece by piece."""
  for token in tokenizer.hf.added_tokens_encoder:
    if token in text:
      return token.join(_nfc_between_specials(tokenizer, part) for part in text.split(token))
  return unicodedata.normalize('NFC', text)


@pytest.mark.parametrize('family', FAMILIES)
def test_directory_and_pickle_keep_the_ids(family, tmp_path):
  tokenizer = small(family)
  tokenizer.save_pretrained(tmp_path)
  routes = [read_tokenizer(tmp_path), pickle.loads(pickle.dumps(tokenizer))]
  messages = [{'role': 'user', 'content': 'Is 7 prime?'}]
  for other in routes:
    for text in texts()[::7]:
      assert other.encode(text) == tokenizer.encode(text)
    assert other.chat(messages) == tokenizer.chat(messages)
  assert routes[0].eos_ids == tokenizer.eos_ids[:1]


def test_chat_and_special_tokens():
  tokenizer = small('smollm')
  messages = [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': 'What is 2+2?'},
  ]
  text = (
    '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 2+2?<|im_end|>\n'
    '<|im_start|>assistant\n'
  )
  assert tokenizer.chat(messages) == text
  ids = tokenizer.encode_chat(messages)
  start, end = (tokenizer.hf.convert_tokens_to_ids(t) for t in ('<|im_start|>', '<|im_end|>'))
  assert (ids.count(start), ids.count(end)) == (3, 2)
  assert tokenizer.decode(ids, skip_special=False) == text
  assert tokenizer.decode(ids).startswith('system\nBe brief.\nuser')
  assert tokenizer.eos_ids[0] == end
  assert not tokenizer.chat(messages, generate=False).endswith('assistant\n')
  tokenizer.hf.chat_template = None
  with pytest.raises(ValueError, match='no chat template'):
    tokenizer.chat(messages)


def test_bos_only_where_the_header_asks():
  llama, qwen = small('llama3'), small('qwen2')
  assert llama.encode('a b') == [llama.hf.bos_token_id, *llama.encode('a b', special=False)]
  assert qwen.encode('a b') == qwen.encode('a b', special=False)
  assert llama.encode_chat([{'role': 'user', 'content': 'x'}])[0] != llama.hf.bos_token_id


def test_half_a_character_decodes_to_a_replacement():
  tokenizer = small('smollm')
  ids = tokenizer.encode('\U0001d7cf')  # a bold 1
  assert len(ids) > 1
  assert '�' in tokenizer.decode(ids[:1])


def write_sentencepiece(path):
  """A LLaMA-2 style file: frequent pieces of the corpus with scores, byte tokens, BOS on."""
  lines = [line.replace(' ', '▁') for line in texts()[:500]]
  counts = {}
  for line, size in itertools.product(lines, (1, 2, 3, 4)):
    for i in range(len(line) - size + 1):
      counts[line[i : i + size]] = counts.get(line[i : i + size], 0) + 1
  frequent = sorted(counts, key=lambda p: (-counts[p] * len(p), p))
  pieces = [p for p in frequent if len(p) == 1][:200] + [p for p in frequent if len(p) > 1][:800]
  tokens = ['<unk>', '<s>', '</s>'] + [f'<0x{b:02X}>' for b in range(256)] + pieces
  kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
  scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_tokenizer_model('llama')
  writer.add_token_list(tokens)
  writer.add_token_types(kinds)
  writer.add_token_scores(scores)
  writer.add_bos_token_id(1)
  writer.add_eos_token_id(2)
  writer.add_unk_token_id(0)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  return tokens, dict(zip(pieces, scores[259:], strict=True))


def sentencepiece_ids(text, tokens, scores):
  """SentencePiece's BPE as its paper says it: always join the adjacent pair of best score."""
  parts = list('▁' + text.replace(' ', '▁'))
  while True:
    pairs = [(scores.get(a + b, -np.inf), -i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
    if not pairs or max(pairs)[0] == -np.inf:
      break
    i = -max(pairs)[1]
    parts[i : i + 2] = [parts[i] + parts[i + 1]]
  index = {t: n for n, t in enumerate(tokens)}
  bytewise = [[p] if p in index else [f'<0x{b:02X}>' for b in p.encode()] for p in parts]
  return [index[t] for ts in bytewise for t in ts]


def test_sentencepiece_by_scores(tmp_path):
  tokens, scores = write_sentencepiece(tmp_path / 'spm.gguf')
  tokenizer = gguf_tokenizer(GGUFFile(tmp_path / 'spm.gguf'))
  for text in texts()[:500]:
    if text:
      ids = tokenizer.encode(text)
      assert ids[0] == 1
      assert ids[1:] == sentencepiece_ids(text, tokens, scores), text
      assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
  ('model', 'pre', 'message'),
  [
    ('gpt2', 'my-pre', r"pre='my-pre' is not known"),
    ('bert', 'x', r"model='bert' is not known"),
  ],
)
def test_unknown_tokenizers_are_refused(tmp_path, model, pre, message):
  writer = gguf.GGUFWriter(tmp_path / 'a.gguf', 'qwen2')
  writer.add_tokenizer_model(model)
  writer.add_tokenizer_pre(pre)
  writer.add_token_list(['a', 'b', 'ab'])
  writer.add_token_merges(['a b'])
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  with pytest.raises(ValueError, match=message):
    gguf_tokenizer(GGUFFile(tmp_path / 'a.gguf'))


def test_directory_without_tokenizer_says_so(tmp_path):
  with pytest.raises(ValueError, match='has no tokenizer'):
    read_tokenizer(tmp_path)
  (tmp_path / 'tokenizer.json').write_text('{"model": ')
  with pytest.raises(ValueError, match='cannot be built'):
    read_tokenizer(tmp_path)

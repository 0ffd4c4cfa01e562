"""Makes tokenizer_{qwen2,smollm,llama3}.gguf and .npz from the two real models.

  python tests/goldens/make_tokenizers.py QWEN2.gguf SMOLLM2.gguf

Qwen2.5-Coder-0.5B-Instruct and SmolLM2-135M-Instruct (both Apache-2.0, the Qwen team and Hugging
Face) give vocabulary, merges and chat template. The ids are made by the plain-Python byte-pair
encoder below, which shares no code with the tokenizers library, and have to agree with what HF's
own Qwen2Tokenizer says. The small GGUF files hold only the merges that the corpus ever applies: a
merge that never was the best applicable one changes nothing when it goes. llama3 is Qwen's
vocabulary under LLaMA-3's rules. The .npz has ids (all texts, flat, of the small vocabulary),
lengths, and real (small id -> id in the real model). Needs the `regex` package.
"""

import functools
import itertools
import pathlib
import sys
import unicodedata

import gguf
import numpy as np
import regex

HERE = pathlib.Path(__file__).parent
CORPUS = HERE.parent / 'fixtures' / 'corpus_500.txt'
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
QWEN2 = (
  r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"""
  r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
LLAMA3 = (
  r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"""
  r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)


def texts() -> list[str]:
  """The 500 lines, then blocks of ten joined by '\n' and by '\r\n'."""
  lines = CORPUS.read_bytes().decode().split('\n')[:-1]
  blocks = [lines[i : i + 10] for i in range(0, len(lines), 10)]
  return lines + ['\n'.join(b) for b in blocks] + ['\r\n'.join(b) for b in blocks]


def byte_letters() -> dict[int, str]:
  """GPT-2's printable stand-in for each byte."""
  plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  rest = [b for b in range(256) if b not in plain]
  return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


class Oracle:
  """Byte-level BPE in plain Python; records every token its merges passed through."""

  def __init__(self, tokens, merges, added, pre):
    self.ids = {t: i for i, t in enumerate(tokens)}
    self.ranks = {tuple(m.split(' ')): r for r, m in enumerate(merges)}
    self.added, self.pre = set(added), pre
    longest_first = sorted(map(regex.escape, added), key=len, reverse=True)
    self.added_pattern = regex.compile('(' + '|'.join(longest_first) + ')')
    self.letters = byte_letters()
    self.used_merges, self.used_tokens = set(), set(self.letters.values())

  def pieces(self, text):
    if self.pre == 'smollm':
      for part in regex.split(r'(\p{N})', text):
        yield from regex.findall(GPT2, part)
    elif self.pre == 'qwen2':
      yield from regex.findall(QWEN2, unicodedata.normalize('NFC', text))
    else:
      yield from regex.findall(LLAMA3, text)

  @functools.cache  # noqa: B019
  def word(self, piece):
    parts = [self.letters[b] for b in piece.encode()]
    if self.pre == 'llama3' and ''.join(parts) in self.ids:
      parts = [''.join(parts)]
    while len(parts) > 1:
      ranked = [(self.ranks.get(p, np.inf), i) for i, p in enumerate(itertools.pairwise(parts))]
      rank, i = min(ranked)
      if rank == np.inf:
        break
      self.used_merges.add((parts[i], parts[i + 1]))
      parts[i : i + 2] = [parts[i] + parts[i + 1]]
      self.used_tokens.add(parts[i])
    self.used_tokens.update(parts)
    return parts

  def encode(self, text):
    out = []
    for segment in self.added_pattern.split(text):
      if segment in self.added:
        out.append(segment)
        continue
      for piece in self.pieces(segment):
        out += self.word(piece)
    return out


def header(path):
  reader = gguf.GGUFReader(path)
  return {name: field.contents() for name, field in reader.fields.items()}


def write(name, meta, oracle, encoded, pre, bos):
  """The reduced GGUF and its golden ids."""
  tokens, kinds = meta['tokenizer.ggml.tokens'], meta['tokenizer.ggml.token_type']
  keep = [i for i, t in enumerate(tokens) if t in oracle.used_tokens or t in oracle.added]
  small = {tokens[i]: n for n, i in enumerate(keep)}
  merges = sorted(oracle.used_merges, key=oracle.ranks.__getitem__)
  writer = gguf.GGUFWriter(HERE / f'tokenizer_{name}.gguf', 'qwen2' if name == 'qwen2' else 'llama')
  for add, value in (
    (writer.add_name, f'vocabulary of a test corpus, {name} rules'),
    (writer.add_license, 'apache-2.0'),
    (writer.add_block_count, 1),
    (writer.add_context_length, 512),
    (writer.add_embedding_length, 16),
    (writer.add_feed_forward_length, 32),
    (writer.add_head_count, 2),
    (writer.add_tokenizer_model, 'gpt2'),
    (writer.add_tokenizer_pre, pre),
    (writer.add_token_list, [tokens[i] for i in keep]),
    (writer.add_token_types, [int(kinds[i]) for i in keep]),
    (writer.add_token_merges, [' '.join(m) for m in merges]),
    (writer.add_bos_token_id, small[tokens[meta['tokenizer.ggml.bos_token_id']]]),
    (writer.add_eos_token_id, small[tokens[meta['tokenizer.ggml.eos_token_id']]]),
    (writer.add_pad_token_id, small[tokens[meta['tokenizer.ggml.padding_token_id']]]),
    (writer.add_add_bos_token, bos),
    (writer.add_chat_template, meta['tokenizer.chat_template']),
  ):
    add(value)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  ids = [np.array([small[t] for t in e], np.uint16) for e in encoded]
  np.savez_compressed(
    HERE / f'tokenizer_{name}.npz',
    ids=np.concatenate(ids),
    lengths=np.array([len(i) for i in ids], np.uint16),
    real=np.array(keep, np.int32),
  )
  print(name, len(keep), 'tokens', len(merges), 'merges', sum(map(len, ids)), 'ids')


def compare(name, hf, oracle, encoded):
  """Prints where another tokenizer differs from the oracle; returns whether it agrees."""
  wrong = 0
  for text, tokens in zip(texts(), encoded, strict=True):
    if hf.encode(text, add_special_tokens=False) != [oracle.ids[t] for t in tokens]:
      wrong += 1
      if wrong < 4:
        print(f'  {name} differs on {text[:60]!r}')
  print(f'{name}: {len(encoded) - wrong} of {len(encoded)} texts agree')
  return not wrong


def main(qwen_path, smol_path):
  from transformers import AutoTokenizer, Qwen2Tokenizer

  for name, path, pre in (
    ('qwen2', qwen_path, 'qwen2'),
    ('smollm', smol_path, 'smollm'),
    ('llama3', qwen_path, 'llama-bpe'),
  ):
    meta = header(path)
    tokens = meta['tokenizer.ggml.tokens']
    kinds = np.array(meta['tokenizer.ggml.token_type'])
    added = [tokens[i] for i in np.flatnonzero((kinds == 3) | (kinds == 4))]
    merges = meta['tokenizer.ggml.merges']
    oracle = Oracle(tokens, merges, added, name)
    encoded = [oracle.encode(text) for text in texts()]
    write(name, meta, oracle, encoded, pre, bos=name == 'llama3')
    if name == 'qwen2':
      hf = Qwen2Tokenizer(oracle.ids, [tuple(m.split(' ')) for m in merges])
      hf.add_tokens(added)
      assert compare('HF Qwen2Tokenizer', hf, oracle, encoded)
    if name != 'llama3':
      path = pathlib.Path(path)
      hf = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
      # for the record only: this route leaves out Qwen2's NFC and SmolLM's single digits
      compare(f'HF {name} by gguf_file=', hf, oracle, encoded)


if __name__ == '__main__':
  main(*sys.argv[1:])

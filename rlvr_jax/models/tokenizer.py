"""Fast tokenizers from a model directory or from a GGUF file's metadata; text <-> token ids."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from gguf import TokenType
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from rlvr_jax.models.gguf import GGUFFile, stop_ids

# How text is cut before byte-pair merging; the expressions the models were published with.
_QWEN2_SPLIT = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
  r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)
_LLAMA3_SPLIT = _QWEN2_SPLIT.replace(r'\p{N}|', r'\p{N}{1,3}|', 1)
_SPLITS = {
  'qwen2': _QWEN2_SPLIT,
  'deepseek-r1-qwen': _QWEN2_SPLIT,
  'llama-bpe': _LLAMA3_SPLIT,
  'llama3': _LLAMA3_SPLIT,
}
_NFC = ('qwen2', 'deepseek-r1-qwen')  # these normalise text to Unicode's NFC first
_GPT2_LIKE = ('gpt-2', 'gpt2', 'default', 'smollm')


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """Text to ids and back, exactly as the model's own HF tokenizer does it.

  hf is the underlying fast tokenizer; eos_ids are the ids at which sampling stops.
  """

  hf: PreTrainedTokenizerFast
  eos_ids: tuple[int, ...]

  @property
  def vocab_size(self) -> int:
    """Ids the tokenizer knows, added tokens included; a model's vocabulary may be padded beyond."""
    return len(self.hf)

  @property
  def pad_id(self) -> int:
    """An id to fill padding with: the tokenizer's pad token, else the first stop id, else 0."""
    pad: Any = self.hf.pad_token_id
    if pad is not None:
      return int(pad)
    return self.eos_ids[0] if self.eos_ids else 0

  def encode(self, text: str, *, special: bool = True) -> list[int]:
    """Ids of a text. special adds what the tokenizer adds by itself (a BOS for LLaMA)."""
    return self.hf.encode(text, add_special_tokens=special)

  def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
    """Text of ids, byte for byte (no clean-up of spaces); skip_special leaves control tokens out.

    Bytes that are no UTF-8 (a token sampled in the middle of a character) become U+FFFD.
    """
    text = self.hf.decode(
      [int(i) for i in ids],
      skip_special_tokens=skip_special,
      clean_up_tokenization_spaces=False,
    )
    assert isinstance(text, str)
    return text

  def chat(self, messages: Sequence[Mapping[str, str]], *, generate: bool = True) -> str:
    """Messages ({'role', 'content'}) through the model's chat template, as text.

    generate ends with the opening of the assistant's turn. ValueError if there is no template.
    """
    if not self.hf.chat_template:
      raise ValueError(
        'this tokenizer has no chat template (a base model?): give the prompt as text, or set '
        'chat_template in tokenizer_config.json'
      )
    text = self.hf.apply_chat_template(
      [dict(m) for m in messages], tokenize=False, add_generation_prompt=generate
    )
    assert isinstance(text, str)
    return text

  def encode_chat(
    self, messages: Sequence[Mapping[str, str]], *, generate: bool = True
  ) -> list[int]:
    """Ids of `chat`; the template writes its own BOS, so none is added."""
    return self.encode(self.chat(messages, generate=generate), special=False)

  def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
    """Writes tokenizer.json, tokenizer_config.json and the chat template, as HF does."""
    self.hf.save_pretrained(os.fspath(directory))


def read_tokenizer(
  directory: str | os.PathLike[str], eos_ids: Sequence[int] | None = None
) -> Tokenizer:
  """The tokenizer of a model directory; eos_ids default to its own eos token.

  tokenizer.json is taken as it stands, whatever class tokenizer_config.json names; without it
  the class is asked to build one from its vocabulary files. Raises ValueError if neither works.
  """
  directory = pathlib.Path(directory)
  known = ('tokenizer.json', 'tokenizer.model', 'vocab.json')
  if not any((directory / name).is_file() for name in known):
    raise ValueError(f'{directory} has no tokenizer: none of {", ".join(known)}')
  family = PreTrainedTokenizerFast if (directory / 'tokenizer.json').is_file() else AutoTokenizer
  try:
    hf: Any = family.from_pretrained(os.fspath(directory), local_files_only=True)
  except (OSError, ValueError, KeyError, ImportError) as error:
    raise ValueError(f'{directory}: the tokenizer cannot be built: {error}') from error
  if not isinstance(hf, PreTrainedTokenizerFast):
    raise ValueError(f'{directory}: {type(hf).__name__} is no fast tokenizer; add a tokenizer.json')
  eos: Any = hf.eos_token_id
  own = () if eos is None else (int(eos),)
  return Tokenizer(hf, own if eos_ids is None else tuple(eos_ids))


def gguf_tokenizer(file: GGUFFile) -> Tokenizer:
  """The fast tokenizer that a GGUF file's metadata describes, with its chat template.

  Raises ValueError for a tokenizer model or pre-tokenizer we do not know.
  """
  model = file.value('tokenizer.ggml.model')
  if model not in ('gpt2', 'llama'):
    raise ValueError(
      f'{file.origin}: tokenizer.ggml.model={model!r} is not known (gpt2, llama); name a directory '
      'with the tokenizer.json of this model instead'
    )
  tokens: list[str] = file.value('tokenizer.ggml.tokens')
  kinds: list[int] = file.value('tokenizer.ggml.token_type') or [TokenType.NORMAL] * len(tokens)
  backend = _byte_level(file, tokens) if model == 'gpt2' else _sentencepiece(file, tokens, kinds)
  for text, kind in zip(tokens, kinds, strict=True):
    if kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
      special = kind == TokenType.CONTROL
      backend.add_tokens([AddedToken(text, normalized=False, special=special)])
  _check_ids(file, backend, tokens)
  named = {
    f'{role}_token': tokens[index]
    for role, key in (('bos', 'bos'), ('eos', 'eos'), ('unk', 'unknown'), ('pad', 'padding'))
    if (index := file.value(f'tokenizer.ggml.{key}_token_id')) is not None
  }
  _add_automatic(file, backend, tokens, default_bos=model == 'llama')
  hf = PreTrainedTokenizerFast(
    tokenizer_object=backend,
    **{'bos_token': None, 'eos_token': None, **named},
    model_max_length=file.value(f'{file.value("general.architecture")}.context_length', 1 << 30),
    clean_up_tokenization_spaces=False,
  )
  hf.chat_template = file.value('tokenizer.chat_template')
  return Tokenizer(hf, stop_ids(file))


def _merges(file: GGUFFile) -> list[tuple[str, str]]:
  pairs = [tuple(merge.split(' ')) for merge in file.value('tokenizer.ggml.merges', [])]
  if not pairs or any(len(pair) != 2 for pair in pairs):
    raise ValueError(f'{file.origin}: tokenizer.ggml.merges is missing or not pairs of tokens')
  return [(a, b) for a, b in pairs]


def _byte_level(file: GGUFFile, tokens: list[str]) -> tokenizers.Tokenizer:
  """GPT-2's byte-level BPE, with the splitting that tokenizer.ggml.pre names."""
  pre = file.value('tokenizer.ggml.pre', 'default')
  if pre not in _SPLITS and pre not in _GPT2_LIKE:
    raise ValueError(
      f'{file.origin}: tokenizer.ggml.pre={pre!r} is not known '
      f'({", ".join(sorted((*_SPLITS, *_GPT2_LIKE)))}); name a directory with the tokenizer.json '
      'of this model instead'
    )
  vocab = {text: index for index, text in enumerate(tokens)}
  # LLaMA-3's own tokenizer takes a word that is a token whole, whatever the merges say
  whole = pre in ('llama-bpe', 'llama3')
  backend = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocab=vocab, merges=_merges(file), ignore_merges=whole)
  )
  if pre in _NFC:
    backend.normalizer = normalizers.NFC()
  if pre in _SPLITS:
    split: Any = pre_tokenizers.Split(Regex(_SPLITS[pre]), behavior='isolated')
    steps: list[Any] = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
  else:
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    if pre == 'smollm':
      steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
  backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
  backend.decoder = decoders.ByteLevel()
  return backend


def _sentencepiece(file: GGUFFile, tokens: list[str], kinds: list[int]) -> tokenizers.Tokenizer:
  """LLaMA-2's SentencePiece BPE: merges implied by the scores, bytes for unknown characters."""
  scores: list[float] = file.value('tokenizer.ggml.scores', [])
  if len(scores) != len(tokens):
    raise ValueError(f'{file.origin}: {len(scores)} tokenizer.ggml.scores for {len(tokens)} tokens')
  vocab = {text: index for index, text in enumerate(tokens)}
  pieces = {t: i for t, i in vocab.items() if kinds[i] == TokenType.NORMAL}
  merges = generate_merges(pieces, dict(zip(tokens, scores, strict=True)))
  unknown = tokens[file.value('tokenizer.ggml.unknown_token_id', 0)]
  backend = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
  )
  prefix = file.value('tokenizer.ggml.add_space_prefix', True)
  backend.normalizer = normalizers.Sequence(
    ([normalizers.Prepend('▁')] if prefix else []) + [normalizers.Replace(' ', '▁')]
  )
  steps: list[Any] = [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()]
  if prefix:
    steps.append(decoders.Strip(content=' ', left=1))
  backend.decoder = decoders.Sequence(steps)
  return backend


def _add_automatic(
  file: GGUFFile, backend: tokenizers.Tokenizer, tokens: list[str], *, default_bos: bool
) -> None:
  """BOS and EOS round every encoded text, where the header asks for them."""
  wanted = []
  for role, default in (('bos', default_bos), ('eos', False)):
    index = file.value(f'tokenizer.ggml.{role}_token_id')
    add = file.value(f'tokenizer.ggml.add_{role}_token', default)
    wanted.append((tokens[index], index) if add and index is not None else None)
  bos, eos = wanted
  if bos is None and eos is None:
    return
  single = [bos[0]] if bos else []
  single += ['$A', *([eos[0]] if eos else [])]
  pair = single + [part.replace('$A', '$B') for part in single]
  specials = list(dict.fromkeys(w for w in wanted if w))
  template = processors.TemplateProcessing(
    single=' '.join(single),
    pair=' '.join(f'{p}:1' if '$B' in p else p for p in pair),
    special_tokens=specials,
  )
  backend.post_processor = template


def _check_ids(file: GGUFFile, backend: tokenizers.Tokenizer, tokens: list[str]) -> None:
  """Added tokens must have kept the ids the model was trained with."""
  if backend.get_vocab_size() != len(set(tokens)):
    raise ValueError(
      f'{file.origin}: {backend.get_vocab_size()} ids from {len(tokens)} tokens: the token list of '
      'the header is inconsistent; use the tokenizer.json of this model'
    )

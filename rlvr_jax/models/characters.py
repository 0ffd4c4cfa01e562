"""A tokenizer of single characters, for models trained from scratch on a small alphabet."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

EOS, PAD = '<eos>', '<pad>'


def char_tokenizer(alphabet: str) -> PreTrainedTokenizerFast:
  """One token a character of `alphabet`, after <pad> (id 0) and <eos> (id 1).

  A fast tokenizer like any other: it saves to and loads from a directory. Characters outside the
  alphabet are refused by `encode` with a ValueError from the tokenizer's model (there is no <unk>).
  """
  vocabulary = {token: i for i, token in enumerate([PAD, EOS, *alphabet])}
  if len(vocabulary) != len(alphabet) + 2:
    raise ValueError(f'alphabet {alphabet!r} repeats a character')
  core = Tokenizer(models.WordLevel(vocabulary))
  core.pre_tokenizer = pre_tokenizers.Split(Regex('.'), 'isolated')
  core.decoder = decoders.Fuse()
  return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS, pad_token=PAD)

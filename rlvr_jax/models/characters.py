"""A tokenizer of single characters, for models trained from scratch on a small alphabet."""

from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Core
from transformers import PreTrainedTokenizerFast

from rlvr_jax.models.tokenizer import Tokenizer

EOS, PAD = '<eos>', '<pad>'
EOS_ID = 1
START, END = '<|vision_start|>', '<|vision_end|>'
IMAGE, VIDEO = '<|image_pad|>', '<|video_pad|>'


def char_tokenizer(alphabet: str, *, images: bool = False) -> Tokenizer:
  """One token a character of `alphabet`, after <pad> (id 0) and <eos> (id 1).

  images: behind the alphabet are the tokens with which Qwen2.5-VL writes an image.

  A fast tokenizer like any other: it saves to and loads from a directory. There is no <unk>: a
  character outside the alphabet makes `encode` fail.
  """
  vocabulary = {token: i for i, token in enumerate([PAD, EOS, *alphabet])}
  if len(vocabulary) != len(alphabet) + 2:
    raise ValueError(f'alphabet {alphabet!r} repeats a character')
  core = Core(models.WordLevel(vocabulary))
  core.pre_tokenizer = pre_tokenizers.Split(Regex('.'), 'isolated')
  core.decoder = decoders.Fuse()
  hf = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS, pad_token=PAD)
  if images:
    hf.add_special_tokens({'additional_special_tokens': [START, END, IMAGE, VIDEO]})
  return Tokenizer(hf, (EOS_ID,))

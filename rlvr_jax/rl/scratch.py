"""The shape of a model that is made from model.init, for tasks with an alphabet of their own."""

from typing import Any

from rlvr_jax.config import Config
from rlvr_jax.models.characters import END, IMAGE, START, VIDEO, char_tokenizer
from rlvr_jax.models.config import ModelConfig, VisionConfig
from rlvr_jax.models.hf_vision import ARCHITECTURE
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.tasks.load import family


def from_scratch(config: Config) -> tuple[ModelConfig, Tokenizer]:
  """Shape and tokenizer where model.name=''; ValueError for a task that has no alphabet."""
  own = family(config.task)
  if own is None:
    raise ValueError(
      f"model.name='' makes a model from scratch, which task.name={config.task.name!r} has no "
      'alphabet for; name a model (directory, .gguf or hub id)'
    )
  init = config.model.init.to_dict()
  tower, sees = init.pop('vision'), init['architecture'] == ARCHITECTURE
  tokenizer = char_tokenizer(own.ALPHABET, images=sees)
  init['vocab_size'] = init['vocab_size'] or tokenizer.vocab_size
  if sees:
    init |= _seeing(tokenizer, init, tower)
  model_config = ModelConfig(
    **init,
    qkv_bias=sees or init['architecture'] == 'qwen2',
    qk_norm=init['architecture'] == 'qwen3',
    max_positions=config.sampling.prompt_capacity + config.sampling.max_tokens,
    eos_ids=tokenizer.eos_ids,
    attention_impl=config.model.attention_impl,
  )
  return model_config, tokenizer


def _seeing(
  tokenizer: Tokenizer, init: dict[str, Any], tower: dict[str, Any]
) -> dict[str, VisionConfig | tuple[int, int, int]]:
  """ModelConfig's vision and mrope; frequencies are shared out as Qwen2.5-VL does, 2 : 3 : 3."""
  half = init['head_dim'] // 2
  frame = half // 4
  ids: Any = tokenizer.hf.convert_tokens_to_ids([START, IMAGE, END, VIDEO])
  names = ('start_id', 'image_id', 'end_id', 'video_id')
  vision = VisionConfig(
    **tower | {'full_layers': tuple(tower['full_layers'])},
    out_dim=init['embed_dim'],
    **dict(zip(names, ids, strict=True)),
  )
  return {
    'vision': vision,
    'mrope': (frame, (half - frame) // 2, half - frame - (half - frame) // 2),
  }

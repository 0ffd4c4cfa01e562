"""The shape of a model that is made from model.init, for tasks with an alphabet of their own."""

from rlvr_jax.config import Config
from rlvr_jax.models.characters import char_tokenizer
from rlvr_jax.models.config import ModelConfig
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
  tokenizer = char_tokenizer(own.ALPHABET)
  init = config.model.init.to_dict()
  init['vocab_size'] = init['vocab_size'] or tokenizer.vocab_size
  qwen2 = init['architecture'] == 'qwen2'
  model_config = ModelConfig(
    **init,
    qkv_bias=qwen2,
    qk_norm=init['architecture'] == 'qwen3',
    max_positions=config.sampling.prompt_capacity + config.sampling.max_tokens,
    eos_ids=tokenizer.eos_ids,
    attention_impl=config.model.attention_impl,
  )
  return model_config, tokenizer

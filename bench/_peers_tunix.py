"""tunix's Sampler as a peer: one jitted while-loop a batch, on the same arrays as ours."""

import dataclasses
import importlib
import importlib.metadata
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import Params


class _Ids:
  """A tokenizer for prompts that are token ids already; pad is an id that no prompt has."""

  def __init__(self, pad: int):
    self._pad = pad

  def encode(self, text: str) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, ids: list[int]) -> str:
    return ' '.join(map(str, ids))

  def bos_id(self) -> int:
    return 0  # none: tunix puts none in front then

  def eos_id(self) -> int:
    return -1

  def pad_id(self) -> int:
    return self._pad


def _state(params: Params, config: ModelConfig) -> dict[str, Any]:
  """Our arrays (sampler's form) under tunix's names; only biases are reshaped."""

  def layer(p: Params) -> dict[str, Any]:
    attn: dict[str, Any] = {f'{n}_proj': {'w': p[n]} for n in ('q', 'k', 'v', 'o')}
    attn |= {f'{n}_bias': p[f'{n}_bias'].reshape(-1) for n in ('q', 'k', 'v')}
    return {
      'attn': attn,
      'mlp': {f'{n}_proj': {'kernel': p[n]} for n in ('gate', 'up', 'down')},
      'input_layernorm': {'w': p['attn_norm']},
      'post_attention_layernorm': {'w': p['mlp_norm']},
    }

  state = {
    'embedder': {'input_embedding': params['embed']},
    'layers': {i: layer(p) for i, p in enumerate(params['layers'])},
    'final_norm': {'w': params['final_norm']},
  }
  if not config.tie_embeddings:
    state['lm_head'] = {'w': params['head'].T}
  return state


class TunixPeer:
  """tunix's Qwen2 and Sampler over params in the sampler's form (no copy is made)."""

  def __init__(self, params: Params, config: ModelConfig, *, cache_size: int):
    if config.architecture != 'qwen2':
      raise ValueError(f'the tunix peer is written for qwen2, not {config.architecture}')
    with warnings.catch_warnings():
      # tunix 0.1.7 imports deprecated names of jax
      warnings.simplefilter('ignore')
      sampler: Any = importlib.import_module('tunix.generate.sampler')
      model: Any = importlib.import_module('tunix.models.qwen2.model')
    c = config
    theirs = model.ModelConfig(
      num_layers=c.num_layers,
      vocab_size=c.vocab_size,
      embed_dim=c.embed_dim,
      hidden_dim=c.mlp_dim,
      num_heads=c.num_heads,
      head_dim=c.head_dim,
      num_kv_heads=c.num_kv_heads,
      rope_theta=int(c.rope_theta),
      norm_eps=c.rms_eps,
      use_tied_embedding=c.tie_embeddings,
    )
    self._pad = c.vocab_size - 1
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      abstract = nnx.eval_shape(lambda: model.Qwen2(theirs, rngs=nnx.Rngs(0)))
      graph, state = nnx.split(abstract)
      nnx.replace_by_pure_dict(state, _state(params, config))
      self.sampler: Any = sampler.Sampler(
        nnx.merge(graph, state),
        _Ids(self._pad),
        sampler.CacheConfig(cache_size, c.num_layers, c.num_kv_heads, c.head_dim),
      )
    self.versions = f'google-tunix {importlib.metadata.version("google-tunix")}'

  def generate(
    self,
    prompts: Sequence[tuple[int, ...]],
    *,
    max_tokens: int,
    stop_ids: tuple[int, ...] = (),
    temperature: float = 1.0,
    seed: int = 0,
  ) -> list[np.ndarray]:
    """Completions of one batch, as tunix returns them (without the stop token)."""
    # tunix falls back on the tokenizer's eos (-1: none) if there is none; it closes over the ids
    # it was traced with, so one peer serves one set of them
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      out = self.sampler(
        [' '.join(map(str, p)) for p in prompts],
        max_generation_steps=max_tokens,
        max_prompt_length=max(map(len, prompts)),
        eos_tokens=list(stop_ids) or None,
        temperature=temperature,
        top_p=1.0,
        top_k=None,
        seed=seed,
      )
    return [np.asarray(row) for row in out.tokens]

  def warm_up(self, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> None:
    """Compiles what `generate` of this batch needs, and decodes one token.

    Its programs depend on max_tokens; a full run only to compile would double the time. A state
    that is at its last step goes through the same program.
    """
    sampler = self.sampler
    width = max(map(len, prompts))
    ids = np.full((len(prompts), width), self._pad, np.int32)
    for i, prompt in enumerate(prompts):
      ids[i, width - len(prompt) :] = prompt
    sampler.eos_ids = jnp.array([sampler.tokenizer.eos_id()])
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      state = sampler.init_sample_state(
        jnp.asarray(ids),
        include_logits=False,
        total_sampling_steps=width + max_tokens,
        forbidden_token_ids=None,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
        seed=jax.random.PRNGKey(0),
        beam_size=None,
      )
      weights = sampler._flattened_transformer_state
      state = sampler._compiled_prefill_fn(weights, state, None, echo=False)
      last = state.decoding_step * 0 + state.total_sampling_steps
      state = sampler._compiled_decode_fn(weights, dataclasses.replace(state, decoding_step=last))
    jax.block_until_ready(state.token_buffer)

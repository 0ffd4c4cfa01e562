"""Hugging Face transformers' generate as a peer: torch, static batches of repeated prompts."""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import transformers

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.hf import config_json
from rlvr_jax.models.transformer import Params
from rlvr_jax.models.weights import stored_tensors


class HFPeer:
  """The same weights in transformers' own model class and layout.

  params are in the learner's stacked form; device and dtype are torch's. cache is generate's
  cache_implementation (None: its default, which grows).
  """

  def __init__(
    self,
    params: Params,
    config: ModelConfig,
    *,
    threads: int | None = None,
    device: str = 'cpu',
    dtype: str = 'float32',
    cache: str | None = None,
  ):
    self._torch: Any = importlib.import_module('torch')
    torch = self._torch
    self._cache = cache
    self.config = config
    if threads is not None:
      torch.set_num_threads(threads)
    # no stop ids of its own: those of a call are all there are
    content = config_json(dataclasses.replace(config, eos_ids=()), dtype)
    hf_config = transformers.AutoConfig.for_model(content.pop('model_type'), **content)
    with torch.device('meta'):
      model = transformers.AutoModelForCausalLM.from_config(
        hf_config, dtype=getattr(torch, dtype), attn_implementation='sdpa'
      )
    model.to_empty(device=device)
    # to_empty leaves buffers unset: the rotary frequencies are computed again on the device
    model.model.rotary_emb = type(model.model.rotary_emb)(config=hf_config).to(device)
    targets = dict(model.named_parameters())
    if config.tie_embeddings:
      model.tie_weights()
      targets = dict(model.named_parameters())
    with torch.no_grad():
      for name, _, read in stored_tensors(params, config):
        targets.pop(name).copy_(torch.from_numpy(np.array(read(), np.float32)))
    if targets:
      raise ValueError(f'transformers has parameters that we do not: {", ".join(sorted(targets))}')
    self.model: Any = model.eval()
    self.versions = f'transformers {transformers.__version__}, torch {torch.__version__}'
    self.threads = torch.get_num_threads()

  def generate(
    self,
    prompts: Sequence[tuple[int, ...]],
    *,
    max_tokens: int,
    stop_ids: tuple[int, ...] = (),
    temperature: float = 1.0,
    seed: int = 0,
  ) -> list[np.ndarray]:
    """Completions i64[length] of one batch, the stop token included; no stop ids: none stops."""
    torch = self._torch
    torch.manual_seed(seed)
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
      ids[i, width - len(prompt) :] = torch.tensor(prompt)
      mask[i, width - len(prompt) :] = 1
    settings = transformers.GenerationConfig(
      do_sample=True,
      temperature=temperature,
      top_k=0,
      top_p=1.0,
      max_new_tokens=max_tokens,
      eos_token_id=list(stop_ids) or None,
      pad_token_id=stop_ids[0] if stop_ids else 0,
      cache_implementation=self._cache,
    )
    device = self.model.device
    out = self.model.generate(
      ids.to(device), attention_mask=mask.to(device), generation_config=settings
    )
    return [until_stop(row[width:], stop_ids) for row in out.cpu().numpy()]

  def logits(self, tokens: Sequence[int]) -> np.ndarray:
    """float32 [T,V] of one row: that the weights are ours is checked, not assumed."""
    torch = self._torch
    with torch.inference_mode():
      out = self.model(torch.tensor([list(tokens)], device=self.model.device)).logits[0]
    return out.float().cpu().numpy()


def until_stop(tokens: np.ndarray, stop_ids: tuple[int, ...]) -> np.ndarray:
  """tokens up to and with the first stop id, all if there is none."""
  hits = np.flatnonzero(np.isin(tokens, stop_ids))
  return tokens[: hits[0] + 1] if len(hits) else tokens

"""Float32 logits equal HF transformers' within 1e-4, per architecture, on ragged rows."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.models import hf
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.transformer import forward, unstack

ROOT = pathlib.Path(__file__).parent / 'goldens' / 'logits'
NAMES = ('qwen2_tied', 'qwen2_untied', 'llama_gqa_llama3', 'llama_mha', 'smollm_tied', 'qwen3')


def run(params, config, tokens):
  positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
  hidden, _ = forward(params, jnp.asarray(tokens), positions, config=config)
  return np.asarray(logits(params, hidden))


@pytest.mark.parametrize('form', ['stacked', 'list'])
@pytest.mark.parametrize('name', NAMES)
def test_logits_equal_hf(strict, name, form):
  config = hf.read_config(ROOT / name)
  params = hf.load_safetensors(ROOT / name, config)
  if form == 'list':
    params = unstack(params)
  with np.load(ROOT / name / 'golden.npz') as golden:
    tokens, lengths, expected = golden['tokens'], golden['lengths'], golden['logits']
  ours = run(params, config, tokens)
  assert np.abs(expected).max() > 2
  for row, length in enumerate(lengths):
    np.testing.assert_allclose(ours[row, :length], expected[row, :length], rtol=0, atol=1e-4)


def test_goldens_cover_what_they_name():
  configs = {name: hf.read_config(ROOT / name) for name in NAMES}
  assert {c.architecture for c in configs.values()} == {'qwen2', 'qwen3', 'llama'}
  assert [c.tie_embeddings for c in configs.values()] == [True, False, False, False, True, False]
  assert configs['llama_gqa_llama3'].rope_scaling is not None
  assert configs['llama_mha'].group_heads == 1
  assert configs['qwen3'].qk_norm
  assert configs['qwen2_untied'].qkv_bias
  assert configs['qwen2_untied'].eos_ids == (2, 5)


@pytest.mark.parametrize(
  ('name', 'change'),
  [
    ('llama_gqa_llama3', {'rope_scaling': None}),
    ('llama_mha', {'rope_theta': 5000.0}),
    ('qwen2_tied', {'qkv_bias': False}),
    ('qwen3', {'qk_norm': False}),
  ],
)
def test_a_forgotten_feature_would_show(name, change):
  config = hf.read_config(ROOT / name)
  params = hf.load_safetensors(ROOT / name, config)
  with np.load(ROOT / name / 'golden.npz') as golden:
    tokens, expected = golden['tokens'], golden['logits']
  ours = run(params, dataclasses.replace(config, **change), tokens)
  assert np.abs(ours[0] - expected[0]).max() > 0.01


@pytest.mark.check
@pytest.mark.parametrize('name', NAMES)
def test_our_exports_give_hf_the_same_logits(name, tmp_path):
  torch = pytest.importorskip('torch', reason='torch is not installed (the parity extra)')
  transformers = pytest.importorskip('transformers')
  config = hf.read_config(ROOT / name)
  params = hf.load_safetensors(ROOT / name, config)
  hf.save_safetensors(tmp_path / 'out', params, config, max_shard_bytes=20_000)

  def load(path):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
      path, dtype=torch.float32, attn_implementation='eager', output_loading_info=True
    )
    assert not any(info.values()), info
    # torch's one-token product rounds by where its operands lie: out of the file, into own memory
    for param in model.parameters():
      param.data = param.data.clone()
    return model

  # identical to the original's on the same machine; to the golden ones, made on another, nearly
  model, original = load(tmp_path / 'out'), load(ROOT / name)
  with np.load(ROOT / name / 'golden.npz') as golden:
    tokens, lengths, expected = golden['tokens'], golden['lengths'], golden['logits']
  for row, length in enumerate(lengths):
    with torch.no_grad():
      inputs = torch.tensor(tokens[row : row + 1, :length])
      logits, before = (m(inputs).logits[0].numpy() for m in (model, original))
    np.testing.assert_array_equal(logits, before)
    np.testing.assert_allclose(logits, expected[row, :length], rtol=0, atol=1e-4)
  ids = model.generation_config.eos_token_id
  assert tuple(ids if isinstance(ids, list) else [ids]) == config.eos_ids

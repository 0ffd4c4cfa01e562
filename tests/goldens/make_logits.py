"""Makes logits/NAME/{config.json,model.safetensors,golden.npz}: tiny random models and HF's logits.

  pip install -e '.[parity]'; python tests/goldens/make_logits.py

Weights, biases and norms are random and large enough that attention is far from uniform. Rows are
padded on the right; golden.npz has tokens i32[B,T], lengths i32[B], logits f32[B,T,V] (zero on
padding). HF computes every row alone and unpadded, and again left-padded with a mask as a check.
"""

import pathlib
import shutil

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

HERE = pathlib.Path(__file__).parent / 'logits'
LENGTHS = (23, 9, 1, 16)
SHAPE = {
  'vocab_size': 83,
  'hidden_size': 32,
  'intermediate_size': 56,
  'num_hidden_layers': 2,
  'max_position_embeddings': 256,
  'bos_token_id': 1,
  'eos_token_id': 2,
}
LLAMA3 = {
  'rope_type': 'llama3',
  'rope_theta': 1000.0,
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 32,
}


def configs():
  gqa = {'num_attention_heads': 4, 'num_key_value_heads': 2}
  default = {'rope_type': 'default', 'rope_theta': 10_000.0}
  return {
    'qwen2_tied': Qwen2Config(**SHAPE, **gqa, tie_word_embeddings=True, rope_parameters=default),
    'qwen2_untied': Qwen2Config(
      **{**SHAPE, 'eos_token_id': [2, 5]},
      num_attention_heads=6,
      num_key_value_heads=1,
      head_dim=8,
      tie_word_embeddings=False,
      rope_parameters={'rope_type': 'default', 'rope_theta': 1_000_000.0},
    ),
    'llama_gqa_llama3': LlamaConfig(
      **SHAPE, num_attention_heads=4, num_key_value_heads=2, head_dim=16, rope_parameters=LLAMA3
    ),
    'llama_mha': LlamaConfig(
      **SHAPE, num_attention_heads=4, rms_norm_eps=1e-5, rope_parameters=default
    ),
    'smollm_tied': LlamaConfig(
      **SHAPE,
      num_attention_heads=4,
      num_key_value_heads=1,
      rms_norm_eps=1e-5,
      tie_word_embeddings=True,
      rope_parameters={'rope_type': 'default', 'rope_theta': 100_000.0},
    ),
    'qwen3': Qwen3Config(**SHAPE, **gqa, head_dim=16, rope_parameters=default),
  }


def randomize(model, generator):
  for name, parameter in model.named_parameters():
    noise = torch.randn(parameter.shape, generator=generator)
    if name.endswith('norm.weight'):
      parameter.data = 1 + 0.3 * noise
    elif name.endswith('bias'):
      parameter.data = 0.5 * noise
    elif 'embed_tokens' in name:
      parameter.data = noise
    else:
      parameter.data = 1.5 * noise / parameter.shape[1] ** 0.5
  model.tie_weights()


@torch.no_grad()
def golden(model, generator):
  B, T, V = len(LENGTHS), max(LENGTHS), model.config.vocab_size
  tokens = torch.randint(0, V, (B, T), generator=generator)
  logits = torch.zeros(B, T, V)
  for row, length in enumerate(LENGTHS):
    tokens[row, length:] = 0
    logits[row, :length] = model(tokens[row : row + 1, :length]).logits[0]
  left = torch.stack([tokens[r].roll(T - n) for r, n in enumerate(LENGTHS)])
  mask = torch.stack([(torch.arange(T) >= T - n).long() for n in LENGTHS])
  positions = (mask.cumsum(1) - 1).clamp(min=0)
  padded = model(left, attention_mask=mask, position_ids=positions).logits
  for row, length in enumerate(LENGTHS):
    torch.testing.assert_close(padded[row, T - length :], logits[row, :length], atol=1e-4, rtol=0)
  return tokens, logits


def main():
  shutil.rmtree(HERE, ignore_errors=True)
  for seed, (name, config) in enumerate(configs().items()):
    generator = torch.Generator().manual_seed(seed)
    config._attn_implementation = 'eager'
    kind = getattr(transformers, f'{type(config).__name__.removesuffix("Config")}ForCausalLM')
    model = kind(config).float().eval()
    randomize(model, generator)
    tokens, logits = golden(model, generator)
    model.save_pretrained(HERE / name)
    np.savez_compressed(
      HERE / name / 'golden.npz',
      tokens=tokens.numpy().astype(np.int32),
      lengths=np.array(LENGTHS, np.int32),
      logits=logits.numpy(),
    )
    print(name, f'largest |logit| {logits.abs().max():.1f}')


if __name__ == '__main__':
  main()

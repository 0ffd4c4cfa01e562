"""The two real models: greedy completions and exported weights as HF transformers has them.

Needs the GGUF files in the models directory ($RLVR_MODELS) and torch and accelerate.
"""

import functools

import numpy as np
import pytest

from rlvr_jax.models import hf, load
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling

pytestmark = [
  pytest.mark.check,
  pytest.mark.timeout(1800),
  pytest.mark.parametrize('name', ['smollm2-135m', 'qwen2.5-coder-0.5b']),
]
TOKENS = 64
TIE = 1e-3  # logits closer than this may swap between two float32 implementations
CHATS = (
  'What is 17 * 23? Think step by step.',
  'Write a Python function that returns the n-th Fibonacci number.',
  'Natalia sold 48 clips in April and half as many in May. How many altogether?',
  'Nenne drei Flüsse in Deutschland und ihre Länge.',
  '用一句话解释什么是质数。',
)
TEXTS = (
  'def quicksort(xs):\n    """Sorts a list."""\n',
  'The three laws of motion are',
  'SELECT name, COUNT(*) FROM orders WHERE',
  'Theorem. There are infinitely many primes.\nProof.',
  '1, 1, 2, 3, 5, 8, 13,',
)


@pytest.fixture
def path(name):
  for package in ('torch', 'accelerate'):  # HF reads GGUF files with the help of the latter
    pytest.importorskip(
      package, reason=f'{package} is not installed (pip install torch accelerate)'
    )
  found = load.models_dir() / f'{name}.gguf'
  if not found.exists():
    pytest.skip(f'{name}.gguf is not in {load.models_dir()}')
  return found


def prompts(tokenizer):
  chats = [tokenizer.encode_chat([{'role': 'user', 'content': text}]) for text in CHATS]
  return [tuple(ids) for ids in chats + [tokenizer.encode(text) for text in TEXTS]]


def greedy(params, config, items):
  """Our completions, by index of the prompt."""
  engine = Engine(
    hand_over(None, params),
    config,
    slots=len(items),
    bank_rows=len(items),
    prompt_capacity=128,
    completion_capacity=TOKENS,
  )
  queue = [Item(problem=i, uid=i, visit=0, sample=0, prompt_ids=p) for i, p in enumerate(items)]
  done = engine.run(queue, Sampling(temperature=0.0, max_tokens=TOKENS))
  return {c.item.problem: c for c in done}


def hf_logits(model, rows):
  """float32 logits [T,V] of each row alone."""
  import torch

  with torch.no_grad():
    return [model(torch.tensor([row])).logits[0].numpy() for row in rows]


def load_hf(directory, **kwargs):
  import torch
  import transformers

  return transformers.AutoModelForCausalLM.from_pretrained(
    directory, dtype=torch.float32, attn_implementation='eager', **kwargs
  ).eval()


def test_greedy_and_export_agree_with_hf(name, path, tmp_path, capsys):
  say = functools.partial(_say, capsys, name)
  config, params, tokenizer = load.load_model(path)
  items = prompts(tokenizer)
  ours = greedy(params, config, items)
  hf.save_safetensors(tmp_path / 'out', params, config, tokenizer, max_shard_bytes=5e8)
  del params

  # HF reads and dequantizes the same file on its own
  model = load_hf(path.parent, gguf_file=path.name)
  rows = [[*p, *ours[i].tokens.tolist()] for i, p in enumerate(items)]
  theirs = hf_logits(model, rows)
  del model
  ties, worst = [], 0.0
  for i, prompt in enumerate(items):
    tokens = ours[i].tokens
    assert len(tokens) == TOKENS
    # by induction over the positions this is HF's own greedy completion, up to named ties
    before = theirs[i][len(prompt) - 1 : -1]
    chosen = before[np.arange(TOKENS), tokens]
    for t in np.flatnonzero(before.argmax(-1) != tokens):
      gap = float(before[t].max() - chosen[t])
      ties.append((i, int(t), gap))
      assert gap < TIE, f'prompt {i} token {t}: HF prefers another by {gap}'
    shifted = before - before.max(-1, keepdims=True)
    logprobs = chosen - before.max(-1) - np.log(np.exp(shifted).sum(-1, dtype=np.float64))
    worst = max(worst, float(np.abs(logprobs - ours[i].logprobs).max()))
  say(f'{len(items)} x {TOKENS} greedy tokens agree; ties {ties}; log-probs within {worst:.1e}')
  assert worst < 1e-3

  exported = load_hf(tmp_path / 'out')
  again = hf_logits(exported, rows)
  del exported
  difference = max(float(np.abs(a - b).max()) for a, b in zip(again, theirs, strict=True))
  say(f'logits of the export differ by {difference} from the GGUF read by HF')
  assert difference == 0
  import transformers

  own = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
  for text in (*CHATS, *TEXTS):
    assert own.encode(text) == tokenizer.encode(text)


def _say(capsys, name, text):
  with capsys.disabled():
    print(f'\n{name}: {text}')

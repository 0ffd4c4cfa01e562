"""Samples as other tools write them, from a table of verdicts: bool[P, n]."""

import json
import pathlib

import numpy as np

from rlvr_jax.eval.samples import SampleStore

PROBLEMS, N = 24, 32
SETTINGS = {'temperature': 0.6, 'top_p': 0.95, 'top_k': 0, 'max_tokens': 64, 'seed': 0,
            'coupling': 'independent', 'stream': 'eval'}  # fmt: skip


def verdicts(seed: int, easier: float = 0.0) -> np.ndarray:
  """bool[PROBLEMS, N], rates spread from 0 to 1."""
  rng = np.random.default_rng(seed)
  rates = np.clip(np.linspace(0, 0.9, PROBLEMS) + easier, 0, 1)
  return rng.uniform(size=(PROBLEMS, N)) < rates[:, None]


def text_of(right: bool, problem: int, sample: int) -> str:
  return f'The answer is {problem if right else problem + 1} ({sample}).'


def jsonl(path: pathlib.Path, rows: list[dict]) -> pathlib.Path:
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def schema_rows(found: np.ndarray, **more) -> list[dict]:
  """Rows of the documented schema."""
  return [
    {'problem_id': f'p{p}', 'sample': s, 'correct': bool(found[p, s]),
     'text': text_of(found[p, s], p, s), 'length': 5 + s, **more}
    for p in range(len(found)) for s in range(found.shape[1])
  ]  # fmt: skip


def lm_eval_rows(found: np.ndarray, **more) -> list[dict]:
  """A sample log of lm-evaluation-harness, repeats as lists."""
  return [
    {
      'doc_id': p,
      'doc': {'question': f'What is {p}?', 'answer': str(p)},
      'target': str(p),
      'arguments': {
        'gen_args_0': {
          'arg_0': f'Q: What is {p}?\nA:',
          'arg_1': {'until': ['Q:'], 'do_sample': True, 'temperature': 0.6, 'max_gen_toks': 64},
        }
      },
      'resps': [[text_of(right, p, s) for s, right in enumerate(row)]],
      'filtered_resps': [[str(p if right else p + 1) for right in row]],
      'filter': 'take_all',
      'metrics': ['exact_match'],
      'doc_hash': f'd{p}', 'prompt_hash': f'q{p}', 'target_hash': f't{p}',
      'exact_match': [float(right) for right in row],
      **more,
    }
    for p, row in enumerate(found)
  ]  # fmt: skip


def evalplus_results(base: np.ndarray, plus: np.ndarray) -> dict:
  """Results of evalplus.evaluate."""
  status = {True: 'pass', False: 'fail'}
  return {
    'date': '2026-01-01 00:00',
    'hash': 'abc',
    'eval': {
      f'HumanEval/{p}': [
        {
          'task_id': f'HumanEval/{p}',
          'solution': f'def f():\n  return {s}',
          'base_status': status[bool(base[p, s])],
          'plus_status': status[bool(plus[p, s])],
          'base_fail_tests': [], 'plus_fail_tests': [],
        }
        for s in range(base.shape[1])
      ]
      for p in range(len(base))
    },
  }  # fmt: skip


def counts_csv(path: pathlib.Path, found: np.ndarray) -> pathlib.Path:
  lines = [f'p{p},{len(row)},{int(row.sum())}' for p, row in enumerate(found)]
  path.write_text('\n'.join(['problem_id,n,c', *lines]) + '\n')
  return path


def store_row(p: int, s: int, right: bool, **more) -> dict:
  return {
    'task': 'sums', 'problem_id': f'p{p}', 'visit': 0, 'sample': s, 'seed': 0, 'tokens': [1, 2],
    'text': text_of(right, p, s), 'length': 2, 'finish': 'eos', 'logprob_sum_sampled': -1.0,
    'verdict': 'correct' if right else 'wrong', 'reward': float(right), 'verifier': 'exact-1',
    **more,
  }  # fmt: skip


def our_store(
  root: pathlib.Path, model: str, found: np.ndarray, settings=(), prompt_hash='h', **more
) -> pathlib.Path:
  """One of our own stores; the folder of its task."""
  store = SampleStore(root / 'samples')
  chosen = {**SETTINGS, **dict(settings)}
  task = more.get('task', 'sums')
  with store.writer(model, task, chosen, prompt_hash=prompt_hash, rows_per_shard=200) as writer:
    for p, row in enumerate(found):
      writer.extend(store_row(p, s, right, **more) for s, right in enumerate(row))
  return root / 'samples' / model / task

"""What the sampler's benchmarks compute around the engine: laws, rooflines, parts, peers."""

import functools
import json

import jax
import numpy as np
import pytest

from bench import (
  _gemm,
  _kernels,
  _occupancy,
  _peers,
  _unbiased,
  exactness_gpu,
  run,
  sampling,
  sampling_gpu,
)
from bench._measure import chosen
from bench._peers_hf import HFPeer, until_stop
from bench._peers_tunix import TunixPeer
from bench._schedule import LengthLaw
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.transformer import forward, init_params, unstack
from rlvr_jax.sampling.types import Sampling
from tests import tiny


def test_parts_are_chosen_by_name():
  assert chosen('', sampling.PARTS) == ['core', 'occupancy', 'natural', 'forced']
  assert chosen(' forced, core', sampling.PARTS) == ['forced', 'core']
  with pytest.raises(ValueError, match="BENCH_PARTS='croe': no part croe; there are core, "):
    chosen('croe', sampling.PARTS)


@pytest.mark.check
def test_occupancy_and_live_kv_are_shares_of_the_possible():
  law = LengthLaw(median=60, sigma=0.6, runaway=0.05, cap=500)
  occupied, live = run.check_gates(
    'sampling', _occupancy.occupancy_gates(law, prompts=4, samples=24, slots=8)
  )
  # a chunk runs on until it knows that nothing is left: a little below 1, never above
  assert 0.8 < occupied['value'] <= 1
  assert 0 < live['value'] <= 1


def test_truncated_laws_are_those_of_the_words(monkeypatch):
  p = np.array([[0.4, 0.3, 0.15, 0.1, 0.05]])
  monkeypatch.setattr(_unbiased, '_last_logits', lambda params, rows: np.log(p))
  law = functools.partial(_unbiased.exact_probs, {}, np.zeros((1, 1), np.int32))
  np.testing.assert_allclose(law(Sampling()), p)
  np.testing.assert_allclose(law(Sampling(top_k=2)), [[4 / 7, 3 / 7, 0, 0, 0]])
  np.testing.assert_allclose(law(Sampling(top_p=0.5)), [[4 / 7, 3 / 7, 0, 0, 0]])
  # the nucleus of what top-k left: 0.4/0.85 + 0.3/0.85 reaches 0.8
  np.testing.assert_allclose(law(Sampling(top_p=0.8, top_k=3)), [[4 / 7, 3 / 7, 0, 0, 0]])
  np.testing.assert_allclose(law(Sampling(temperature=0.5)), p**2 / (p**2).sum())


def test_chi_square_sees_a_bias_and_an_impossible_token():
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.ones(40))
  fair = np.array([_unbiased.chi_square(rng.multinomial(2000, p), p) for _ in range(300)])
  assert fair[:, 0].mean() == pytest.approx(fair[:, 1].mean(), rel=0.05)
  biased = 0.9 * p + 0.1 / 40
  statistic, freedom = _unbiased.chi_square(rng.multinomial(20_000, biased), p)
  assert statistic > 3 * freedom
  assert _unbiased.chi_square(np.array([5, 1]), np.array([1.0, 0.0]))[0] == np.inf


def test_static_batches_deliver_forced_lengths_and_pay_for_the_slowest():
  paid = []

  class Peer:
    def generate(self, prompts, *, max_tokens, temperature=1.0):
      paid.append((len(prompts), max_tokens))
      return [np.zeros(max_tokens)] * len(prompts)

  lengths = np.array([3, 9, 1, 2, 5])
  assert _peers.Static(Peer(), 2).run([(1,)] * 5, lengths) == lengths.sum()
  assert paid == [(2, 9), (2, 2), (1, 5)]

  class Short(Peer):
    def generate(self, prompts, *, max_tokens, temperature=1.0):
      return [np.zeros(max_tokens - 1)] * len(prompts)

  with pytest.raises(RuntimeError, match='other lengths'):
    _peers.Static(Short(), 2).run([(1,)] * 5, lengths)


def test_a_completion_ends_with_its_first_stop():
  row = np.array([5, 6, 7, 6, 0])
  assert until_stop(row, (6, 7)).tolist() == [5, 6]
  assert until_stop(row, ()).tolist() == row.tolist()


def test_missing_data_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv('RLVR_MODELS', str(tmp_path))
  assert 'RLVR_DATA is not set' in _peers.missing('')
  assert 'is no file' in _peers.missing(str(tmp_path / 'absent.jsonl'))
  (tmp_path / 'gsm8k.jsonl').write_text(json.dumps({'question': 'q', 'answer': '#### 1'}))
  assert f'{_peers.MODEL}.gguf is not in' in _peers.missing(str(tmp_path / 'gsm8k.jsonl'))


def test_without_a_gpu_there_are_no_gates(monkeypatch, capsys):
  monkeypatch.delenv('BENCH_TINY', raising=False)
  assert sampling_gpu.main() == exactness_gpu.main() == []
  assert 'no GPU: no gates' in capsys.readouterr().out


def test_the_roofline_is_that_of_the_books():
  """Qwen2.5-7B, S=256, prompt 512, suffix 1024 on an H100: 4.7 ms of weights, 9.8 ms in all."""
  _, config = sampling_gpu.REAL.large
  params = jax.eval_shape(lambda key: unstack(init_params(key, config)), jax.random.key(0))
  assert sampling_gpu.matmul_params(config, params) == pytest.approx(7.07e9, rel=1e-3)
  assert sampling_gpu.kv_bytes(config) == 57_344
  device = sampling_gpu.Device(bandwidth=3.0e12, flops=798e12)
  steps = sampling_gpu.Steps(seconds=0.0, slots=256, suffix=1024, prompt_tokens=512)
  assert sampling_gpu.roofline(steps, config, params, 512, device) == pytest.approx(
    9.8e-3, rel=0.02
  )


@pytest.mark.check
def test_the_gpu_benchmark_runs_on_tiny_shapes(monkeypatch, capsys):
  monkeypatch.setenv('BENCH_TINY', '1')
  gates = run.check_gates('sampling_gpu', sampling_gpu.main())
  names = [gate['gate'].split()[0] for gate in gates]
  kernels = len(_kernels.TINY)
  assert names[:kernels] == ['read'] * kernels
  names = names[kernels:]
  assert names[:7] == ['B1', 'B2', 'B1', 'B2', 'B5', 'B5', 'B2']
  assert names[7:] in ([], ['B8'])  # with torch, HF too
  assert 'left out' not in capsys.readouterr().out


@pytest.mark.check
def test_the_exactness_benchmark_holds_on_tiny_shapes(monkeypatch):
  monkeypatch.setenv('BENCH_TINY', '1')
  gates = run.check_gates('exactness_gpu', exactness_gpu.main())
  assert len(gates) == 6
  assert all(gate['holds'] for gate in gates)


@pytest.mark.check
@pytest.mark.parametrize('peer', ['hf', 'tunix'])
def test_peers_compute_our_model_and_take_forced_lengths(peer):
  pytest.importorskip({'hf': 'torch', 'tunix': 'tunix'}[peer])
  config, stacked = tiny.make(rope_theta=1e6)
  prompts = [(3, 1, 4, 1, 5), (9, 2, 6)]
  if peer == 'hf':
    made = HFPeer(stacked, config, threads=1)
  else:
    made = TunixPeer(unstack(stacked), config, cache_size=32)
    made.warm_up(prompts, 9)
  assert [len(row) for row in made.generate(prompts, max_tokens=9)] == [9, 9]
  # cold, both write what our own forward says is most likely
  for prompt in prompts:
    row = list(made.generate([prompt], max_tokens=6, temperature=1e-4)[0])
    tokens = np.array([*prompt, *row], np.int32)[None]
    positions = np.arange(tokens.shape[1], dtype=np.int32)[None]
    hidden, _ = forward(stacked, tokens, positions, config=config)
    best = np.asarray(logits(stacked, hidden))[0].argmax(-1)
    assert row == best[len(prompt) - 1 : -1].tolist()


@pytest.mark.check
def test_products_are_counted_key_by_key():
  config = tiny.CONFIG
  params = unstack(init_params(jax.random.key(0), config))
  prompts, lengths = (3, 5), ([2, 4], [1])
  layers = sum(layer[name].size for layer in params['layers'] for name in _gemm.MATRICES)
  a_key = 2 * 2 * config.num_layers * config.num_heads * config.head_dim
  keys = 0
  for prompt, of in zip(prompts, lengths, strict=True):
    keys += sum(range(1, prompt + 1)) + sum(prompt + t + 1 for n in of for t in range(n))
  weights, products = _gemm.product_flops(params, config, prompts, lengths)
  assert weights == 2 * 7 * (layers + params['embed'].size)
  assert products == weights + 2 * 8 * layers + a_key * keys

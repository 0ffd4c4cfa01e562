"""What the learner's benchmark compares is the same work: losses, FLOPs, bytes."""

import json

import jax
import numpy as np
import pytest

from bench import _learner_memory, _learner_step, learner, run
from bench._measure import chosen
from rlvr_jax.models.logprobs import sequence_logprobs
from tests import tiny

TOKENS = np.random.default_rng(0).integers(0, 400, (4, 12)).astype(np.int32)


def test_parts_are_chosen_by_name():
  assert chosen('', learner.PARTS) == ['memory', 'padding', 'hand_over', 'step']
  with pytest.raises(ValueError, match="BENCH_PARTS='steps': no part steps; there are memory, "):
    chosen('steps', learner.PARTS)


def test_the_memory_gates_are_gates(monkeypatch, tmp_path):
  monkeypatch.setattr(_learner_memory, 'QWEN_0P5B', tiny.CONFIG)
  gates = [
    _learner_memory.head_memory(tiny.CONFIG, tokens=2048, chunk=128),
    _learner_memory.hand_over_time(tiny.CONFIG, rounds=1),
    *_learner_memory.padding(),
  ]
  run.check_gates('learner', gates)
  json.dumps(gates, allow_nan=False)
  assert [gate['gate'].split()[0] for gate in gates][:2] == ['B15', 'B16']
  # a head of 400 columns is small beside the logits of 128 tokens, whatever the target says
  assert 0 < gates[0]['value'] < 4


def test_flops_are_those_of_the_products():
  config, params = tiny.make()
  B, T, D, V, N, K, H, F = 4, 12, 32, 400, 4, 2, 8, 64
  products = 2 * (D * N * H + 2 * D * K * H + N * H * D + 3 * D * F) + D * V * (T - 1) / T
  attention = 2 * 2 * N * H * T / 2  # two layers, scores and values, half of them causal
  small = 2 * (2 * D + (N + 2 * K) * H)  # norms and biases, which are counted too
  counted = _learner_step.flops(config, params, (B, T))
  assert counted == pytest.approx(6 * B * T * (products + attention + small))


def test_the_step_is_supervised_learning_on_every_token():
  config, params = tiny.make()
  ours = _learner_step.Ours(params, config, TOKENS, 2)
  first = ours.step()
  logprobs, _ = jax.jit(sequence_logprobs, static_argnames='config')(params, TOKENS, config=config)
  assert first == pytest.approx(-float(np.mean(logprobs[:, 1:])), abs=1e-5)
  assert [ours.step() for _ in range(3)][-1] < first


@pytest.mark.check
def test_torch_takes_the_same_steps():
  pytest.importorskip('torch')
  config, params = tiny.make(rope_theta=1e6)
  ours = _learner_step.Ours(params, config, TOKENS, 2)
  theirs = _learner_step.Theirs(params, config, TOKENS, 2)
  for _ in range(4):
    assert ours.step() == pytest.approx(theirs.step(), abs=2e-5)

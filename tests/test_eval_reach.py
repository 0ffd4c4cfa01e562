"""Reach and importance estimates contain exact values; ranks, totals and perplexities by hand."""

import hashlib
import math

import jax
import numpy as np
import pyarrow as pa
import pytest
from test_eval_likelihood import (
  CONFIG,
  PROMPTS,
  SOLUTIONS,
  TOKENIZER,
  enumerated,
  quick,
  random_params,
)

from rlvr_jax.eval import perplexity, reach
from rlvr_jax.eval.likelihood import Settings, token_scores
from rlvr_jax.eval.reach import LEAST_EFFECTIVE, importance, total_probability
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling

_ = quick  # programs that compile fast
LIMIT = 3


def near(scale=0.12):
  """A model close to random_params: the other side of an importance estimate."""
  rng = np.random.default_rng(9)
  return jax.tree.map(lambda x: x + rng.normal(0, scale, x.shape).astype(x.dtype), random_params())


def exact_rates(params, settings):
  """f64[P]: the chance of SOLUTIONS that fit, summed over every completion there is."""
  rates = []
  for place, (completions, sums) in enumerate(enumerated(settings, params, LIMIT)):
    right = {(*TOKENIZER.encode(t, special=False), 1) for t in SOLUTIONS[place]}
    chances = [p for c, p in zip(completions, np.exp(sums), strict=True) if tuple(c) in right]
    rates.append(sum(chances))
  return np.array(rates)


def drawn(params, settings, n=400):
  """(problem, ids, correct) of n completions of each prompt."""
  sizes = {'slots': 64, 'bank_rows': 3, 'prompt_capacity': 16, 'completion_capacity': LIMIT}
  engine = Engine(hand_over(None, params), CONFIG, steps=8, seed=5, **sizes)
  items = [Item(i, i, 0, s, p) for i, p in enumerate(PROMPTS) for s in range(n)]
  s = settings
  found = []
  for one in engine.run(items, Sampling(s.temperature, s.top_p, s.top_k, (1,), LIMIT)):
    place, ids = one.item.problem, one.tokens.tolist()
    text = TOKENIZER.decode(ids[:-1] if ids[-1] == 1 else ids, skip_special=False)
    found.append((place, ids, text in SOLUTIONS[place] and ids[-1] == 1))
  return found


def logs(params, found, settings):
  rows = [(PROMPTS[place], ids) for place, ids, _ in found]
  got = dict(token_scores(params, CONFIG, rows, settings, micro_tokens=4096, chunk=1024))
  return np.array([got[i].drawn.astype(np.float64).sum() for i in range(len(rows))])


@pytest.mark.parametrize('settings', [Settings(0.8), Settings(0.9, 0.95)], ids=str)
def test_importance_contains_the_exact_solve_rate(settings):
  """Solve rates of one model from the other's samples, either way round, against enumeration."""
  one, other = random_params(), near()
  truths = exact_rates(one, settings), exact_rates(other, settings)
  assert (np.abs(truths[0] - truths[1]) > 0.003).any()
  for (model, truth), sampler in zip(
    zip((one, other), truths, strict=True), (other, one), strict=True
  ):
    found = drawn(sampler, settings)
    log_m, log_other = (logs(params, found, settings) for params in (model, sampler))
    places = np.array([place for place, _, _ in found])
    right = np.array([correct for _, _, correct in found])
    for place in range(len(PROMPTS)):
      pick = (places == place) & np.isfinite(log_other)
      got = importance(log_m[pick], log_other[pick], right[pick], level=0.99)
      assert got.value is not None
      assert got.low <= truth[place] <= got.high, (place, got, truth)
      assert got.high - got.low < 0.5
      assert got.mean_weight < 1.3


def test_coverage_of_the_interval():
  """On a hundred outcomes with known laws: 95% intervals cover, whatever the weights' spread."""
  rng = np.random.default_rng(0)
  for spread in (0.2, 0.8, 1.3):
    covered = total = 0
    for _ in range(300):
      q = rng.dirichlet(np.full(100, 0.7))
      p = q * np.exp(rng.normal(0, spread, 100))
      p /= p.sum()
      right = rng.random(100) < 0.05
      draws = rng.choice(100, 256, p=q)
      got = importance(np.log(p[draws]), np.log(q[draws]), right[draws])
      if got.value is not None:
        total += 1
        covered += got.low <= p[right].sum() <= got.high
    assert total > 250
    assert covered / total >= 0.93, (spread, covered / total)


def test_few_effective_samples_are_refused():
  log_m, log_other = np.array([0.0, *[-30.0] * 200]), np.full(201, -20.0)
  got = importance(log_m, log_other, np.ones(201))
  assert got.value is got.low is got.high is None
  assert got.effective < LEAST_EFFECTIVE
  assert got.refused == '1.0 effective samples of 201, fewer than 10'
  none = importance(np.full(20, -np.inf), log_other[:20], np.ones(20))
  assert none.refused == 'the model can draw none of the samples'
  equal = importance(log_other, log_other, np.arange(201) < 50)
  assert equal.effective == pytest.approx(201)
  assert equal.value == pytest.approx(50 / 201)
  assert equal.mean_weight == pytest.approx(1)
  with pytest.raises(ValueError, match='no finite log-probability'):
    importance(log_other[:1], np.array([-np.inf]), np.ones(1))


def test_what_the_other_cannot_draw_shows_in_the_mean_weight():
  """m has half its mass where the other has none: the estimate is of the other half."""
  rng = np.random.default_rng(1)
  p, q = np.array([0.5, 0.3, 0.2]), np.array([0.0, 0.5, 0.5])
  draws = rng.choice(3, 2000, p=q)
  got = importance(np.log(p[draws]), np.log(q[draws]), draws == 1)
  assert got.mean_weight == pytest.approx(0.5, abs=0.02)
  assert got.at_least == pytest.approx(0.3, abs=0.02)
  assert got.value == pytest.approx(0.6, abs=0.05)


def test_total_probability_counts_each_sequence_once_and_equals_enumeration():
  settings = Settings(0.9, 0.9)
  (completions, sums), *_ = enumerated(settings, limit=LIMIT)
  keys = [np.array(c, np.int32).tobytes() for c in completions]
  assert total_probability(sums, keys) == pytest.approx(1, rel=1e-5)
  assert total_probability(np.append(sums, sums), keys * 2) == pytest.approx(1, rel=1e-5)
  assert total_probability(np.empty(0), []) == 0


def row(model, author, problem, sample, *, verdict='correct', tokens=4, logprob=-2.0, **more):
  """A row of perplexity.SCHEMA."""
  key = hashlib.blake2b(f'{author}{problem}{sample}'.encode(), digest_size=16).digest()
  made = {
    'model': model, 'author': author, 'task': 't', 'problem_id': problem, 'sample': sample,
    'verdict': verdict, 'finish': 'eos', 'tokens': tokens, 'bytes': 2 * tokens, 'reencoded': False,
    'logprob': logprob, 'entropy': 0.5, 'reach': logprob, 'tempered': logprob, 'inside': tokens,
    'first_outside': -1, 'outside_text': '', 'outside_rank': -1, 'outside_mass': np.nan,
    'edge': False, 'too_long': False, 'key': key, 'sampler_gap': None, 'surprise': None,
    'pieces': None, 'allowed': None,
  }  # fmt: skip
  return made | more


def table(*rows):
  return pa.Table.from_pylist(list(rows), schema=perplexity.SCHEMA)


def test_perplexity_by_hand():
  t = table(
    row('m', 'a', 'p', 1, logprob=-4.0),
    row('m', 'a', 'p', 0, logprob=-8.0),
    row('m', 'a', 'q', 0, logprob=0.0, verdict='wrong'),
    row('m', 'a', 'q', 40, logprob=-400.0),
    row('m', 'b', 'p', 0, logprob=-1.0),
  )
  found = perplexity.by_problem(t, 'm', 'a', samples=16)
  assert list(found) == ['p', 'q']
  np.testing.assert_allclose(found['p'], [math.exp(2), math.e])  # by sample
  np.testing.assert_allclose(found['q'], [1.0])  # the 40th was scored for being correct
  one = perplexity.summarise(t, 'm', 'a', samples=16)
  assert one is not None
  assert one.value == pytest.approx(math.exp((1.5 + 0) / 2))
  assert one.low < one.value < one.high
  assert one.bits_per_byte == pytest.approx(12 / math.log(2) / 24)
  assert perplexity.summarise(t, 'm', 'b').low is None  # one problem
  assert perplexity.summarise(t, 'b', 'm') is None
  assert [s.author for s in perplexity.evolution(t, ['x', 'm'], 'b')] == ['b']
  assert perplexity.share_within(np.arange(100.0), np.array([10, 90, 99.0, 500])) == 0.5


def test_bits_per_byte_do_not_depend_on_the_cut_into_tokens():
  """The same text and probability as 2 tokens or as 8."""
  assert perplexity.bits_per_byte([-6.0], [5]) == pytest.approx(6 / math.log(2) / 5)
  assert perplexity.perplexity(-6.0, 2) != perplexity.perplexity(-6.0, 8)
  assert perplexity.bits_per_byte([-6.0], [0]) is None


def test_ranks_among_own_correct_completions_of_like_length():
  own = [row('m', 'm', 'p', i, tempered=-1.0 * i, tokens=10) for i in range(1, 6)]
  long = [row('m', 'm', 'p', 50 + i, tempered=0.0, tokens=20) for i in range(9)]
  others = [
    row('m', 'o', 'p', 0, tempered=-2.5, tokens=11),
    row('m', 'o', 'p', 1, tempered=-3.0, tokens=8),
    row('m', 'o', 'q', 0, tempered=-9.0, tokens=10),
    row('m', 'o', 'p', 2, tempered=-9.0, tokens=500),
    row('n', 'o', 'p', 0, tempered=-9.0, tokens=10),
  ]
  wrong = row('m', 'm', 'p', 99, verdict='wrong', tempered=-100.0, tokens=10)
  t = reach.correct_rows(table(*own, *long, *others, wrong)).to_pylist()
  got = [(r['own_rank'], r['own_peers'], r['own_scope']) for r in t if r['author'] == 'o']
  assert got == [
    (0.6, 5, 'problem'),  # -3, -4, -5 are less likely
    (0.5, 5, 'problem'),  # a tie counts half
    (0.0, 5, 'all'),
    (None, 0, ''),
    (None, 0, ''),
  ]
  assert len(t) == 5 + 9 + 5


def test_drawable_summary_and_known_probability():
  t = table(
    row('m', 'o', 'p', 0, reach=math.log(0.25)),
    row('m', 'o', 'p', 1, reach=-np.inf, first_outside=2, inside=3),
    row('m', 'o', 'p', 2, reach=math.log(0.125), too_long=True),
    row('m', 'o', 'q', 0, reach=math.log(0.5), edge=True),
    row('m', 'x', 'q', 0, reach=math.log(0.5), key=row('', 'o', 'q', 0)['key']),
    row('m', 'o', 'q', 1, reach=math.log(0.5), verdict='wrong'),
  )
  one = reach.summarise(t, 'm', 'o')
  assert one is not None
  assert one.drawable[0] == pytest.approx((1 / 3 + 1) / 2)
  assert one.drawable[1] < one.drawable[0] < one.drawable[2]
  assert (one.completions, one.problems, one.at_edge) == (4, 2, 1)
  assert one.inside == 15 / 16
  # each sequence once, whoever wrote it; what is longer than the model may write is not drawn
  known = reach.known_probability(t, 'm', 't')
  assert known == pytest.approx({'p': 0.25, 'q': 0.5})


def test_estimates_from_rows():
  rows = []
  for i in range(40):
    right = 'correct' if i < 10 else 'wrong'
    rows.append(row('o', 'o', 'p', i, reach=-3.0, verdict=right))
    rows.append(row('m', 'o', 'p', i, reach=-3.0 - (i < 10), verdict=right))
  rows.append(row('o', 'o', 'p', 40, reach=-np.inf))  # a rounding at the edge
  rows.append(row('m', 'o', 'p', 40, reach=-1.0))
  found = reach.estimates(table(*rows), 'm', 'o', ['p', 'absent'])
  w = math.exp(-1)
  assert list(found) == ['p']
  assert found['p'].value == pytest.approx(10 * w / (10 * w + 30))
  assert found['p'].samples == 40
  fewer = reach.estimates(table(*rows), 'm', 'o', ['p'], most=20)
  assert fewer['p'].samples == 20
  rows[1]['reencoded'] = True
  assert reach.estimates(table(*rows), 'm', 'o', ['p'])['p'].refused == (
    'the models have different tokenizers'
  )

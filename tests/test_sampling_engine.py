"""The sampler's promises: log-probs, keys, stops, forced tokens, errors, and no recompilation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from exactness import assert_identical, by_item, check_logprobs, plain_logits

from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.profiling import compilations
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling

pytestmark = pytest.mark.usefixtures('strict')
LENGTHS = (1, 2, 9, 16, 17, 30)  # prompts, in tokens: both prefill buckets and their edges
STOPS = (7, 11, 200, 301, 399, 42, 99, 150)
TOKENS = 12


@functools.cache
def model():
  return tiny.make()


def prompt(i):
  rng = np.random.default_rng(i)
  return tuple(int(t) for t in rng.integers(0, tiny.CONFIG.vocab_size, LENGTHS[i]))


def items(k=3, **changes):
  """k samples of each prompt; samples of a prompt stand apart, as a shuffled queue has them."""
  return [
    dataclasses.replace(Item(i, 1000 + i, 0, s, prompt(i)), **changes)
    for s in range(k)
    for i in range(len(LENGTHS))
  ]


def new_engine(**changes):
  config, params = model()
  settings = {
    'slots': 4,
    'bank_rows': 6,
    'prompt_capacity': 32,
    'completion_capacity': TOKENS,
    'steps': 4,
  }
  return Engine(hand_over(None, params), config, **(settings | changes))


@functools.cache
def engine():
  """The engine that most tests share: one compilation."""
  return new_engine()


def run(queue, sampling=None, on=None, **kwargs):
  sampling = sampling or Sampling(max_tokens=TOKENS)
  done = list((on or engine()).run(queue, sampling, **kwargs))
  assert len(done) == len(queue)
  return by_item(done)


def tokens_of(result):
  return {key: c.tokens.tolist() for key, c in result.items()}


@pytest.mark.parametrize('temperature', [0.6, 1.0])
@pytest.mark.parametrize('truncation', [{}, {'top_p': 0.8}, {'top_k': 5, 'top_p': 0.9}])
def test_logprobs_are_the_learners(temperature, truncation):
  config, params = model()
  sampling = Sampling(temperature, stop_ids=STOPS, max_tokens=TOKENS, **truncation)
  result = list(run(items(), sampling).values())
  T = 48
  rows = np.zeros((len(result), T), np.int32)
  for row, c in zip(rows, result, strict=True):
    row[: len(c.item.prompt_ids)] = c.item.prompt_ids
    row[len(c.item.prompt_ids) :][: len(c.tokens)] = c.tokens
  logprobs, _ = _score(params, rows, config=config, temperature=np.float32(temperature))
  for c, scored in zip(result, np.asarray(logprobs), strict=True):
    begin = len(c.item.prompt_ids)
    expected = scored[begin : begin + len(c.tokens)]
    np.testing.assert_allclose(c.logprobs, expected, rtol=0, atol=1e-4)
    assert np.ptp(c.logprobs) > 0.1 or len(c.tokens) < 3


_score = jax.jit(sequence_logprobs, static_argnames=('config',))


def test_completions_end_at_a_stop_token_or_at_the_limit():
  # the stop ids are tokens that an unstopped run drew in the middle
  free = run(items())
  stops = tuple({int(c.tokens[5]) for c in free.values()})[:8]
  stopped = run(items(), Sampling(stop_ids=stops, max_tokens=9))
  for key, c in stopped.items():
    # stopping changes nothing before the stop
    hits = np.flatnonzero(np.isin(free[key].tokens[:9], stops))
    length = int(hits[0]) + 1 if len(hits) else 9
    np.testing.assert_array_equal(c.tokens, free[key].tokens[:length])
    assert c.truncated == (not len(hits))
    assert c.tokens.dtype == np.int32
    assert c.logprobs.dtype == np.float32
  assert {c.truncated for c in stopped.values()} == {True, False}
  assert len({len(c.tokens) for c in stopped.values()}) > 3


def test_a_completion_of_one_token():
  result = run(items(), Sampling(max_tokens=1))
  assert all(len(c.tokens) == 1 and c.truncated for c in result.values())


def test_a_group_from_one_prefill_equals_separate_prefills():
  group = run(items(k=2))
  params = model()[1]
  separate = {}
  for item in items(k=2):
    engine().load(hand_over(None, params))  # forgets the prompts
    separate |= run([item])
  assert_identical(group, separate)


KEYS = {
  'seed': None,
  'stream': {'stream': 'probe'},
  'model_uid': {'model_uid': 1},
  'visit': {'visit': 1},
  'uid': {'uid': 5},
  'start': {'start': 1},
  'sample': {'sample': 77},
}


@pytest.mark.parametrize('part', KEYS)
def test_every_part_of_the_key_changes_the_tokens(part):
  base = run(items(k=1))
  if part == 'seed':
    other = run(items(k=1), on=new_engine(seed=1))
  elif part in ('stream', 'model_uid'):
    other = run(items(k=1), **KEYS[part])
  else:
    other = run(items(k=1, **KEYS[part]))
  pairs = zip(tokens_of(base).values(), tokens_of(other).values(), strict=True)
  assert all(a != b for a, b in pairs)


def test_nothing_else_changes_the_tokens():
  base = run(items(k=1))
  # the caller's own number of the problem, the company, and what ran before
  renamed = [Item(99 - i.problem, *list(vars(i).values())[1:]) for i in items(k=1)]
  other = {(99 - p, s): c for (p, s), c in run(renamed).items()}
  assert_identical(base, other)
  assert_identical(base, {k: c for k, c in run(items(k=3)).items() if k in base})
  assert_identical(base, run(items(k=1)))


def test_a_later_start_continues_the_numbering():
  # the same item, its first 4 tokens moved into the prompt: the uniforms go on from position 4
  [whole] = run(items(k=1)[:1]).values()
  item = whole.item
  turn = Item(0, item.uid, 0, 0, item.prompt_ids + tuple(whole.tokens[:4].tolist()), start=4)
  [rest] = run([turn]).values()
  np.testing.assert_array_equal(rest.tokens[: TOKENS - 4], whole.tokens[4:])


def test_greedy_is_the_argmax_of_the_plain_forward():
  config, params = model()
  greedy = Sampling(temperature=0.0, max_tokens=TOKENS)
  first = run(items(k=2), greedy)
  for c in first.values():
    z = plain_logits(params, config, c)
    top = np.sort(z, -1)
    clear = top[:, -1] - top[:, -2] > 1e-4
    np.testing.assert_array_equal(c.tokens[clear], z.argmax(-1)[clear])
    assert clear.mean() > 0.9
    check_logprobs(c, z, 1.0)
  assert_identical(first, run(items(k=2), greedy, stream='train', model_uid=3))


def test_settings_recompile_nothing():
  params = hand_over(None, model()[1])
  run(items(k=1), on=new_engine(slots=5))
  with compilations() as compiled:
    run(items(k=1), on=new_engine(slots=5, bank_rows=5))  # another state: the check sees it
  assert {'run_chunk', 'prefill', 'enqueue'} <= set(compiled)
  run(items(k=1))
  with compilations() as compiled:
    for sampling in (
      Sampling(0.0, max_tokens=3),
      Sampling(0.3, 0.5, 7, (1,), 5),
      Sampling(1.7, 1.0, 2, STOPS, TOKENS),
    ):
      for k in (1, 5):
        run(items(k=k, limit=k + 2), sampling, stream='train', model_uid=k)
    engine().load(params)
    run(items(k=1), on=new_engine(seed=4))
  assert not set(compiled) & {'run_chunk', 'prefill', 'enqueue', 'sample_keys'}, compiled


def test_forced_tokens_are_emitted_with_teacher_forced_logprobs():
  config, params = model()
  rng = np.random.default_rng(0)

  def force(i, n):
    return tuple(int(t) for t in rng.integers(0, 400, n))

  queue = [
    Item(i, i, 0, s, prompt(i), forced=force(i, TOKENS if s else 4))
    for i in range(len(LENGTHS))
    for s in range(2)
  ]
  queue.append(Item(9, 9, 0, 0, prompt(2)))  # free among them
  sampling = Sampling(0.6, max_tokens=TOKENS)
  result = run(queue, sampling)
  for c in result.values():
    check_logprobs(c, plain_logits(params, config, c), 0.6)
    if c.item.forced:
      assert tuple(c.tokens[: len(c.item.forced)].tolist()) == c.item.forced
    assert len(c.tokens) == TOKENS
  free = {(9, 0): result[9, 0]}
  assert_identical(free, run([queue[-1]], sampling))

  # a forced stop token ends the completion
  stop = Item(0, 0, 0, 0, prompt(3), forced=(5, 6, 7, 8))
  [c] = run([stop], Sampling(stop_ids=(7,), max_tokens=TOKENS)).values()
  assert c.tokens.tolist() == [5, 6, 7]
  assert not c.truncated


def test_abandoning_a_run_leaves_a_usable_engine():
  expected = run(items())
  half = engine().run(items(), Sampling(max_tokens=TOKENS))
  next(half)
  half.close()
  assert_identical(expected, run(items()))
  # not closed: another run begins, and the first says so
  half = engine().run(items(), Sampling(max_tokens=TOKENS))
  next(half)
  assert_identical(expected, run(items()))
  with pytest.raises(RuntimeError, match='began another'):
    next(half)
  assert_identical(expected, run(items()))
  # begun and never asked for anything
  engine().run(items(), Sampling(max_tokens=TOKENS))
  assert_identical(expected, run(items()))


def test_load_takes_new_params_and_forgets_prompts():
  config, params = model()
  other = tiny.make(seed=1)[1]
  mine = new_engine()
  before = run(items(k=1), on=mine)
  mine.load(hand_over(None, other))
  result = run(items(k=1), on=mine)
  for c in result.values():
    check_logprobs(c, plain_logits(other, config, c), 1.0)
  mine.free()
  with pytest.raises(ValueError, match=r'no params.*load'):
    mine.run(items(k=1), Sampling(max_tokens=TOKENS))
  mine.load(hand_over(None, params))
  assert_identical(before, run(items(k=1), on=mine))


def test_hand_over_rewrites_the_old_copy_and_leaves_the_learners():
  params = tiny.make()[1]
  other = jax.tree.map(jnp.copy, tiny.make(seed=1)[1])  # donated below
  sampler = hand_over(None, params)
  again = hand_over(sampler, other)  # warnings are errors: every donated leaf is used
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(sampler))
  for kept in (params, other):
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept))
  for got, expected in zip(
    jax.tree.leaves(again), jax.tree.leaves(hand_over(None, other)), strict=True
  ):
    np.testing.assert_array_equal(got, expected)
  # the learner donates its params to the update: the sampler's must be other buffers
  jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)(other)
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(again))


def test_a_limit_of_its_own_ends_an_item():
  free = run(items())
  limits = {key: 1 + 2 * i % TOKENS for i, key in enumerate(free)}
  queue = [dataclasses.replace(i, limit=limits[i.problem, i.sample]) for i in items()]
  for key, c in run(queue).items():
    np.testing.assert_array_equal(c.tokens, free[key].tokens[: limits[key]])
    assert c.truncated
  # a larger one than the run's is the run's
  long = run(items(k=1, limit=TOKENS + 5))
  assert_identical(long, {key: c for key, c in free.items() if key in long})


def test_an_iterator_is_asked_late_and_gives_the_same():
  expected = run(items(k=40))
  asked, seen, ahead = 0, {}, []

  def lazily():
    nonlocal asked
    for item in items(k=40):
      asked += 1
      yield item

  for c in engine().run(lazily(), Sampling(max_tokens=TOKENS)):
    seen[c.item.problem, c.item.sample] = c
    ahead.append(asked - len(seen))
  assert_identical(expected, seen)
  # 4 slots: no more is asked for than runs, waits for two chunks and is not yet read
  assert max(ahead) <= 4 + 4 * 4
  with pytest.raises(ValueError, match='problem 0 has 33 tokens'):
    list(engine().run(iter(items(k=1, prompt_ids=(1,) * 33)), Sampling(max_tokens=TOKENS)))
  with pytest.raises(ValueError, match='as a list'):
    list(engine().run(iter(items(k=1, forced=(1,))), Sampling(max_tokens=TOKENS)))


def test_stats_count_what_was_done():
  mine = new_engine()
  done = list(mine.run(items(k=2), Sampling(max_tokens=5)))
  stats = mine.stats
  assert stats.tokens == stats.live_steps == sum(len(c.tokens) for c in done) == 60
  assert stats.slot_steps == 4 * stats.steps == 60
  assert stats.occupancy == 1.0
  assert (stats.prompts, stats.evicted) == (6, 0)
  assert stats.prefill_tokens == sum(16 if n <= 16 else 32 for n in LENGTHS)
  # each of 12 completions reads 1..5 own tokens; prompts are counted once for whoever shares them
  own = 12 * (1 + 2 + 3 + 4 + 5)
  assert own < stats.kv_live <= own + 5 * 2 * sum(n - 1 for n in LENGTHS)
  assert stats.kv_live < stats.kv_read


def test_no_items_no_completions():
  assert run([]) == {}


ERRORS = {
  'long prompt': ({'prompt_ids': (1,) * 33}, {}, r'problem 0 has 33 tokens.*prompt_capacity=32'),
  'empty prompt': ({'prompt_ids': ()}, {}, 'problem 0 has 0 tokens'),
  'foreign token': ({'prompt_ids': (3, 400)}, {}, 'token ids from 3 to 400.* vocabulary has 400'),
  'limit': ({'limit': 0}, {}, 'limit=0 for problem 0 '),
  'forced too long': ({'forced': (1,) * 13}, {}, r'13 forced tokens.*max_tokens=12'),
  'foreign forced': ({'forced': (1, 400)}, {}, 'vocabulary of 400'),
  'max_tokens': ({}, {'max_tokens': 13}, 'sampling.max_tokens=13 .* capacity 12'),
  'no tokens': ({}, {'max_tokens': 0}, 'sampling.max_tokens=0 '),
  'top_p': ({}, {'top_p': 0.0}, 'sampling.top_p=0.0 '),
  'top_p above 1': ({}, {'top_p': 1.5}, 'sampling.top_p=1.5 '),
  'top_k': ({}, {'top_k': -1}, 'sampling.top_k=-1 '),
  'temperature': ({}, {'temperature': -0.5}, 'sampling.temperature=-0.5 '),
  'nan': ({}, {'temperature': float('nan')}, 'sampling.temperature=nan '),
  'stops': ({}, {'stop_ids': tuple(range(9))}, 'sampling.stop_ids=.* at most 8'),
}


@pytest.mark.parametrize('case', ERRORS)
def test_wrong_items_and_settings_are_refused_at_the_call(case):
  item, sampling, message = ERRORS[case]
  queue = items(k=1, **item)[:1]
  with pytest.raises(ValueError, match=message):
    engine().run(queue, Sampling(**({'max_tokens': TOKENS} | sampling)))


def test_unknown_streams_and_empty_engines_are_refused():
  with pytest.raises(ValueError, match="'dev' is none of train, eval, probe"):
    engine().run(items(), Sampling(max_tokens=TOKENS), stream='dev')
  for name in ('slots', 'bank_rows', 'steps'):
    key = 'chunk' if name == 'steps' else name
    with pytest.raises(ValueError, match=f'sampling.{key}=0 '):
      new_engine(**{name: 0})

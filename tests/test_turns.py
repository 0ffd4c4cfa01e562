"""Conversations: every token is what the contract says, whoever answers, and whenever."""

import collections
import functools
import hashlib
import json
import random
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from exactness import (
  MARGIN,
  assert_identical,
  by_item,
  log_softmax,
  on_a_boundary,
  plain_logits,
  two_level_cdf,
  uniforms,
)

from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.turns import Rules, converse
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.host_json import _turns_from_json, _turns_to_json
from rlvr_jax.rl.losses import denominators
from rlvr_jax.rl.policy_loss import policy_loss
from rlvr_jax.rl.rollout import assemble, layout_of, micro_batches
from rlvr_jax.rl.update import flatten
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.tasks import environments
from rlvr_jax.tasks.problem import Problem, Verdict

CAPACITY, MOST, TURNS = 64, 24, 3


@pytest.fixture(scope='module', autouse=True)
def quick():
  """Programs that compile fast."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


class Words:
  """A tokenizer whose token 17 is the text 'w17 '."""

  hf = None

  def decode(self, ids, *, skip_special=True):
    return ''.join(f'w{int(i)} ' for i in ids)

  def encode(self, text, *, special=True):
    return [int(word[1:]) for word in text.split()]


class SlowPool:
  """Answers by `respond`, after so many looks at the future as the generator says."""

  def __init__(self, respond, rng=None):
    self.respond, self.rng, self.calls = respond, rng or random.Random(0), 0

  def submit(self, problem, text):
    self.calls += 1
    return _Slow(self.respond(problem, text), self.rng.randrange(4))


class _Slow(Future):
  def __init__(self, verdict, looks):
    super().__init__()
    self._looks = looks
    self.set_result(verdict)

  def done(self):
    self._looks -= 1
    return self._looks < 0


def answered(reply):
  """The job that gives reply(state, completion)."""
  return lambda problem, text: Verdict('unparsed', 0.0, json.dumps(reply(*json.loads(text))))


def by_hash(state, completion):
  """One to three tokens that depend on the completion and on the state, or the end."""
  digest = hashlib.sha256(f'{state} {completion}'.encode()).digest()
  words = [f'w{digest[i]}' for i in range(1 + digest[3] % 3)]
  return (None if digest[4] < 40 else ' '.join(words)), (state or 0) + 1


def rules(**changes):
  """Conversations without a frame, about ten problems."""
  jobs = [Problem(str(i), 't', 'p', 'a', {}) for i in range(10)]
  plain = {'jobs': jobs, 'most': TURNS, 'frame': ('', ''), 'stops': (), 'at_end': True}
  return Rules(**{**plain, 'capacity': CAPACITY, 'version': 'v', **changes})


def items(count=12):
  rng = np.random.default_rng(1)
  prompts = [tuple(rng.integers(0, 400, n).tolist()) for n in (2, 9, 16, 21)]
  return [Item(i % 4, i % 4, i // 8, i // 4, prompts[i % 4]) for i in range(count)]


@functools.cache
def model():
  return tiny.make(num_layers=1)


@functools.cache
def engine(**changes):
  config, params = model()
  sizes = {'slots': 4, 'bank_rows': 4, 'prompt_capacity': CAPACITY, 'completion_capacity': MOST}
  return Engine(
    hand_over(None, params, None), config, **{**sizes, 'steps': 4, 'page': 16} | changes
  )


@functools.cache
def stops():
  """What the model writes most often, so that completions end after some five tokens."""
  drawn = engine().run(items(), Sampling(max_tokens=MOST))
  count = collections.Counter(t for c in drawn for t in c.tokens.tolist())
  return tuple(token for token, _ in count.most_common(8))


def sampling(**changes):
  return Sampling(stop_ids=stops(), max_tokens=MOST, **changes)


def talk(queue, *, on=None, pool=None, extras=False, **changes):
  """The conversations about the items."""
  tools: Any = {'tokenizer': Words(), 'pool': pool or SlowPool(answered(by_hash))}
  run = (on or engine()).run
  return list(converse(run, queue, sampling(extras=extras), rules(**changes), **tools))


@pytest.fixture(scope='module')
def talks():
  return talk(items())


def test_conversations_have_turns_and_their_pieces_are_whose_they_are(talks):
  assert sorted(c.turns.count for c in talks)[0] == 1
  assert max(c.turns.count for c in talks) == TURNS
  for c in talks:
    own = c.turns.sampled
    assert c.item in items()
    assert len(own) == len(c.tokens) == len(c.logprobs)
    assert own[0]
    assert own[-1]
    assert not c.logprobs[~own].any()
    assert (c.logprobs[own] < 0).all()
    assert c.drawn <= MOST
    begins = np.flatnonzero(np.diff(own.astype(int), prepend=0) == 1)
    assert (len(begins), begins[-1]) == (c.turns.count, c.turns.last)
    # every observation is the environment's answer to all that was written before it
    state = None
    for begin, after in zip(begins, [*begins[1:], None], strict=True):
      end = begin + int(np.argmin(np.append(own[begin:], False)))
      text = Words().decode(c.tokens[begin : end - 1])
      said, state = by_hash(state, text)
      assert int(c.tokens[end - 1]) in stops() or (after is None and c.truncated)
      if after is not None:
        assert Words().encode(said) == c.tokens[end:after].tolist()


def test_order_chunk_company_and_the_pool_change_nothing(talks):
  whole = by_item(talks)
  for seed, on in ((1, engine()), (2, engine(steps=3, pages=5, bank_rows=3))):
    rng = random.Random(seed)
    queue = items()
    rng.shuffle(queue)
    again = by_item(talk(queue, on=on, pool=SlowPool(answered(by_hash), rng)))
    assert_identical(whole, again)
    for key, one in whole.items():
      np.testing.assert_array_equal(one.turns.sampled, again[key].turns.sampled)
  some = by_item(talk(items()[3:5]))
  assert_identical({key: whole[key] for key in some}, some)


def test_every_token_is_drawn_from_its_own_key_and_the_plain_forward(talks):
  """Positions go on over observations, and the log-probs are those of one long completion."""
  config, params = model()
  checked = 0
  for c in talks:
    z = plain_logits(params, config, c)
    expected = log_softmax(z)[np.arange(len(c.tokens)), c.tokens]
    own = c.turns.sampled
    np.testing.assert_allclose(c.logprobs[own], expected[own], rtol=0, atol=MARGIN)
    u = uniforms(c.item, 64, seed=0, stream='eval', model_uid=0)
    for t in np.flatnonzero(own):
      if on_a_boundary(z[t], u[t], 1.0):
        continue
      outer, inside = two_level_cdf(np.exp(log_softmax(z[t])))
      block = int(np.searchsorted(outer, u[t][0], side='right'))
      place = int(np.searchsorted(inside[block], u[t][1], side='right'))
      assert block * inside.shape[1] + place == c.tokens[t]
      checked += 1
  assert checked > 100


def test_the_loss_sees_the_models_tokens_alone(talks):
  """Its gradient is 0 at observations, whatever stands there."""
  r = assemble(
    [c.item.prompt_ids for c in talks],
    [c.tokens for c in talks],
    sampler_logprobs=[c.logprobs for c in talks],
    group=[c.item.problem for c in talks],
    sampled=[c.turns.sampled for c in talks],
  )
  for i, c in enumerate(talks):
    begin = len(c.item.prompt_ids)
    where = np.flatnonzero(r.completion_mask[i])
    assert where.tolist() == (begin + np.flatnonzero(c.turns.sampled)).tolist()
    assert r.tokens[i, begin : begin + len(c.tokens)].tolist() == c.tokens.tolist()
  rng = np.random.default_rng(0)
  advantages = rng.normal(size=len(talks)).astype(np.float32)
  layout = layout_of(r, micro_tokens=4096)
  rows = jax.tree.map(lambda x: x[0], micro_batches(r, advantages, layout))
  outside = ~rows.completion_mask
  algorithm = choose('grpo')
  count = denominators(jnp.asarray(rows.completion_mask), MOST)

  @jax.jit
  def gradient(junk):
    """Of the loss in the log-probs, with junk where no token is the model's."""
    noise = jnp.where(outside, junk, 0.0)
    given = rows.replace(sampler_logprobs=rows.sampler_logprobs + noise)
    logprobs = given.sampler_logprobs + 0.01

    def loss(x):
      batch, rollouts = flatten(given, x, jnp.zeros_like(x))
      return policy_loss(batch, rollouts, count, algorithm)[0]

    return jax.grad(loss)(logprobs)

  plain = gradient(0.0)
  assert not plain[outside].any()
  assert plain[rows.completion_mask].all()
  np.testing.assert_array_equal(plain, gradient(-3.0))


def test_an_environments_rewards_are_of_the_turns_it_answered():
  def rewarded(state, completion):
    said, count = by_hash(state, completion)
    return (said, count, 0.5**count) if said else (None, count, 0.0)

  found = talk(items(), pool=SlowPool(answered(rewarded)))
  plain = by_item(talk(items()))
  for c in found:
    assert c.turns.rewards == tuple(0.5 ** (i + 1) for i in range(c.turns.count - 1))
  assert_identical(plain, by_item(found))
  assert {c.turns.rewards for c in plain.values()} <= {(), (0.0,), (0.0, 0.0)}


def test_tokens_and_turns_have_limits():
  def forever(state, completion):
    return 'w1 w2', state

  found = talk(items(), pool=SlowPool(answered(forever)), most=2)
  assert {c.turns.count for c in found} in ({1, 2}, {2})
  assert all(c.drawn == MOST for c in found if c.truncated)
  assert any(c.turns.count == 2 and not c.truncated for c in found)
  # without a limit on turns a conversation goes on until the tokens are used up
  free = talk(items(), pool=SlowPool(answered(forever)), most=99)
  assert max(c.turns.count for c in free) > 2
  assert all(c.drawn == MOST or int(c.tokens[-1]) in stops() for c in free)
  two = by_item(found)
  for key, c in by_item(free).items():
    assert c.tokens[: len(two[key].tokens)].tolist() == two[key].tokens.tolist()


def test_a_conversation_that_outgrows_the_prompt_ends_truncated_and_is_counted():
  def at_length(state, completion):
    return ' '.join(['w3'] * 30), state

  found = talk(items(), pool=SlowPool(answered(at_length)), most=9)
  over = [c for c in found if c.turns.outgrown]
  assert over
  for c in over:
    assert c.truncated
    assert c.turns.sampled[-1]
    assert len(c.item.prompt_ids) + len(c.tokens) + 30 > CAPACITY
  assert all(len(c.item.prompt_ids) + c.turns.last <= CAPACITY for c in found)


def test_what_stands_behind_a_stop_text_was_not_written():
  """The rest of an item is cut off, and is not among what the environment is shown."""
  shown = []

  def reply(state, completion):
    shown.append(completion)
    return 'w5', state

  texts = tuple(f'w{i} ' for i in range(1, 400, 20))
  alone = by_item(engine().run(items(), sampling()))
  found = talk(items(), pool=SlowPool(answered(reply)), stops=texts, at_end=False, most=2)
  for c in found:
    begin = [0, c.turns.last][c.turns.count - 1]
    for part in (c.tokens[begin:], c.tokens[: np.argmin(np.append(c.turns.sampled, False))]):
      assert not any(f'w{t} ' in texts for t in part[:-1])
    first = alone[c.item.problem, c.item.sample].tokens
    same = min(len(first), int(np.argmin(np.append(c.turns.sampled, False))))
    assert c.tokens[:same].tolist() == first[:same].tolist()
  assert any(c.turns.count == 2 for c in found)
  assert all(any(text.endswith(stop) for stop in texts) for text in shown)
  # asked once more at its last turn, a conversation is cut short; a stop token ends it well
  assert {c.truncated for c in found} == {True, False}


def test_a_token_that_goes_on_behind_a_stop_text_is_kept_and_not_shown():
  """As the token '><' of many vocabularies, where a tag is followed by another."""
  shown = []

  def reply(state, completion):
    shown.append(completion)
    return 'w5', state

  found = talk(items(), pool=SlowPool(answered(reply)), stops=('w2', 'w12'), at_end=False)
  assert len(shown) > 4
  assert all(text.endswith(('w2', 'w12')) for text in shown)
  ends = {int(c.tokens[c.turns.last - 2]) for c in found if c.turns.count > 1}
  assert ends - {2, 12}


def test_a_stop_text_of_several_tokens_ends_at_the_last_of_them():
  stop = 'w9'  # also within 'w90 ', 'w97 ', ...
  found = talk(items(), pool=SlowPool(answered(lambda state, text: ('w5', state))), stops=(stop,))
  for c in found:
    texts = [f'w{t} ' for t, own in zip(c.tokens, c.turns.sampled, strict=True) if own]
    assert sum(stop in text for text in texts) <= c.turns.count


def test_time_outs_are_said_and_errors_end_in_a_verdict():
  def dies(problem, text):
    if problem.id == '1':
      return Verdict('error', 0.0, '', 'ZeroDivisionError: (e.py:3)')
    return Verdict('timeout', 0.0, '', 'no verdict within 1 s')

  pool = SlowPool(dies)
  words = Words()
  words.encode = lambda text, special=True: [4, 2] if text == environments.TIMEOUT else [0]
  found = list(converse(engine().run, items(), sampling(), rules(), tokenizer=words, pool=pool))
  for c in found:
    observed = c.tokens[~c.turns.sampled].tolist()
    assert observed == [4, 2] * (c.turns.count - 1)
    assert bool(c.turns.failed) == (c.item.problem == 1 and int(c.tokens[-1]) in stops())
  judged = SlowPool(lambda problem, text: Verdict('correct', 1.0, text))
  tools: Any = {'problems': rules().jobs, 'tokenizer': Words(), 'pool': judged}
  for one in run_lib.score(found, stops(), **tools):
    c = one.completion
    if c.turns.failed:
      assert one.verdict.verdict == 'error'
      assert 'ZeroDivisionError' in one.verdict.reason
    else:
      end = len(c.tokens) - (int(c.tokens[-1]) in stops())
      assert one.verdict.extracted == Words().decode(c.tokens[c.turns.last : end])
      assert one.text == Words().decode(c.tokens[:end])


@pytest.mark.check
def test_extras_are_of_the_models_tokens(talks):
  more = by_item(talk(items(), extras=True))
  assert_identical(by_item(talks), more)
  for c in more.values():
    own = c.turns.sampled
    assert (c.entropies[own] > 0).all()
    assert not c.entropies[~own].any()
    np.testing.assert_allclose(c.truncated_logprobs, c.logprobs, rtol=0, atol=1e-5)


def test_without_an_environment_there_is_only_the_engine():
  tools: Any = {'tokenizer': None, 'pool': None}
  plain = by_item(engine().run(items(), sampling(), stream='train'))
  drawn = run_lib.draw(engine(), items(), sampling(), None, stream='train', **tools)
  assert_identical(plain, by_item(drawn))
  assert all(c.turns is None for c in plain.values())
  silent = talk(items(), pool=SlowPool(answered(lambda state, text: (None, state))))
  first = by_item(engine().run(items(), sampling()))
  assert_identical(first, by_item(silent))


def test_abandoned_conversations_leave_the_engine_usable(talks):
  tools: Any = {'tokenizer': Words(), 'pool': SlowPool(answered(by_hash))}
  drawn = converse(engine().run, items(), sampling(), rules(), **tools)
  next(drawn)
  drawn.close()
  assert_identical(by_item(talks), by_item(talk(items())))


def test_turns_survive_a_checkpoint(talks):
  for c in talks:
    again = _turns_from_json(json.loads(json.dumps(_turns_to_json(c.turns))))
    np.testing.assert_array_equal(again.sampled, c.turns.sampled, strict=True)
    assert (again.last, again.count, again.failed) == (c.turns.last, c.turns.count, '')
    assert again.rewards == c.turns.rewards

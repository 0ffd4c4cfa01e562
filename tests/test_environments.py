"""Environments: what answers a completion, and arithmetic that is exact."""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks import countdown, environments, prompts
from rlvr_jax.tasks.calculator import ArithmeticTextError, calculate
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_version


@pytest.fixture(scope='module')
def pool():
  with VerifierPool(1, limit_s=0.5) as pool:
    yield pool


def write(path, text):
  path.write_text(text)
  return str(path)


def reply(pool, problem, name, state, completion):
  job = environments.job_of(problem, name)
  return pool.verify([(job, environments.call_text(state, completion))])[0]


def test_retry_asks_the_problems_own_verifier(pool):
  problem = Problem('1', 'mine', 'p', '42', {})
  said = [
    environments.reply_of(reply(pool, problem, 'retry', state, text))
    for state, text in ((None, 'so \\boxed{42}'), (1, 'so \\boxed{41}'), (2, 'hm'))
  ]
  assert said == [
    (None, 1, 0),
    ('Your answer is wrong. Try again.', 2, 0),
    ('No final answer was found. Try again.', 3, 0),
  ]
  other = environments.job_of(Problem('1', 'mine', 'p', '42', {'verifier': 'countdown'}), 'retry')
  assert other.meta['judged by'] == ['countdown', verifier_version('countdown')]


def test_feedback_says_what_the_verifier_read_and_why(pool):
  def say(problem, state, text):
    return environments.reply_of(reply(pool, problem, 'feedback', state, text))

  maths = Problem('1', 'mine', 'p', '42', {})
  assert say(maths, None, 'so \\boxed{42}') == (None, 1, 0)
  said, state, reward = say(maths, 1, 'so \\boxed{41}')
  assert said.startswith('Your answer 41 is wrong')
  assert (state, reward) == (2, 0)
  assert say(maths, 2, 'hm') == ('No final answer was found (no answer). Try again.', 3, 0)
  sums = countdown.make_problems(1, seed=1)[0]
  text = next(t for t, v in countdown.expressions(tuple(sums.answer['numbers'])) if v == -6)
  assert say(sums, None, text)[0] == f'Your answer {text} is wrong (equals -6). Try again.'
  job = environments.job_of(Problem('1', 'mine', 'p', {}, {'verifier': 'code'}), 'feedback')
  assert job.meta['verifier'] == 'programs:feedback'


def test_the_calculator_answers_what_ends_in_a_question(pool):
  problem = Problem('1', 'mine', 'p', '42', {})

  def say(text):
    return environments.reply_of(reply(pool, problem, 'calculator', None, text))[0]

  assert say('it is <calc>6 * 7</calc>') == '<result>42</result>'
  assert say('<calc>1</calc> and <calc>1/3 +\n1/6</calc>\n') == '<result>1/2</result>'
  assert say('<calc>1/0</calc>') == '<result>error: division by zero</result>'
  assert say('<calc>__import__("os")</calc>').startswith('<result>error: only numbers')
  assert say('<calc>1</calc> is one') is None


def test_a_python_session_runs_in_the_sandbox():
  problem = Problem('1', 'mine', 'p', '42', {})

  def say(pool, state, program):
    text = f'Let me see: <python>{program}</python>'
    verdict = reply(pool, problem, 'python', state, text)
    if verdict.verdict == 'timeout':
      return environments.TIMEOUT, state
    assert verdict.verdict == 'unparsed', verdict.reason
    return environments.reply_of(verdict)[:2]

  with VerifierPool(1, limit_s=1.0) as pool:
    said, state = say(pool, None, 'x = 6\nprint("here")\n')
    assert said == '<output>here\n</output>'
    assert say(pool, state, 'print(7 * x)')[0] == '<output>42\n</output>'
    said, after = say(pool, state, 'print(1)\ny = 1 / 0')
    assert said == '<output>1\nZeroDivisionError: division by zero</output>'
    assert after == state
    secret = say(pool, state, 'open("/etc/passwd").read()')[0]
    assert 'PermissionError' in secret
    assert say(pool, state, 'while True: pass')[0] == environments.TIMEOUT
    assert environments.reply_of(reply(pool, problem, 'python', None, 'no program'))[0] is None


ENVIRONMENT = """
import time
from rlvr_jax.tasks.environments import Environment

def long(problem, state, completion):
  return 'x' * 3000, {'seen': [completion, state]}

def sleeps(problem, state, completion):
  time.sleep(60)

def no_pair(problem, state, completion):
  return 'again'

def number(problem, state, completion):
  return 3, None

def praised(problem, state, completion):
  return completion, state, 0.25

def not_finite(problem, state, completion):
  return 'again', state, float('nan')

def at_the_end(problem, state, completion):
  return None, state, 1

def odd_state(problem, state, completion):
  return 'again', {1, 2}

at_a_mark = Environment(long, stops=('##',), at_end=False, inline=True)
nothing = 5
"""


def test_environments_of_files(tmp_path, pool):
  path = write(tmp_path / 'own_env.py', ENVIRONMENT)
  problem = Problem('1', 'mine', 'p', '42', {})
  observation, state, _ = environments.reply_of(reply(pool, problem, f'{path}:long', 7, 'a'))
  assert observation == 'x' * 3000
  assert state == {'seen': ['a', 7]}
  praised = environments.reply_of(reply(pool, problem, f'{path}:praised', None, 'a'))
  assert praised == ('a', None, 0.25)
  assert environments.find(f'{path}:at_a_mark').stops == ('##',)
  assert reply(pool, problem, f'{path}:sleeps', None, 'a').verdict == 'timeout'
  for name, why in (
    ('no_pair', r'returned a str; return \(observation or None, state\)'),
    ('number', 'the observation 3 is neither text nor None'),
    ('not_finite', 'the reward nan is no finite number'),
    ('at_the_end', 'with the observation None return 0, not 1'),
    ('odd_state', 'the state must be a JSON value'),
  ):
    verdict = reply(pool, problem, f'{path}:{name}', None, 'a')
    assert verdict.verdict == 'error'
    with pytest.raises(ValueError, match=why):
      raise ValueError(verdict.reason)
  with pytest.raises(ValueError, match='is 5: expected a function'):
    environments.find(f'{path}:nothing')
  with pytest.raises(ValueError, match='it would never be asked'):
    environments.Environment(environments.retry, at_end=False)
  with pytest.raises(ValueError, match=r"stops='##' must be texts"):
    environments.Environment(environments.retry, stops='##')  # type: ignore[arg-type]


def expressions():
  number = st.integers(0, 50).map(str) | st.decimals(0, 9, places=2).map(str)
  return st.recursive(
    number,
    lambda inner: st.tuples(inner, st.sampled_from('+-*/'), inner).map(
      lambda t: f'({t[0]}{t[1]}{t[2]})'
    ),
    max_leaves=12,
  )


def by_hand(text):
  """The value by Python's own Fractions; None where it divides by 0."""
  import re

  source = re.sub(r'[0-9.]+', lambda m: f'Fraction("{m[0]}")', text)
  try:
    return Fraction(eval(source, {'Fraction': Fraction}))
  except ZeroDivisionError:
    return None


@settings(max_examples=100, deadline=None)
@given(expressions())
def test_calculations_are_exact(text):
  expected = by_hand(text)
  if len(text) > 300:
    return
  if expected is None:
    with pytest.raises(ArithmeticTextError, match='division by zero'):
      calculate(text)
  else:
    assert calculate(text) == str(expected)


@settings(max_examples=100, deadline=None)
@given(st.text('0123456789.+-*/^() \u00d7\u2212_eax', max_size=60) | st.text(max_size=30))
def test_no_text_does_more_than_be_refused(text):
  try:
    value = calculate(text)
  except ArithmeticTextError:
    return
  assert len(value) < 3000
  assert Fraction(value) == Fraction(value)


def test_powers_stay_small():
  assert calculate('2^10') == '1024'
  assert calculate('(-1)^99999') == '-1'
  assert calculate('2^-2') == '1/4'
  assert calculate('007+0') == '7'
  for text in ('9^9^9', '2^5000', '(1/3)^99999', '2^0.5', '0^-1', '9' * 301, '(' * 200 + '1'):
    with pytest.raises(ArithmeticTextError):
      calculate(text)


def test_a_further_turn_is_what_the_chat_template_writes():
  class Chat:
    chat_template = 'x'

    def apply_chat_template(self, conversation, *, tokenize, add_generation_prompt):
      said = ''.join(f'<{m["role"]}>{m["content"]}<end>' for m in conversation)
      return said + '<assistant>' * add_generation_prompt

  assert prompts.frame('chat', Chat()) == ('<end><user>', '<end><assistant>')
  begun = '<end><assistant>' + prompts.assistant_prefix('evalplus')
  assert prompts.frame('evalplus', Chat()) == ('<end><user>', begun)
  Chat.apply_chat_template = lambda self, conversation, **_: conversation[-1]['content']
  with pytest.raises(ValueError, match='does not show a conversation'):
    prompts.frame('chat', Chat())
  assert prompts.frame('qwen-boxed')[1].endswith('<|im_start|>assistant\n')
  assert prompts.frame('livecodebench')[1].endswith('<|im_start|>assistant\n```python')
  for template in prompts.TEMPLATES:
    before, after = prompts.frame(template)
    assert all((before, after))


def test_conversations_of_a_file_are_json(tmp_path):
  text = environments.call_text({'a': 1}, 'x\ud800')
  assert json.loads(text) == [{'a': 1}, 'x\ud800']

"""Tasks, environments and reward parts in files of the user's; what does not fit is refused."""

import json
import pathlib
from types import SimpleNamespace

import loops
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import base
from rlvr_jax import config as config_lib
from rlvr_jax import config_keys
from rlvr_jax.eval.run import Scored
from rlvr_jax.rl import collect, parts
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.sampling.types import Completion, Item, Turns
from rlvr_jax.tasks import environments, prompts, user_file
from rlvr_jax.tasks import load as load_lib
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import verifier_name

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUMS = str(ROOT / 'docs' / 'examples' / 'sums.py')
PYTHON_TOOL = str(ROOT / 'docs' / 'examples' / 'python_tool.py')


@pytest.fixture(scope='module')
def pool():
  with VerifierPool(1, limit_s=0.5) as pool:
    yield pool


def task(**changes):
  """A task group."""
  config = base.get_config()
  for key, value in changes.items():
    config_lib.set_key(config, f'task.{key}', value, 'test')
  return config.task


def write(path, text):
  path.write_text(text)
  return str(path)


# --- a task in one file


def test_the_example_is_a_task(pool):
  train, heldout = load_lib.load_problems(task(module=SUMS, holdout=3, params={'count': 8}))
  assert [p.id for p in heldout + train] == [str(i) for i in range(8)]
  problem = train[0]
  assert (problem.task, verifier_name(problem)) == ('sums', f'{SUMS}:verify')
  right = str(problem.answer)
  verdicts = pool.verify([(problem, f'1, no {right}'), (problem, f'{right}, no 1')])
  assert [v.verdict for v in verdicts] == ['correct', 'wrong']
  assert load_lib.family(task(module=SUMS)).ALPHABET.startswith('0123')
  assert load_lib.environment_of(task(module=SUMS)) == f'{SUMS}:environment'


def test_the_example_with_a_python_session_reads_gsm8k_and_says_what_there_is(pool, tmp_path):
  lines = [
    {'question': f'{i} and {i}?', 'answer': f'It is <<{i}>>.\n#### 1,00{i}'} for i in range(3)
  ]
  path = write(tmp_path / 'lines.jsonl', ''.join(json.dumps(line) + '\n' for line in lines))
  group = task(module=PYTHON_TOOL, params={'path': path, 'count': 2})
  found, _ = load_lib.load_problems(group)
  assert [p.id for p in found] == ['0', '1']
  assert found[1].prompt.endswith('</output>The answer is \\boxed{34}.\n\nProblem: 1 and 1?')
  verdicts = pool.verify([(found[1], 'So it is \\boxed{1001}.'), (found[1], '\\boxed{1000}')])
  assert [v.verdict for v in verdicts] == ['correct', 'wrong']
  assert environments.find(load_lib.environment_of(group)).respond is environments.python


def test_what_a_file_may_give_and_how_it_becomes_problems(tmp_path):
  path = write(
    tmp_path / 'own.py',
    'from rlvr_jax.tasks.problem import Problem\n'
    "environment = 'retry'\n"
    'def prompt(problem):\n'
    "  return [{'role': 'user', 'content': problem.prompt + '!'}]\n"
    'def problems(params):\n'
    "  if params.get('dicts'):\n"
    "    return [{'question': 'a', 'answer': 'b', 'tests': [1, 2], 'only_here': 1},\n"
    "            {'question': 'c', 'answer': 'd', 'tests': [3]}]\n"
    "  return (Problem(str(i), 'mine', 'p', '1', {}) for i in range(10**9))\n",
  )
  endless, _ = load_lib.load_problems(task(module=path, limit=3))
  assert [(p.id, p.task, p.prompt[0]['content']) for p in endless] == [
    (str(i), 'mine', 'p!') for i in range(3)
  ]
  assert 'verifier' not in endless[0].meta
  dicts, _ = load_lib.load_problems(task(module=path, params={'dicts': 1}, verifier='math'))
  assert [(p.task, p.answer, dict(p.meta)) for p in dicts] == [
    ('own', 'b', {'tests': [1, 2], 'verifier': 'math'}),
    ('own', 'd', {'tests': [3], 'verifier': 'math'}),
  ]
  assert load_lib.environment_of(task(module=path)) == f'{path}:environment'
  assert environments.find(f'{path}:environment').respond is environments.retry


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('x = 1', "has no function 'problems'; it defines x"),
    ('problems = [1]', 'problems is a list, not a function of params'),
    ('def problems(params): return 3', r'gave a int; it must give Problems or dicts'),
    ("def problems(params): return 'abc'", r'gave a str; it must give Problems'),
    ('def problems(params): return []', r'gave nothing, with params=\{\}'),
    ('def problems(params): return [1, {}]', 'gave dict, int; give Problems alone'),
    ("def problems(params): return [{'question': 'a'}]", r'problem 0: no answer column'),
    (
      "verify = 3\ndef problems(params): return [{'question': 'a', 'answer': '1'}]",
      'verify is a int, not a function',
    ),
    (
      "prompt = 'x'\ndef problems(params): return [{'question': 'a', 'answer': '1'}]",
      r"prompt='x' must have \{input\}",
    ),
    (
      "def prompt(p): return 7\ndef problems(params): return [{'question': 'a', 'answer': '1'}]",
      r'prompt\(problem\) gave 7',
    ),
  ],
)
def test_a_file_that_is_no_task_says_what_is_wrong(tmp_path, text, message):
  path = write(tmp_path / 'task.py', text)
  with pytest.raises(ValueError, match=message):
    load_lib.load_problems(task(module=path))


def test_the_files_content_is_what_stands_for_it(tmp_path):
  path = tmp_path / 'task.py'
  one = task(module=write(path, 'def problems(params): return [1]'))
  before, version = load_lib.content_hash(one), user_file.version(path, 'problems')
  assert load_lib.content_hash(task(module=str(path), params={'count': 5})) == before
  assert load_lib.content_hash(task(module=str(path), params={'largest': 5})) != before
  write(path, 'def problems(params): return [2]')
  assert load_lib.content_hash(one) != before
  assert user_file.version(path, 'problems') != version


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'task.module': 'no.py'}, r"task.module='no.py': there is no file"),
    ({'task.module': 'my_task'}, r'is not a Python file'),
    ({'task.module': str(ROOT / 'main.py')}, r'does not define problems; it defines .*parse_flags'),
    ({'task.environment': 'retyr'}, r"did you mean 'retry'\?"),
    ({'task.environment': 'no.py:f'}, 'there is no file'),
    ({'task.turns': 0}, r'task.turns=0'),
    ({'reward.parts': {'corect': 1.0}}, r"reward.parts\['corect'\] .* did you mean 'correct'\?"),
    ({'reward.parts': {'correct': float('nan')}}, r"\['correct'\]=nan: a weight is a finite"),
    ({'reward.parts': {'correct': True}}, 'a weight is a finite number'),
    ({'reward.parts': {'correct': '1'}}, 'a weight is a finite number'),
    ({'reward.parts': {'correct': 0.0}}, 'rewards nothing'),
    ({'reward.parts': {}}, 'rewards nothing'),
    ({'reward.parts': {'no.py:f': 1.0}}, 'there is no file'),
    ({'reward.parts': {f'{SUMS}:brif': 1.0}}, r'does not define brif; it defines .*brief'),
  ],
)
def test_a_config_names_only_what_is_there(values, message):
  with pytest.raises(ValueError, match=message):
    config_lib.resolve(base.get_config(), values)


def test_names_in_configs_are_those_of_the_tables():
  assert set(config_keys.PARTS) == {'correct', *parts.PARTS}
  assert set(config_keys.ENVIRONMENTS) == set(environments.ENVIRONMENTS)
  assert all(len(prompts.frame(name)) == 2 for name in prompts.TEMPLATES)


# --- parts of a reward


def scored(verdict, tokens=3, truncated=False, turns=None, values=None):
  item = Item(0, 1, 0, 0, (1,))
  completion = Completion(
    item, np.zeros(tokens, np.int32), np.zeros(tokens, np.float32), truncated, turns=turns
  )
  return Scored(completion, 'text', Verdict(verdict, float(verdict == 'correct')), values or {})


def config_of(**weights):
  return SimpleNamespace(
    reward=SimpleNamespace(parts=weights, control='none'),
    sampling=SimpleNamespace(max_tokens=10),
    seed=0,
  )


def test_parts_are_summed_with_their_weights_and_logged_raw_and_weighted():
  talk = Turns(np.array([True, False, True]), 2, 2)
  group = collect.Group(
    0, 0, [scored('correct', 5), scored('wrong', 10, True), scored('unparsed'),
           scored('correct', 3, turns=talk)],
  )  # fmt: skip
  config = config_of(
    correct=1.0, format=0.1, truncated=-0.5, length_share=-1.0, length=0.01, turns=2.0
  )
  expected = [
    1 + 0.1 - 0.5 + 0.05 + 2,
    0.1 - 0.5 - 1 + 0.1 + 2,
    -0.3 + 0.03 + 2,
    1 + 0.1 - 0.2 + 0.02 + 4,
  ]
  rewards = collect.rewards_of(config, group)
  assert rewards.dtype == np.float32
  np.testing.assert_allclose(rewards, expected, rtol=1e-6)
  row = collect.part_metrics(config, [group])
  assert row['reward/part/format'] == 0.75
  assert row['reward/part/format/weighted'] == pytest.approx(0.075)
  weighted = sum(value for key, value in row.items() if key.endswith('/weighted'))
  assert weighted == pytest.approx(rewards.mean(), rel=1e-6)
  assert group.correct.tolist() == [True, False, False, True]


@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=8))
def test_the_default_is_the_verifiers_reward_to_the_bit(values):
  correct = np.array(values, np.float32)
  some = [scored('wrong') for _ in values]
  assert parts.total(config_of(correct=1.0), some, correct) is correct
  # and so is the sum with a part of weight 0
  total = parts.total(config_of(correct=1.0, format=0.0), some, correct)
  np.testing.assert_array_equal(total, correct, strict=True)
  assert parts.metrics(config_of(correct=1.0), [(some, correct)]) == {}


def test_algorithms_that_ask_for_right_or_wrong_take_no_other_parts():
  def rewarding(weights):
    config = loops.config()
    config.reward.parts = base.dotted(weights)
    return config

  parts.check_fits(rewarding({'correct': 1.0}), choose('psr'))
  parts.check_fits(rewarding({'correct': 1.0, 'format': 0.1}), choose('grpo'))
  for row in (choose('pkpo'), choose('grpo', scale='bernoulli_std')):
    for weights in ({'correct': 1.0, 'format': 0.1}, {'correct': 0.5}, {'exact': 2.0}):
      with pytest.raises(ValueError, match='asks whether an answer is right'):
        parts.check_fits(rewarding(weights), row)
    parts.check_fits(rewarding({'exact': 1.0}), row)


def test_a_truncated_reward_is_right_or_wrong_to_rows_that_ask():
  def config(**reward):
    return loops.config(**{f'reward.{key}': value for key, value in reward.items()})

  for row in (choose('maxrl'), choose('grpo', scale='bernoulli_std'), choose('psr')):
    for reward in ({'truncated_score': 0.3}, {'truncated_scale': 0.7}):
      with pytest.raises(ValueError, match=r'reward.truncated_\w+=0.[37] does not tell; set'):
        parts.check_fits(config(**reward), row)
    for reward in ({'truncated_score': 0.0}, {'truncated_scale': 0.0}, {}):
      parts.check_fits(config(**reward), row)
  parts.check_fits(config(truncated_score=-1.0), choose('psr'))
  parts.check_fits(config(truncated_score=-1.0), choose('grpo'))
  with pytest.raises(ValueError, match=r'reward.truncated_score=-1.0 does not tell'):
    parts.check_fits(config(truncated_score=-1.0), choose('maxrl'))


def test_passk_training_needs_more_than_k():
  config = loops.config(**{'train.group': 4})
  with pytest.raises(ValueError, match=r'train.group=4 and train.pass_k=4: the whole group'):
    parts.check_fits(config, choose('passk_training'))
  parts.check_fits(config, choose('passk_training', pass_k=3))
  parts.check_fits(config, choose('pkpo'))


PARTS = """
import time

def size(completion, length):
  return len(completion) / length

def right(verdict, problem, **others):
  return verdict.verdict == 'correct' and problem.answer == 'a'

def slow(completion, truncated):
  if truncated:
    time.sleep(60)
  return 1

def broken(completion):
  return 1 / 0

def text(completion):
  return 'a'

def huge(completion):
  return float('inf')

def strange(reward):
  return 1
"""


def ask(pool, names, some):
  problem = Problem('1', 't', 'p', 'a', {'verifier': 'none'})
  files = parts.FileParts(names, [problem], pool)
  for one in some:
    files.add(one)
  return files.all()


def test_parts_of_files_run_in_the_pool(tmp_path, pool, caplog):
  path = write(tmp_path / 'own_parts.py', PARTS)
  size, right, slow = (f'{path}:{name}' for name in ('size', 'right', 'slow'))
  some = [scored('correct', 4), scored('wrong', 2, truncated=True)]
  found = ask(pool, (size, right, slow), some)
  assert [s.parts[size] for s in found] == [1.0, 2.0]
  assert [s.parts[right] for s in found] == [1.0, 0.0]
  assert [s.parts[slow] for s in found] == [1.0, 0.0]  # the second took too long
  assert 'failed on 1 of 2 completions: no verdict within 0.5 s; there it is worth 0' in caplog.text
  assert [s.verdict for s in found] == [s.verdict for s in some]
  config = config_of(correct=1.0, **{slow: -1.0, size: 0.5})
  correct = np.array([1, 0], np.float32)
  assert parts.total(config, found, correct).tolist() == [0.5, 1.0]
  row = parts.metrics(config, [(found, correct)])
  assert row[f'reward/part/{slow}/failed'] == 0.5
  for name, message in (
    ('broken', r'failed on 2 of 2 completions: ZeroDivisionError'),
    ('text', 'returned a str; return a number'),
    ('huge', 'gave inf; it must be finite'),
  ):
    with pytest.raises(RuntimeError, match=message):
      ask(pool, (f'{path}:{name}',), some)
  with pytest.raises(ValueError, match=r'takes reward; a part may take problem, completion'):
    ask(pool, (f'{path}:strange',), some)

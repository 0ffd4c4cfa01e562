"""Environments: what a task says to a completion, after which the model goes on writing.

An environment is a pure function in a frame that says when it is asked:

  def respond(problem, state, completion):
    return observation, state  # the observation None ends the conversation
    return observation, state, reward  # of this turn (reward.parts: environment)

state is a JSON value of the environment's own, None at the start. It runs in the verifier pool,
under its limits, and equal calls are made once (journal.py), so it must be deterministic; one that
raises TimeoutError took too long. The verdict of a conversation is that of its last completion,
whose reward is the verifier's: turns that the conversation goes on after may have one of their own.
"""

import dataclasses
import functools
import json
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from rlvr_jax.config_keys import ENVIRONMENTS as NAMES
from rlvr_jax.tasks import countdown_turns, machines_turns, user_file
from rlvr_jax.tasks.calculator import ArithmeticTextError, calculate
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import (
  JUDGE,
  as_call,
  load_verifier,
  of_call,
  runs_programs,
  verifier_name,
)

# (observation, state), or with the turn's reward behind them
Reply = tuple[str | None, Any] | tuple[str | None, Any, float]
Respond = Callable[[Problem, Any, str], Reply]
TIMEOUT = 'Time limit exceeded.'  # the observation of a call that took too long
WHAT = 'task.environment'


@dataclasses.dataclass(frozen=True)
class Environment:
  """respond, and when it is asked.

  stops: texts that end a completion as its stop token does; what the model wrote behind one is cut
  off, but for the rest of a token, which stays and is not shown to respond. at_end: whether
  completions that end by the stop token are answered, or the conversation's last. inline: the
  observation follows the completion as it is, in the model's own turn; else it is a turn of the
  user's in the prompt's template. rules: the version of a built-in.
  """

  respond: Respond
  stops: tuple[str, ...] = ()
  at_end: bool = True
  inline: bool = False
  rules: str = ''

  def __post_init__(self):
    if not callable(self.respond):
      raise ValueError(
        f'{WHAT}: respond is a {type(self.respond).__name__}, where a function of (problem, state, '
        'completion) is expected'
      )
    if isinstance(self.stops, str) or not all(isinstance(s, str) and s for s in self.stops):
      raise ValueError(f"{WHAT}: stops={self.stops!r} must be texts, as ('</calc>',)")
    if not self.stops and not self.at_end:
      raise ValueError(f'{WHAT}: with at_end=False and no stops it would never be asked')


def retry(problem: Problem, state: Any, completion: str) -> tuple[str | None, Any]:
  """'Wrong, try again' by the problem's own verifier, until it is right; state counts the tries."""
  judged, tries = _judged(problem, completion), (state or 0) + 1
  if judged.verdict == 'correct':
    return None, tries
  if judged.verdict == 'unparsed':
    return 'No final answer was found. Try again.', tries
  return 'Your answer is wrong. Try again.', tries


_MOST_QUOTED = 200  # characters of an answer that feedback repeats


def feedback(problem: Problem, state: Any, completion: str) -> tuple[str | None, Any, float]:
  """What the problem's own verifier says of an answer, until it is right; state counts the tries.

  The answer as the verifier read it, and its reason. The turn's reward is the verifier's: 0 unless
  it gives wrong answers some. Of a program the reason may be a test that failed, with its result.
  """
  judged, tries = _judged(problem, completion), (state or 0) + 1
  if judged.verdict == 'correct':
    return None, tries, 0.0
  reason = f' ({judged.reason})' if judged.reason else ''
  if judged.verdict == 'unparsed':
    return f'No final answer was found{reason}. Try again.', tries, judged.reward
  read = judged.extracted.strip()
  shown = f' {read}' if 0 < len(read) <= _MOST_QUOTED else ''
  return f'Your answer{shown} is wrong{reason}. Try again.', tries, judged.reward


def _judged(problem: Problem, completion: str) -> Verdict:
  judged = load_verifier(*problem.meta[JUDGE])(problem, completion)
  if judged.verdict == 'timeout':
    raise TimeoutError(judged.reason)
  if judged.verdict == 'error':
    raise RuntimeError(judged.reason)
  return judged


_CALC = re.compile(r'<calc>((?:(?!<calc>).)*)</calc>\s*\Z', re.DOTALL)


def calculator(problem: Problem, state: Any, completion: str) -> tuple[str | None, Any]:
  """<result>VALUE</result> for a completion that ends in <calc>EXPRESSION</calc>."""
  found = _CALC.search(completion)
  if found is None:
    return None, state
  try:
    value = calculate(found[1])
  except ArithmeticTextError as error:
    value = f'error: {error}'
  return f'<result>{value}</result>', state


_PROGRAM = re.compile(r'<python>((?:(?!<python>).)*)</python>\s*\Z', re.DOTALL)
_LINE = re.compile(r' \(line [0-9]+\)\Z')  # of _SESSION, which nobody has seen
_MOST_SHOWN = 2000  # characters of a program's output
# what earlier programs of the conversation defined is there, what they printed is not
_SESSION = """import contextlib, io
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
  for source in {earlier!r}:
    exec(source, globals())
exec({program!r}, globals())
"""


def python(problem: Problem, state: Any, completion: str) -> tuple[str | None, Any]:
  """<output>TEXT</output> for a completion that ends in <python>PROGRAM</python>.

  The program runs in the sandbox, after those of the conversation that ended well; state is the
  list of these. TEXT is what it printed, and the last line of its traceback.
  """
  from rlvr_jax.tasks import code  # the sandbox is there only where programs run
  from rlvr_jax.tasks.sandbox.confine import Limits
  from rlvr_jax.tasks.settings import SETTINGS

  found = _PROGRAM.search(completion)
  if found is None:
    return None, state
  earlier, program = list(state or []), textwrap.dedent(found[1])
  limits = Limits(2 * SETTINGS.limit_s, SETTINGS.limit_s, SETTINGS.memory_mb)
  source = _SESSION.format(earlier=earlier, program=program)
  outcome = code.sandbox().run_main(source, '', limits)
  why = outcome.why(limits)
  if outcome.timed_out:
    raise TimeoutError(why)
  text = outcome.stdout.decode(errors='replace')
  if len(text) > _MOST_SHOWN:
    text = f'{text[:_MOST_SHOWN]}...'
  if not why:
    return f'<output>{text}</output>', [*earlier, program]
  lines = outcome.stderr.decode(errors='replace').strip().splitlines()
  last = _LINE.sub('', lines[-1][:_MOST_SHOWN]) if lines else why
  return f'<output>{text}{last}</output>', earlier


ENVIRONMENTS: dict[str, Environment] = {
  'retry': Environment(retry, rules='retry-1'),
  'feedback': Environment(feedback, rules='feedback-1'),
  # of the tasks countdown_turns and machines_turns, in their alphabets
  'countdown_value': Environment(countdown_turns.value, inline=True, rules=countdown_turns.RULES),
  'countdown_again': Environment(countdown_turns.again, inline=True, rules=countdown_turns.RULES),
  'machines_case': Environment(machines_turns.case, inline=True, rules=machines_turns.RULES),
  'calculator': Environment(
    calculator, stops=('</calc>',), at_end=False, inline=True, rules='calculator-2'
  ),
  'python': Environment(python, stops=('</python>',), at_end=False, inline=True, rules='python-2'),
}


def find(name: str) -> Environment:
  """The environment of a name: a built-in, or 'file.py:name' of a function or an Environment.

  Raises ValueError for any other, naming the nearest.
  """
  if name in ENVIRONMENTS:
    return ENVIRONMENTS[name]
  found = user_file.find(*_place(name), f'{WHAT}={name!r}')
  if isinstance(found, Environment):
    return found
  if isinstance(found, str) and found in ENVIRONMENTS:
    return ENVIRONMENTS[found]
  if callable(found):
    return Environment(cast(Respond, found))
  raise ValueError(
    f'{WHAT}={name!r} is {found!r}: expected a function of (problem, state, completion), an '
    f'Environment, or one of {", ".join(ENVIRONMENTS)}'
  )


def version(name: str) -> str:
  """The version of an environment's rules; of a file's, its content."""
  if name in ENVIRONMENTS:
    return ENVIRONMENTS[name].rules
  return user_file.version(*_place(name))


def load(name: str) -> Callable[[Problem, str], Verdict]:
  """The environment as a job of the pool: text is JSON [state, completion], extracted the reply.

  Raises ValueError if programs would run below the level of sandbox that is asked for.
  """
  if find(name).respond is python:
    from rlvr_jax.tasks import code

    code.prepare()
  return functools.partial(_reply, name, find(name))


def call_text(state: Any, completion: str) -> str:
  """The text of such a job."""
  return json.dumps([state, completion])


def reply_of(verdict: Verdict) -> tuple[str | None, Any, float]:
  """(observation, state, reward) from what such a job gave; the reward 0 where it gave none."""
  observation, state, *reward = json.loads(verdict.extracted)
  return observation, state, float(reward[0]) if reward else 0.0


def job_of(problem: Problem, name: str) -> Problem:
  """The problem as that of calls of the named environment; see registry.as_call."""
  judges = name in ('retry', 'feedback') and runs_programs(verifier_name(problem))
  programs = name == 'python' or judges
  return as_call(problem, f'{"programs" if programs else "environment"}:{name}')


def _reply(name: str, environment: Environment, problem: Problem, text: str) -> Verdict:
  state, completion = json.loads(text)
  try:
    reply = environment.respond(of_call(problem), state, completion)
  except TimeoutError as error:
    return Verdict('timeout', 0.0, '', str(error))
  if not isinstance(reply, tuple) or len(reply) not in (2, 3):
    raise TypeError(
      f'environment {name} returned a {type(reply).__name__}; return (observation or None, state), '
      'or a reward of the turn behind them'
    )
  if not isinstance(reply[0], str | None) or reply[0] == '':
    raise TypeError(f'environment {name}: the observation {reply[0]!r} is neither text nor None')
  for reward in reply[2:]:
    if not isinstance(reward, bool | int | float) or not math.isfinite(reward):
      raise TypeError(f'environment {name}: the reward {reward!r} is no finite number')
    if reward and reply[0] is None:
      raise TypeError(
        f"environment {name}: the reward of a conversation's last turn is its verifier's; with the "
        f'observation None return 0, not {reward}'
      )
  try:
    return Verdict('unparsed', 0.0, json.dumps(reply))
  except TypeError as error:
    raise TypeError(f'environment {name}: the state must be a JSON value ({error})') from error


def _place(name: str) -> tuple[Path, str]:
  return user_file.place(name, NAMES, f'{WHAT}={name!r}')

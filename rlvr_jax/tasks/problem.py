"""A problem, and what a verifier says of a completion."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

VERDICTS = ('correct', 'wrong', 'unparsed', 'timeout', 'error')
VerdictName = Literal['correct', 'wrong', 'unparsed', 'timeout', 'error']


@dataclasses.dataclass(frozen=True)
class Image:
  """Where the bytes of an image are (images.py reads them, when they are asked for).

  name is what messages call it. They are one of: data; the file at path, or its `member` where that
  is a .zip; record (folder, split, number) of a prepared data set. sha256: of the bytes, where it
  is known without reading them.
  """

  name: str
  path: str = ''
  member: str = ''
  data: bytes = dataclasses.field(default=b'', repr=False)
  record: tuple[str, str, int] | None = None
  sha256: str = ''


@dataclasses.dataclass(frozen=True)
class Problem:
  """One dataset row.

  id is unique within its task. prompt is text, or chat messages ({'role', 'content'}) for the
  model's chat template. answer is what the task's verifier compares with (any JSON value);
  meta is carried along untouched (any JSON values). images stand where the prompt says <image>, in
  order, or before it if it says so nowhere; verifiers, in their processes, do not get them.
  """

  id: str
  task: str
  prompt: str | tuple[Mapping[str, str], ...]
  answer: Any
  meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  images: tuple[Image, ...] = ()

  @property
  def uid(self) -> int:
    """First 4 bytes of sha256(task/id) as an unsigned integer: the problem's part of every key."""
    return int.from_bytes(hashlib.sha256(f'{self.task}/{self.id}'.encode()).digest()[:4], 'big')


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What a verifier says. reward is what the learner gets; it never decides the verdict.

  sandbox: the isolation under which the completion was run, where it is a program; '' if not.
  """

  verdict: VerdictName
  reward: float
  extracted: str = ''
  reason: str = ''
  sandbox: str = ''

  def __post_init__(self):
    if self.verdict not in VERDICTS:
      raise ValueError(f'verdict={self.verdict!r} is not one of {VERDICTS}')
    for field in ('extracted', 'reason'):
      text = getattr(self, field)
      if not text.isascii():  # no file takes half a surrogate pair, which a program may put there
        whole = text.encode('utf-8', 'backslashreplace').decode()
        object.__setattr__(self, field, whole)


def unjudged(problem: Problem, completion: str) -> Verdict:
  """The verifier 'none': says of everything that nobody judged it."""
  return Verdict('unparsed', 0.0, '', 'not judged')


def check_unique(problems: list[Problem]) -> None:
  """Refuses duplicate ids and uid collisions, which would make two problems share their draws."""
  seen: dict[int, Problem] = {}
  for problem in problems:
    other = seen.setdefault(problem.uid, problem)
    if other is not problem:
      what = (
        'duplicate id' if other.id == problem.id and other.task == problem.task else 'uid collision'
      )
      raise ValueError(
        f'{what}: {problem.task}/{problem.id} and {other.task}/{other.id}; ids must be unique, '
        'and on a collision renaming one id is enough'
      )

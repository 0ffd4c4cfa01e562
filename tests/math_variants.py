r"""Right and wrong answers made from a gold one, by its kind, and completions around them.

Nothing here knows the verifier: a variant is right or wrong by how it was made. Used on the golds
of real benchmarks (make check) and on a few of our own making.
"""

import re
from collections.abc import Iterator

from tests import math_variants_structures as structures
from tests import math_variants_values as values

INTEGER = re.compile(r'-?(?:\d{1,3}(?:,(?:\\!)?\d{3})+|\d+)')
_SPAN = r'[(\[][^()\[\]]+,[^()\[\]]+[)\]]'
_PAIR = r'[^()\[\],]+,[^()\[\],]+'
_OTHER = r'[,=<>%$_]|\\(?:le|ge|ne)|\\text|\\mbox|\\begin|\\circ|infty|\\in|\\pm'
KINDS = (
  ('integer', INTEGER),
  ('decimal', re.compile(r'-?\d*\.\d+')),
  ('scientific', re.compile(r'-?(\d+(?:\.\d+)?)e([+-]?\d+)')),
  ('fraction', re.compile(r'(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}')),
  ('mixed', re.compile(r'(\d+)\\frac\{(\d+)\}\{(\d+)\}')),
  ('radical', re.compile(r'(\d*)\\sqrt\{(\d+)\}')),
  ('pi', re.compile(r'(\d+)\\pi')),
  ('percent', re.compile(r'(\d+(?:\.\d+)?)\\%')),
  ('money', re.compile(r'\\\$(\d+(?:\.\d+)?)')),
  ('degrees', re.compile(r'(\d+)\s*\^\\circ')),
  ('units', re.compile(r'(-?\d+)\s*\\(?:text|mbox)\{ ?([a-z ]{3,})\}')),
  ('choice', re.compile(r'\\text\{\(?([A-E])\)?\}')),
  ('text', re.compile(r'\\(?:text|mbox)\{([A-Za-z]{3,})\}')),
  ('base', re.compile(r'(\d+)_\{?(\d+)\}?')),
  ('complex', re.compile(r'(-?\d+)\s*([+-])\s*(\d+)i')),
  ('plus_minus', re.compile(r'(-?\d+)\s*\\pm\s*([^,]+)')),
  ('matrix', re.compile(r'\\begin\{pmatrix\}(.*)\\end\{pmatrix\}', re.DOTALL)),
  ('union', re.compile(rf'({_SPAN})\s*\\cup\s*({_SPAN})')),
  ('interval', re.compile(rf'\[{_PAIR}[)\]]|\({_PAIR}\]')),
  ('tuple', re.compile(r'\(([^()\[\]]+,[^()\[\]]+)\)')),
  ('list', re.compile(r'(?!.*(?:[=<>]|\\!|\\(?:text|mbox|cup|pm)|\{,\}))[^,]+(?:,[^,]+)+')),
  ('equation', re.compile(r'(?!.*[,<>])([^=]+)=([^=]+)')),
  ('expression', re.compile(rf'(?!.*(?:{_OTHER}))(?=.*[a-z0-9]).+')),
)  # fmt: skip


def kind_of(gold: str) -> tuple[str, re.Match[str]] | None:
  """The kind of a gold answer and its match; None for what no kind holds."""
  for kind, pattern in KINDS:
    if match := pattern.fullmatch(_bare(gold)):
      return kind, match
  return None


def _bare(gold: str) -> str:
  gold = gold if '\\$' in gold else gold.replace('$', '')
  return re.sub(r'\\(?:left|right)(?![a-z])', '', gold).strip()


def right(gold: str) -> Iterator[tuple[str, str]]:
  """(name of the variant, an equal answer)."""
  found = kind_of(gold)
  bare = _bare(gold)
  yield 'same', gold.strip('$ ')
  if found:
    kind, match = found
    yield from ((f'{kind} {name}', text) for name, text in _RIGHT[kind](bare, match))


def wrong(gold: str) -> Iterator[tuple[str, str]]:
  """(name of the variant, an unequal answer)."""
  found = kind_of(gold)
  if found:
    kind, match = found
    bare = _bare(gold)
    made = dict.fromkeys(_WRONG[kind](bare, match))
    yield from ((f'{kind} {name}', text) for name, text in made if text != bare)


def _maker(name: str):
  return getattr(values, name, None) or getattr(structures, name)


_RIGHT = {kind: _maker(f'{kind}_right') for kind, _ in KINDS}
_WRONG = {kind: _maker(f'{kind}_wrong') for kind, _ in KINDS}

AROUND = (
  ('box', 'Let us compute 2+3=5.\n\nSo the final answer is $\\boxed{ANSWER}$.'),
  ('display', 'Therefore, the answer is:\n\\[\n\\boxed{ANSWER}\n\\]'),
  ('paren', 'Thus the value is \\(\\boxed{ANSWER}\\).'),
  ('think', '<think>\nPerhaps \\boxed{0}?\n</think>\nThe answer is \\boxed{ANSWER}'),
  ('chatter', '\\boxed{ANSWER}. Let me know if you want 12 more examples!'),
  ('second box', 'At first \\boxed{1} seems right, but no. It is $\\boxed{ANSWER}$.'),
  ('tag', '<think>short</think> <answer> $ANSWER$ </answer>'),
  ('tag box', '<answer>\\boxed{ANSWER}</answer>'),
  ('answer line', 'We count the cases.\nAnswer: $ANSWER$'),
  ('bold', '**Final Answer:** $ANSWER$'),
  ('heading', '**Final Answer**\n\\[\nANSWER\n\\]'),
  ('phrase', 'We add everything up. The answer is $ANSWER$.'),
  ('Chinese', '所以答案是 $ANSWER$。'),
  ('fbox', 'The answer is $\\fbox{ANSWER}$.'),
)  # fmt: skip


def completion(answer: str, number: int) -> tuple[str, str]:
  """(name of the form, a completion that gives the answer), the forms in turn."""
  name, text = AROUND[number % len(AROUND)]
  plain = '$' not in answer or number % len(AROUND) < 6 or 'fbox' in name
  if not plain:
    name, text = AROUND[number % 6]
  return name, text.replace('ANSWER', answer)

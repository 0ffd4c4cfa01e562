r"""The verifier of benchmarks with images: options by letter or text, precision, units, lists.

What meta says of the question decides how the answer is read and compared (rows_vision.py):

options, option   multiple choice: the answer is a letter, (B), or an option's text; both, as in
                  "B. 145°", must agree. No option is guessed from a text that is like it.
answer_type list  numbers in their order, with brackets or without.
precision         so many decimals: right if it rounds to the gold.
unit              another unit than this one is wrong, none is right.

Everything else is the strict verifier's (math.py), which also finds the answer (extract.py).
"""

import functools
import re
from collections.abc import Sequence
from fractions import Fraction

from rlvr_jax.tasks import math
from rlvr_jax.tasks.answers import same_answer
from rlvr_jax.tasks.extract import Extracted, after_thinking, extract_answer
from rlvr_jax.tasks.normal import normalise, plain_number, unwrap_text
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.symbolic import UnreadableError
from rlvr_jax.tasks.units import number_and_unit_letter, scalar, units_clash

_LAST_RESORTS = ('last number', 'last formula')  # of extract.py, where nothing announces an answer
_MAX_CHARACTERS = 1000
# "B", "(B)", "B.", "Option B", "B. 145°", "(B) 145°", "B: 145°"; text in group 2
_LABEL = re.compile(
  r'(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\s*(?:is|:)?\s*)?'
  r'(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])(?=\s*$|\s*[.:)](?:\s|$)))\s*[.:)]?\s*(.*)',
  re.DOTALL | re.IGNORECASE,
)
_CAPITAL = re.compile(r'\(?[A-Z]\)?[.:]?')  # the letter of an option, also where a text is like it
# A last line that is but an option's letter, or says which is right.
_SAID = re.compile(
  r'(?:^|\b(?:option|choice)\s+(?:is\s+)?|\bis\s+)\(?([A-H])\)?[.!]?\s*$|\(([A-H])\)[.!]?\s*$'
)
# An announced option, and the rest of its line: "The answer is (C) 145°", "Answer: C because ...".
_NAMED = re.compile(
  r'\b[Aa]nswer\s*(?:is|:|[Ss]hould be)[\s:*$]*(?:\\text\s*\{)?(?:[Oo]ption|[Cc]hoice)?\s*'
  r'(\([A-H]\)|[A-H](?=[.:,;)*$}/]|\s*$|\s*\n|\s+(?:because|since|as|or|and)\b))([^\n]*)'
)
_MORE = re.compile(r'\s*(?:[,;/&]|or\b|and\b)\s*(?:or\b|and\b)?\s*\(?[A-H]\)?(?![A-Za-z])')
_LIST = re.compile(r'\[[^\[\]]*\]')
_MONEY = re.compile(r'^\s*\\?\$\s*')


def verify_vision(problem: Problem, completion: str) -> Verdict:
  """Judges a completion by what the problem's meta says of its question. Reward 1 or 0.

  unparsed: there is no answer, or it cannot be read. ValueError for a gold that is no text.
  """
  if 'options' in problem.meta:
    return _verify_option(problem, completion)
  if problem.meta.get('answer_type') == 'list':
    return _verify_list(problem, completion)
  if problem.meta.get('precision') or problem.meta.get('unit'):
    return _verify_measured(problem, completion)
  return math.verify_math(problem, completion)


def _verify_option(problem: Problem, completion: str) -> Verdict:
  options = [str(option) for option in problem.meta['options']]
  gold = int(problem.meta['option'])
  found = _announced(completion, options)
  if found is None:
    return Verdict('unparsed', 0.0, '', 'no answer')
  if found.text is None:
    return Verdict('unparsed', 0.0, '', found.how)
  chosen, why = option_of(found.text, options)
  if chosen is None:
    return Verdict('wrong' if why == _DISAGREE else 'unparsed', 0.0, found.text, why)
  correct = _plain(options[chosen]) == _plain(options[gold])  # two may have the same text
  return Verdict('correct' if correct else 'wrong', float(correct), found.text, found.how)


_DISAGREE = 'its letter and its text are of different options'


def option_of(text: str, options: Sequence[str]) -> tuple[int | None, str]:
  """(number of the option that an answer names, '') or (None, why it names none)."""
  if len(text) > _MAX_CHARACTERS:
    return None, 'the answer is too long'
  bare = unwrap_text(text.strip().strip('$*').strip())
  plain = [_plain(option) for option in options]
  if not _CAPITAL.fullmatch(bare) and _plain(text) in plain:
    return plain.index(_plain(text)), ''
  label = _LABEL.fullmatch(bare)
  if label is not None:
    place = ord((label[1] or label[2]).upper()) - ord('A')
    if place < len(options):
      rest = _plain(label[3])
      if not rest or rest == plain[place]:
        return place, ''
      same = _same_options(rest, options)
      return (place, '') if place in same else (None, _DISAGREE)
  same = _same_options(text, options)
  if len({plain[place] for place in same}) == 1:
    return same[0], ''
  return None, 'it is several options at once' if same else 'it is none of the options'


def _same_options(given: str, options: Sequence[str]) -> list[int]:
  """The options that are the same answer as a text; of those that say it word for word, these."""
  plain = _plain(given)
  if word := [place for place, option in enumerate(options) if _plain(option) == plain]:
    return word
  return [place for place, option in enumerate(options) if _same(option, given)]


@functools.lru_cache(maxsize=16_384)  # of many completions of a problem few answers differ
def _same(gold: str, given: str) -> bool:
  gold, given = _braces(gold), _braces(given)
  if len(given) > max(_MAX_CHARACTERS, 4 * len(gold)) or not normalise(gold):
    return False
  try:
    return same_answer(gold, given)
  except UnreadableError:
    return False


def _braces(text: str) -> str:
  """MathVista writes 20√{2} for the square root, and m2 for square metres."""
  text = re.sub(r'√\s*(?=\{)', r'\\sqrt', text)
  return re.sub(r'(?<=[cmk]m)([23])(?!\d)', r'^\1', text)


def _plain(text: str) -> str:
  """A text as words: no mathematics' signs, quotation marks or full stop around it, one case.

  A single letter keeps its case: B is an option's name.
  """
  text = unwrap_text(text.strip().strip('$*"\'`').strip())
  text = ' '.join(re.sub(r'\^\s*\{?\s*\\circ\s*\}?', '°', text).split()).rstrip('.')
  return text if len(text) == 1 else text.casefold()


def _announced(completion: str, options: Sequence[str]) -> Extracted | None:
  """The answer as extract.py finds it, but of an announced one the option that it begins with. In
  place of its last resort, a last line that ends in an option's letter, and the whole of a
  completion of one line."""
  found = extract_answer(completion)
  if found is not None and found.how == 'phrase':
    named = list(_NAMED.finditer(after_thinking(completion)))
    if named and not _MORE.match(named[-1][2]):
      letter, rest = named[-1].groups()
      rest = rest.lstrip(' .:*$)}').rstrip(' .*')
      text = f'({letter.strip("()")}) {rest}' if _same_options(rest, options) else letter
      return Extracted(text, 'phrase')
  if found is not None and found.how not in _LAST_RESORTS:
    return found
  lines = [line.strip().strip('*').strip() for line in after_thinking(completion).splitlines()]
  lines = [line for line in lines if line]
  if not lines:
    return None
  if (said := _SAID.search(lines[-1])) and not re.search(r'\bnot\b', lines[-1]):
    return Extracted(said[1] or said[2], 'last letter')
  if len(lines) == 1 and len(lines[0]) <= 80:
    return Extracted(lines[0], 'all of it')
  return found


def _verify_list(problem: Problem, completion: str) -> Verdict:
  gold = _items(_gold(problem))
  found = extract_answer(completion)
  if found is None or found.how in _LAST_RESORTS:
    lists = _LIST.findall(after_thinking(completion))
    found = Extracted(lists[-1], 'last list') if lists else None
  if found is None:
    return Verdict('unparsed', 0.0, '', 'no answer')
  if found.text is None:
    return Verdict('unparsed', 0.0, '', found.how)
  inside = _LIST.findall(found.text)
  given = _items(inside[-1] if inside else found.text)
  correct = len(given) == len(gold) and all(map(_same, gold, given))
  return Verdict('correct' if correct else 'wrong', float(correct), found.text, found.how)


def _items(text: str) -> list[str]:
  return [item.strip().strip('$').strip() for item in text.strip().strip('$[]()').split(',')]


def _verify_measured(problem: Problem, completion: str) -> Verdict:
  """A number to so many decimals, or with a unit."""
  strict = math.verify_math(problem, completion)
  if strict.verdict == 'unparsed':
    return strict
  text = _MONEY.sub('', strict.extracted)
  value = scalar(normalise(text))
  value = number_and_unit_letter(value.text) or value
  if units_clash(str(problem.meta.get('unit') or ''), value.unit):
    why = f'its unit is not {problem.meta["unit"]}'
    return Verdict('wrong', 0.0, strict.extracted, why)
  if strict.verdict == 'correct' or not problem.meta.get('precision'):
    return strict
  gold = plain_number(_gold(problem))
  given = plain_number(value.text)
  if gold is None or given is None or value.percent:
    return strict
  half = Fraction(1, 2 * 10 ** int(problem.meta['precision']))
  if abs(given - gold) > half:
    return strict
  return Verdict('correct', 1.0, strict.extracted, strict.reason)


def _gold(problem: Problem) -> str:
  if not isinstance(problem.answer, str):
    raise ValueError(f'problem {problem.task}/{problem.id}: the gold {problem.answer!r} is no text')
  return problem.answer

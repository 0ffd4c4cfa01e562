r"""What an answer is (a value, a tuple, an interval, a list, ...) and when two are the same.

The rules of `strict`: integers are exact; no factor of 100 is forgiven; the ends of an interval
count; lists and sets have no order, tuples have; a number in a base keeps its base; text is text,
not a product of letters.
"""

import dataclasses
import re
from collections.abc import Sequence
from fractions import Fraction

from rlvr_jax.tasks import symbolic
from rlvr_jax.tasks.normal import (
  Scalar,
  has_text,
  normalise,
  plain_number,
  scalar,
  significant_digits,
  units_clash,
  unwrap_text,
)

_OPEN = {'(': ')', '[': ']', '\\{': '\\}', '{': '}', '\\langle': '\\rangle'}
_CLOSE = {')', ']', '\\}', '}', '\\rangle'}
_TOKEN = re.compile(r'\\[a-zA-Z]+|\\.|.', re.DOTALL)
_JOINTS = re.compile(
  r'\\(?:text|mathrm|mbox)\s*\{\s*(?:,?\s*(?:and|or)|,)\s*\}|\s,?\s*\b(?:and|or)\b\s|\\(?:lor|vee)(?![a-zA-Z])'
)
_MATRIX = re.compile(
  r'^[(\[]?\s*\\begin\s*\{([pbB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr|]*\})?(.*)'
  r'\\end\s*\{\1\}\s*[)\]]?$',
  re.DOTALL,
)
_BASE = re.compile(
  r'^\(?([0-9A-Za-z]+)\)?(?:_\{?\(?([0-9]+|[a-z]+)\)?\}?|\(?base([0-9]+|[a-z]+)\)?)$'
)
_APPROX = re.compile(r'\\approx(?![a-zA-Z])')
_BASES = (
  'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven', 'twelve',
  'thirteen', 'fourteen', 'fifteen', 'sixteen',
)  # fmt: skip
_BASE_WORDS = {word: str(base) for base, word in enumerate(_BASES, 2)}
_NAME = re.compile(
  r'^(?:\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?:\([a-z](?:,\s*[a-z])*\))?|\([a-z](?:\s*,\s*[a-z])+\))$'
)
# The left side of an equation that names its right side: angle ABC, |PQ|, P(A), [ABC], m + n, ab.
_NAMED = re.compile(
  r'(?:[a-zA-Z]|\\(?:angle|triangle|overline|overrightarrow|vec|hat|frac|cdot|times|cos|sin|tan|log'
  r'|[lr]vert|alpha|beta|gamma|delta|theta|phi|omega|lambda|mu|sigma)(?![a-zA-Z])|_\{?\w+\}?'
  r'|[+|()\[\]{},\s]|(?<=[a-zA-Z\s])-)+'
)
_FUNCTION_OF = re.compile(r'(?<![a-zA-Z\\])([a-zA-Z])\(([a-z])\)')  # f(x)
_DERIVATIVE = re.compile(r'\\frac\s*\{d\s*(\\?[a-zA-Z]+)\}\s*\{d\s*([a-zA-Z])\}')
_FUNCTION = re.compile(r'^(?:y|[a-zA-Z]\([a-z]\))$')
_MIXED = re.compile(r'(?<![\d.^_a-zA-Z}])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}')
_SIDE_BY_SIDE = re.compile(r'(?<![\d_^a-zA-Z.])[\d.]+\s+(?=\d)|(?:^|[-+*/(=,\s])\{[^{}]*\}\s*\{')
# Where a product has no sign: )( or )5 or \pi( or 5i, and 5( or 5{ or 5\frac
_PRODUCT = re.compile(r'(?<=\))\s*(?=[(\d]|\\frac)|(?<=\\pi)\s*(?=\()|(?<=\d)\s*(?=i(?![a-zA-Z]))')
_FACTOR = re.compile(r'(?<![\d._^a-zA-Z])(\d+)\s*(?=[({]|\\frac)')
_LETTER = re.compile(r'^(?:[Oo]ption |[Cc]hoice )?\(?([A-Z])\)?$')
_LETTER_AND_MORE = re.compile(r'^(?:\(([A-Z])\)|([A-Z])[.):])\s*\S')
_LETTERS = re.compile(r'\(([A-Z])\)|\b([A-Z])[.):](?!\S)')
_SEPARATED = re.compile(r'^-?\d{1,3}(?:,\d{3})+(?:\.\d+)?$')
_INTEGER = re.compile(r'-?(?:\d{1,3}(?:,\d{3})+|\d{1,1000})')
_UNIT_LETTER = re.compile(r'(.*[\d}])\s*([mgsLNJWKV])')
MAX_ITEMS = 200


@dataclasses.dataclass(frozen=True)
class Group:
  """Several answers: a 'list' or 'set' without order, or a 'bracket' (tuple, interval) with."""

  kind: str
  items: tuple[str, ...]
  ends: str = ''


def same_answer(gold: str, given: str) -> bool:
  """Whether the given answer is the gold one, both LaTeX or plain text.

  Raises symbolic.UnreadableError if the given answer has no readable form.
  """
  if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(given):  # most pairs, in microseconds
    return int(gold.replace(',', '')) == int(given.replace(',', ''))
  gold, given = normalise(gold), normalise(given)
  if not gold or not given:
    return False
  if _APPROX.search(given) and not _APPROX.search(gold):
    return _same_approximately(gold, given)
  return _same(gold, given)


def _same_approximately(gold: str, given: str) -> bool:
  r"""`exact \approx decimal` is right if either is and the two agree to 1%: no two guesses."""
  first, *_, last = (part.strip() for part in _APPROX.split(given))
  exact = split(first, '=')[-1] if first else ''
  if not exact or _NAMED.fullmatch(unwrap_text(exact)):
    return _same(gold, last)
  value, number = plain_number(scalar(last).text), plain_number(scalar(exact).text)
  if value is not None:
    low, high = sorted((value * Fraction(99, 100), value * Fraction(101, 100)))
    if number is not None:
      agree = low <= number <= high
    else:
      agree = symbolic.between(_for_reading(scalar(exact).text), low, high)
    if agree and _same(gold, last):
      return True
  return _same(gold, first)


def _same(gold: str, given: str) -> bool:
  if _squeezed(gold) == _squeezed(given):
    return True
  text = _same_text(gold, given)
  if text is not None:
    return text
  wanted, got = _matrix(gold), _matrix(given)
  if wanted is not None or got is not None:
    return wanted is not None and got is not None and _same_matrix(wanted, got)
  if not (_is_list(gold) or _is_list(given)):
    gold, given = _without_name(gold, given)
    if '=' in gold or '=' in given:
      return _same_equation(gold, given)
  first, second = group(gold), group(given)
  if first is not None and first.kind == 'list' and second is None and _SEPARATED.match(given):
    second = Group('list', tuple(given.split(',')))
  if first is None and second is None:
    return _same_value(gold, given)
  if first is None or second is None:
    # An interval may also be written as an inequality or a set difference.
    intervals = first or second
    wordy = intervals is not None and _is_interval_like(intervals)
    return wordy and symbolic.same_expression(gold, given)
  return _same_group(first, second)


def group(text: str) -> Group | None:
  r"""The parts of a normalised answer that is more than one value; None for a single one.

  `a \pm b` is the list of both; a union of intervals is a list of them.
  """
  if _SEPARATED.match(text):
    return None
  text = _JOINTS.sub(' , ', text)
  text = re.sub(r'(?<=[\])])\s*(?:\\cup(?![a-zA-Z])|U)\s*(?=[\[(])', ' , ', text)
  parts = split(text, ',;')
  if len(parts) > 1:
    items: list[str] = []
    for part in parts:
      items += _both_signs(part)
    return Group('list', tuple(items))
  inside = _inside(text)
  if inside is not None:
    content, opening, closing = inside
    items = split(content, ',;')
    if opening == '\\{':
      return Group('set', tuple(item for part in items for item in _both_signs(part)))
    if len(items) > 1 and opening != '{':
      return Group('bracket', tuple(items), ends=opening + closing)
    return group(content) if opening + closing in ('()', '{}') else None
  signs = _both_signs(text)
  return Group('list', tuple(signs)) if len(signs) > 1 else None


def _is_list(text: str) -> bool:
  return not _SEPARATED.match(text) and len(split(_JOINTS.sub(' , ', text), ',;')) > 1


def split(text: str, separators: str) -> list[str]:
  """Cuts at separators outside all brackets. Ends of intervals need not match: [0,1) is one."""
  parts, depth, current = [], 0, ''
  for token in _TOKEN.findall(text):
    if token in _OPEN:
      depth += 1
    elif token in _CLOSE:
      depth -= 1
    if depth <= 0 and token in separators:
      parts.append(current.strip())
      current = ''
    else:
      current += token
  return [part for part in [*parts, current.strip()] if part]


def _inside(text: str) -> tuple[str, str, str] | None:
  """(content, opening, closing) if one pair of brackets holds all of the text."""
  tokens = _TOKEN.findall(text)
  if len(tokens) < 2 or tokens[0] not in _OPEN or tokens[-1] not in _CLOSE:
    return None
  depth = 0
  for i, token in enumerate(tokens):
    depth += (token in _OPEN) - (token in _CLOSE)
    if depth == 0 and i < len(tokens) - 1:
      return None
  opening, closing = tokens[0], tokens[-1]
  if opening == '\\langle':
    opening, closing = '(', ')'
  return ''.join(tokens[1:-1]).strip(), opening, closing


def _both_signs(text: str) -> list[str]:
  if len(re.findall(r'\\(?:pm|mp)(?![a-zA-Z])', text)) != 1:
    return [text]
  return [re.sub(r'\\(?:pm|mp)(?![a-zA-Z])', f' {sign} ', text).strip() for sign in '+-']


def _is_interval_like(answer: Group) -> bool:
  if answer.kind == 'bracket':
    return len(answer.items) == 2
  return all((part := _inside(item)) and len(split(part[0], ',')) == 2 for item in answer.items)


def _same_group(gold: Group, given: Group) -> bool:
  if len(gold.items) != len(given.items) or len(gold.items) > MAX_ITEMS:
    return False
  if gold.kind == 'bracket':
    if given.kind == 'set' or (given.kind == 'list' and gold.ends != '()'):
      return False
    # Longer than two they are tuples whatever the brackets.
    if given.kind == 'bracket' and gold.ends != given.ends and len(gold.items) == 2:
      return False
    return _same_items(gold.items, given.items)
  return given.kind != 'bracket' and _same_unordered(gold.items, given.items)


def _same_items(gold: Sequence[str], given: Sequence[str]) -> bool:
  return len(gold) == len(given) and all(_same(a, b) for a, b in zip(gold, given, strict=True))


def _same_unordered(gold: Sequence[str], given: Sequence[str]) -> bool:
  left = list(given)
  waiting = []
  for item in gold:  # equal spellings first: comparing values is slow
    twin = next((other for other in left if _squeezed(other) == _squeezed(item)), None)
    if twin is None:
      waiting.append(item)
    else:
      left.remove(twin)
  for item in waiting:
    twin = next((other for other in left if _same(item, other)), None)
    if twin is None:
      return False
    left.remove(twin)
  return True


def _matrix(text: str) -> list[list[str]] | None:
  match = _MATRIX.match(text)
  if match is None:
    return None
  rows = re.split(r'\\\\(?:\[[^\]]*\])?', match[2])
  return [[cell.strip() for cell in row.split('&')] for row in rows if row.strip()]


def _same_matrix(gold: list[list[str]], given: list[list[str]]) -> bool:
  return len(gold) == len(given) and all(
    _same_items(a, b) for a, b in zip(gold, given, strict=True)
  )


def _without_name(gold: str, given: str) -> tuple[str, str]:
  r"""Drops `x =` and `x \in` where the other side does not need it."""
  sides = []
  for text in (gold, given):
    text = re.sub(r'^[a-zA-Z]\s*\\in(?![a-zA-Z])\s*', '', text)
    parts = split(text, '=')
    sides.append((text, parts, len(parts) > 1 and _is_name(parts[0])))
  (gold, gold_parts, gold_named), (given, given_parts, given_named) = sides
  if gold_named and len(gold_parts) == 2:
    if len(given_parts) == 1:
      return gold_parts[1], given
    if _squeezed(gold_parts[0]) == _squeezed(given_parts[0]):
      return gold_parts[1], '='.join(given_parts[1:])
  if given_named and len(gold_parts) == 1:
    return gold, '='.join(given_parts[1:])
  return gold, given


def _is_name(text: str) -> bool:
  """Whether the left side of an equation only names the right one: x, f(x), (x, y), m + n."""
  if _NAME.match(text):
    return True
  words = unwrap_text(text)
  return words != text or (_NAMED.fullmatch(text) is not None and '\\sqrt' not in text)


def _same_equation(gold: str, given: str) -> bool:
  wanted, got = split(gold, '='), split(given, '=')
  if len(wanted) == 1 and len(got) > 1:  # 2 + 3 = 5 for 5
    return all(_same(gold, part) for part in got)
  if len(wanted) != 2 or len(got) != 2:
    return False
  if _FUNCTION.match(wanted[0]) and _FUNCTION.match(got[0]):
    return _same(wanted[1], got[1])  # y, f and g are as good a name as any
  (a, b), (c, d) = ([_as_symbols(side) for side in sides] for sides in (wanted, got))
  return symbolic.same_equation((a, b), (c, d))


def _as_symbols(side: str) -> str:
  r"""f(x), dv/dt and m_{\max} as names, which is all that they are in an equation."""
  side = _DERIVATIVE.sub(r'\1_{d\2}', re.sub(r'(?<=_\{)\\([a-z]+)\s*(?=\})', r'\1', side))
  return _FUNCTION_OF.sub(r'\1_{\2}', _for_reading(side))


def _same_text(gold: str, given: str) -> bool | None:
  """Decides pairs whose gold is words or the letter of a choice; None for all others."""
  wanted, got = unwrap_text(gold), unwrap_text(given)
  letter = _LETTER.match(wanted)
  if letter is not None and (has_text(gold) or wanted.startswith('(')):
    if len({one or other for one, other in _LETTERS.findall(got)}) > 1:
      return False  # (A) or (B)
    more = _LETTER_AND_MORE.match(got)
    other = _LETTER.match(got) or (more and re.match(r'\(?([A-Z])', got))
    return bool(other) and other[1] == letter[1]
  words = re.fullmatch(r"[A-Za-z][A-Za-z'.,\-\" ]*", wanted) is not None
  if words and (has_text(gold) or re.search('[A-Z]?[a-z]{3}', wanted)):
    return _words(wanted) == _words(got)
  return None


def _words(text: str) -> list[str]:
  return re.findall(r"[a-z0-9']+|[^\sa-z0-9'.,\-\"`]", text.lower())


def _same_value(gold: str, given: str) -> bool:
  based = _same_in_base(gold, given)
  if based is not None:
    return based
  wanted, got = scalar(gold), scalar(given)
  if units_clash(wanted.unit, got.unit):
    return False
  bare = _squeezed(got.text)
  first = plain_number(wanted.text)
  if first is not None and (unit := _UNIT_LETTER.fullmatch(got.text)):
    got = Scalar(unit[1], got.percent, unit[2])  # of a number a letter behind it is a unit, 5 m
  elif wanted.unit and bare.endswith(_squeezed(wanted.unit)):  # a unit of one letter, 5 m
    got = Scalar(bare.removesuffix(_squeezed(wanted.unit)), got.percent, wanted.unit)
  if _squeezed(wanted.text) == _squeezed(got.text):
    return True
  second = plain_number(got.text)
  if first is not None and second is not None:
    return _same_number(wanted, first, got, second)
  if not wanted.text or not got.text:
    return False
  if second is not None and significant_digits(got.text) >= 6:
    return _rounds_to(wanted.text, got.text, second)
  return symbolic.same_expression(_for_reading(wanted.text), _for_reading(got.text))


def _same_number(gold: Scalar, first: Fraction, given: Scalar, second: Fraction) -> bool:
  """Exact, but for decimal golds of 3 digits and more, which are rounded: half
  a unit of their last place, but 1e-4 relative at most."""
  candidates = [first]
  if gold.percent and not given.percent:
    candidates.append(first / 100)
  if given.percent and not gold.percent:
    candidates.append(first * 100)
  if second in candidates:
    return True
  if significant_digits(gold.text) >= 3 and first.denominator > 1:
    return abs(first - second) <= min(abs(first) / 10_000, _half_unit(gold.text))
  if first.denominator > 1 and significant_digits(given.text) >= 6:
    return abs(first - second) <= _half_unit(given.text)
  return False


def _rounds_to(gold: str, given: str, value: Fraction) -> bool:
  """Whether a decimal of 6 digits or more is the gold expression rounded."""
  gold = _for_reading(gold)
  half = _half_unit(given)
  low, high = value - half, value + half
  return symbolic.between(gold, low, high)


def _half_unit(text: str) -> Fraction:
  """Half a unit of the last place of a plain decimal, and a trifle for ties."""
  text = re.sub(r'\s', '', text)
  power = re.search(r'(?:[eE]|10\^)\{?([+-]?\d+)', text)
  places = re.match(r'[^.]*\.(\d*)', text)
  exponent = (int(power[1]) if power else 0) - (len(places[1]) if places else 0)
  return Fraction(51, 100) * Fraction(10) ** exponent


def _same_in_base(gold: str, given: str) -> bool | None:
  """Digits and base, in any spelling; the base may be left out of the given one."""
  wanted, got = (_BASE.match(re.sub(r'\s', '', unwrap_text(text))) for text in (gold, given))
  if wanted is None or not (base := _base(wanted)):
    return None
  if got is not None:
    return got[1] == wanted[1] and _base(got) == base
  return re.sub(r'\s', '', unwrap_text(given)) == wanted[1]


def _base(match: re.Match[str]) -> str:
  """The base in digits; '' for a word that is none."""
  base = match[2] or match[3]
  return base if base.isdigit() else _BASE_WORDS.get(base, '')


def _for_reading(text: str) -> str:
  """The text with its products spelled out: the LaTeX reader adds numbers that stand side by side
  ("3(15)", "(3)(15)"), as if each were a mixed number; those are sums to us, and are written so.

  Raises UnreadableError for two numbers with nothing but a space between them.
  """
  if _SIDE_BY_SIDE.search(text):
    raise symbolic.UnreadableError(f'two numbers side by side in {text[:100]!r}')
  text = _MIXED.sub(
    lambda m: rf'({m[1]}+\frac{{{m[2]}}}{{{m[3]}}})' if int(m[2]) < int(m[3]) else m[0], text
  )
  return _FACTOR.sub(r'\1 \\cdot ', _PRODUCT.sub(r' \\cdot ', text))


def _squeezed(text: str) -> str:
  return re.sub(r'\s+', '', text)

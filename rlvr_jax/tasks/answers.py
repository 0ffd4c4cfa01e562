r"""What an answer is (a value, a tuple, an interval, a list, ...) and when two are the same.

The rules of `strict`: integers are exact; no factor of 100 is forgiven; the ends of an interval
count; lists and sets have no order, tuples have; a number in a base keeps its base; text is text,
not a product of letters.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from rlvr_jax.tasks import symbolic
from rlvr_jax.tasks.names import is_name, one_by_one, values_by_name, without_name
from rlvr_jax.tasks.normal import (
  has_text,
  normalise,
  plain_number,
  significant_digits,
  squeezed,
  unwrap_text,
)
from rlvr_jax.tasks.parts_of import (
  SEPARATED,
  Group,
  group,
  is_interval_like,
  is_list,
  matrix,
  split,
)
from rlvr_jax.tasks.units import (
  Scalar,
  number_and_unit_letter,
  same_amount,
  scalar,
  units_clash,
  without_announcement,
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
# Words without \text around them: yes, no, any of three small letters, ASA
_WORD = re.compile(r'[A-Z]?[a-z]{3}|^(?:[Nn]o|NO|[A-Z]{3,})$')
_DATE = re.compile(r"[A-Za-z]{3,}[A-Za-z'.,\- ]*\d[\dA-Za-z'.,\- ]*")
_FUNCTION_OF = re.compile(r'(?<![a-zA-Z\\])([a-zA-Z])\(([a-z])\)')  # f(x)
_DERIVATIVE = re.compile(r'\\frac\s*\{d\s*(\\?[a-zA-Z]+)\}\s*\{d\s*([a-zA-Z])\}')
_FUNCTION = re.compile(r'^(?:y|[a-zA-Z]\([a-z]\))$')
_MIXED = re.compile(r'(?<![\d.^_a-zA-Z}])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}')
_SIDE_BY_SIDE = re.compile(r'(?<![\d_^a-zA-Z.])[\d.]+\s+(?=\d)|(?:^|[-+*/(=,\s])\{[^{}]*\}\s*\{')
# Where a product has no sign: )( or )5 or \pi( or 5i, and 5( or 5{ or 5\frac
_PRODUCT = re.compile(r'(?<=\))\s*(?=[(\d]|\\frac)|(?<=\\pi)\s*(?=\()|(?<=\d)\s*(?=i(?![a-zA-Z]))')
_FACTOR = re.compile(r'(?<![\d._^a-zA-Z])(\d+)\s*(?=[({]|\\frac)')
_LETTER = re.compile(r'^(?:[Oo]ption |[Cc]hoice )?\(?([A-Z])\)?$')
_ONE_OF_SOME = re.compile(r'^[A-H]$')
_CHOSEN = re.compile(
  r'^(?:(?:[Oo]ption|[Cc]hoice) \(?[A-H](?![a-zA-Z])|\(?[A-H](?:\)|[.:]\s)\s*\S)'
)
_LETTER_AND_MORE = re.compile(r'^(?:\(([A-Z])\)|([A-Z])[.):])\s*\S')
_MORE_LETTERS = re.compile(
  r'(?:[,;/&]|\bor\b|\band\b)\s*\(?([A-H])\)?(?![a-zA-Z])|^\(?[A-H]\)?\s*\(?([A-H])\)?$'
)
_LETTERS = re.compile(r'\(([A-Z])\)|\b([A-Z])[.):](?!\S)')
_INTEGER = re.compile(r'-?(?:\d{1,3}(?:,\d{3})+|\d{1,1000})')
MAX_ITEMS = 200


def same_answer(gold: str, given: str) -> bool:
  """Whether the given answer is the gold one, both LaTeX or plain text.

  Raises symbolic.UnreadableError if the given answer has no readable form.
  """
  if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(given):  # most pairs, in microseconds
    return int(gold.replace(',', '')) == int(given.replace(',', ''))
  amount = same_amount(gold, given)
  if amount is not None:
    return amount
  gold, given = normalise(gold), normalise(given)
  if not gold or not given:
    return False
  if '\\ldots' in given and '\\ldots' not in gold:
    raise symbolic.UnreadableError('the answer goes on with an ellipsis')
  if _APPROX.search(given) and not _APPROX.search(gold):
    return _same_approximately(gold, given)
  return _same(gold, given)


def _same_approximately(gold: str, given: str) -> bool:
  r"""`exact \approx decimal` is right if either is and the second is the first rounded (or cut
  off): no two guesses."""
  first, *_, last = (part.strip() for part in _APPROX.split(given))
  exact = split(first, '=')[-1] if first else ''
  if not exact or is_name(exact):
    return _same(gold, last)
  decimal, value = scalar(last), _value(scalar(exact).text)
  rounded = plain_number(decimal.text)
  if rounded is None or value is None:
    return _same(gold, first)
  half = _half_unit(decimal.text)
  if decimal.percent and not scalar(exact).percent:
    value *= 100
  error = abs(value - rounded)
  agree = error <= half or 0 <= abs(value) - abs(rounded) <= 2 * half
  if agree and (value.denominator > 1 or error == 0) and _same(gold, last):
    return True
  return (agree or error <= abs(value) / 100) and _same(gold, first)


def _value(text: str) -> Fraction | None:
  number = plain_number(text)
  return symbolic.constant(_for_reading(text)) if number is None else number


def _same(gold: str, given: str) -> bool:
  if squeezed(gold) == squeezed(given):
    return True
  text = _same_text(gold, given)
  if text is not None:
    return text
  unnamed = without_name(gold, given) if '\\begin' in gold and '\\begin' in given else (gold, given)
  wanted, got = (matrix(text) for text in unnamed)
  if wanted is not None or got is not None:
    return wanted is not None and got is not None and _same_matrix(wanted, got)
  if is_list(gold):
    given = one_by_one(gold, given)
  if not is_list(given):
    gold, given = without_name(gold, given)
    if not is_list(gold) and max(len(split(gold, '=')), len(split(given, '='))) > 1:
      return _same_equation(gold, given)
  first, second = group(gold), group(given)
  if first is not None and first.kind == 'list' and second is None and SEPARATED.match(given):
    second = Group('list', tuple(given.split(',')))
  if first is None and second is None:
    return _same_value(gold, given)
  if first is None or second is None:
    single = _same_as_single(gold, first, given, second)
    if single is not None:
      return single
    # An interval may also be written as an inequality or a set difference.
    intervals = first or second
    wordy = intervals is not None and is_interval_like(intervals)
    return wordy and symbolic.same_expression(gold, given)
  return _same_group(first, second)


def _same_as_single(
  gold: str, first: Group | None, given: str, second: Group | None
) -> bool | None:
  r"""Of one value and several: \{5\} is 5, and `1/2 or 0.5` says one value twice. Else None."""
  if first is not None and first.kind == 'set' and len(first.items) == 1:
    return _same(first.items[0], given)
  if second is not None and first is None and second.kind != 'bracket':
    if second.kind == 'set' and (len(second.items) > 1 or second.items == ('\\emptyset',)):
      return None
    if 0 < len(second.items) <= MAX_ITEMS and all(_same(gold, item) for item in second.items):
      return True
  return None


def _same_group(gold: Group, given: Group) -> bool:
  if gold.kind != given.kind and len(gold.items) != len(given.items):
    for one, other in ((gold, given), (given, gold)):
      if one.kind == 'set' and len(one.items) == 1 and other.kind == 'bracket':
        return (alone := group(one.items[0])) is not None and _same_group(alone, other)
  if len(gold.items) != len(given.items) or len(gold.items) > MAX_ITEMS:
    return False
  named = values_by_name(gold.items), values_by_name(given.items)
  if '()' in (gold.ends, given.ends) and (named[0] or named[1]):
    return _same_items(named[0] or gold.items, named[1] or given.items)
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
    twin = next((other for other in left if squeezed(other) == squeezed(item)), None)
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


def _same_matrix(gold: list[list[str]], given: list[list[str]]) -> bool:
  return len(gold) == len(given) and all(
    _same_items(a, b) for a, b in zip(gold, given, strict=True)
  )


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
  got = without_announcement(got)
  letter = _LETTER.match(wanted)
  chosen = _ONE_OF_SOME.match(wanted) and _CHOSEN.match(got)
  if letter is not None and (has_text(gold) or wanted.startswith('(') or chosen):
    if len({one or other for one, other in _LETTERS.findall(got)}) > 1:
      return False  # (A) or (B)
    if {one or other for one, other in _MORE_LETTERS.findall(got)} - {letter[1]}:
      return False  # (A), B
    more = _LETTER_AND_MORE.match(got)
    other = _LETTER.match(got) or (more and re.match(r'\(?([A-Z])', got))
    return bool(other) and other[1] == letter[1]
  words = re.fullmatch(r"[A-Za-z][A-Za-z'.,\-\" ]*", wanted) is not None
  if words and (has_text(gold) or _WORD.search(wanted)):
    return _words(wanted) == _words(got)
  if _DATE.fullmatch(wanted) and (has_text(gold) or re.match('[A-Z][a-z]{2}', wanted)):
    return _words(wanted) == _words(got)
  return None


def _words(text: str) -> list[str]:
  found = re.findall(r"[a-z0-9']+|[^\sa-z0-9'.,\-\"`*]", text.lower())
  if all(len(word) == 1 for word in found if word != 'and'):  # A, C: no article
    return [word for word in found if word != 'and']
  few = [word for word in found if word not in ('a', 'an', 'the', 'and')]
  return few if few and len(found) > 1 else found


def _same_value(gold: str, given: str) -> bool:
  if ':' in gold or ':' in given:
    return _same_ratio(gold, given)
  based = _same_in_base(gold, given)
  if based is not None:
    return based
  wanted, got = scalar(gold), scalar(given)
  if units_clash(wanted.unit, got.unit):
    return False
  bare = squeezed(got.text)
  first = plain_number(wanted.text)
  if first is not None and (unit := number_and_unit_letter(got.text)):
    got = Scalar(unit.text, got.percent, unit.unit + got.unit)  # of a number a letter is a unit
    if units_clash(wanted.unit, got.unit):
      return False
  elif wanted.unit and bare.endswith(squeezed(wanted.unit)):  # a unit of one letter, 5 m
    got = Scalar(bare.removesuffix(squeezed(wanted.unit)), got.percent, wanted.unit)
  if squeezed(wanted.text) == squeezed(got.text) and wanted.percent == got.percent:
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
  # of a gold 1/3 or 0.4, 0.4% is another number; 27 may be asked for in percent
  bare = gold.percent or not given.percent or (abs(first) >= 1 and 'frac' not in gold.text)
  candidates = [first] if bare else []
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
    return _has_value(gold, got, given)
  if got is not None:
    return got[1] == wanted[1] and _base(got) == base
  return re.sub(r'\s', '', unwrap_text(given)) == wanted[1]


def _has_value(gold: str, got: re.Match[str] | None, given: str) -> bool | None:
  """Whether digits in a base have the value of a gold without one; None if no base is given."""
  if got is None or not got[1][0].isdigit() or not (base := _base(got)):
    # of a plain number nothing else hangs below a digit
    return False if re.search(r'\d\s*\)?\s*_', given) and '_' not in gold else None
  value = plain_number(scalar(gold).text)
  if not 2 <= int(base) <= 36 or value is None:
    return False
  try:
    return int(got[1], int(base)) == value
  except ValueError:  # a digit that the base has not
    return False


def _same_ratio(gold: str, given: str) -> bool:
  """2:3 is 4:6; times of a clock, 4:15 or 10:30 a.m., are as they stand."""
  wanted, got = scalar(gold), scalar(given)
  parts = [[squeezed(part) for part in side.text.split(':')] for side in (wanted, got)]
  if len(parts[0]) != len(parts[1]) or units_clash(wanted.unit, got.unit):
    return False
  numbers = [[plain_number(part) for part in side] for side in parts]
  first, second = ([number for number in side if number is not None] for side in numbers)
  if len(first) + len(second) < 2 * len(parts[0]):  # not numbers all
    return parts[0] == parts[1]
  if first == second:
    return True
  clock = any(re.fullmatch(r'\d{1,2}(?::\d\d)+', ':'.join(side)) for side in parts)
  return (
    not clock
    and 0 not in (first[0], second[0])
    and all(a * second[0] == b * first[0] for a, b in zip(first, second, strict=True))
  )


def _base(match: re.Match[str]) -> str:
  """The base in digits; '' for a word that is none."""
  base = match[2] or match[3]
  return base if base.isdigit() else _BASE_WORDS.get(base, '')


def _for_reading(text: str) -> str:
  """The text with its products spelled out: the LaTeX reader adds numbers that stand side by side
  ("3(15)", "(3)(15)"), as if each were a mixed number; those are sums to us, and are written so.

  Raises UnreadableError for two numbers with nothing but a space between them.
  """
  text = re.sub(r'(?<![a-zA-Z\\])pi(?![a-zA-Z])', r'\\pi', text)
  text = re.sub(r'(?<=\d)[eE]([+-]?\d+)(?![\d.])', r' \\cdot 10^{\1}', text)
  if _SIDE_BY_SIDE.search(text):
    raise symbolic.UnreadableError(f'two numbers side by side in {text[:100]!r}')
  text = _MIXED.sub(
    lambda m: rf'({m[1]}+\frac{{{m[2]}}}{{{m[3]}}})' if int(m[2]) < int(m[3]) else m[0], text
  )
  return _FACTOR.sub(r'\1 \\cdot ', _PRODUCT.sub(r' \\cdot ', text))

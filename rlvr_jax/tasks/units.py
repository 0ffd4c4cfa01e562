r"""What stands around a number: an announcement, a percent sign, a unit, a currency, degrees.

A unit does not count where only one answer has it; known units that differ do, in name or in power.
"""

import dataclasses
import re
from fractions import Fraction

from rlvr_jax.tasks.normal import TEXT_GROUP, normalise, plain_number, unwrap_text

_SPELLED = re.compile(r'\s*(?:\\?%|percent\b|per cent\b)\s*((?:increase|decrease|more|less)?)\s*$')
_ANNOUNCED = re.compile(
  r'^(?:(?:[Tt]he )?(?:final )?(?:[Aa]nswer)?(?: is|:)\s+|[Tt]here (?:are|is) (?=-?\d))'
)

# A trailing word that is part of the mathematics, not a unit.
_NOT_UNITS = {
  'pi', 'sin', 'cos', 'tan', 'log', 'ln', 'exp', 'sqrt', 'and', 'or', 'mod', 'infty', 'inf', 'to',
}  # fmt: skip
# Words behind a number that are part of its value: 2.5 million, 3 dozen.
_SCALES = {
  'dozen': '12',
  'hundred': '10^{2}',
  'thousand': '10^{3}',
  'million': '10^{6}',
  'billion': '10^{9}',
  'trillion': '10^{12}',
}
_SCALE = re.compile(
  r'^(.*[\d})])\s*(' + '|'.join(_SCALES) + r')s?((?:\s+[a-zA-Z]+)*)$', re.IGNORECASE
)
# and those that make another value of it, which no reading of ours follows
_PARTS = re.compile(
  r'(?:hal(?:f|ves)|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth'
  r'|squared|cubed|factorial|choose|not|if|except|remainder|base|mod|modulo|plus|minus|divided'
  r'|multiplied|over|root|than|is|are|was|cannot)s?'
)
# one way only to cut a text into words, or a long sentence takes for ever
_UNIT = re.compile(
  r'^(.*[\d})!])\s*([a-zA-Z]{2,}\.?(?:(?:[ \-/^{}\d]+|(?<=\.))[a-zA-Z]+\.?)*(?:\^\{?\d\}?)?)$'
)
_SPACED_INITIALS = re.compile(r'\b([ap])\.?\s?m\.?(?![a-z])', re.IGNORECASE)  # a.m.
_VARIABLES = frozenset('xyznkabdefpqruvwi')  # in a text group too, one of these is no unit
_UNIT_LETTER = re.compile(r'(.*[\d}])\s*([mgsLNJWKV](?:/[a-zA-Z]+(?:\^\{?-?\d\}?)?)?)')
_NAMES = {
  'millimeter': ('mm', 'millimetre'),
  'centimeter': ('cm', 'centimetre'),
  'meter': ('m', 'metre'),
  'kilometer': ('km', 'kilometre'),
  'inch': ('in', 'inche'),
  'foot': ('ft', 'feet'),
  'yard': ('yd',),
  'mile': ('mi',),
  'second': ('s', 'sec'),
  'minute': ('min',),
  'hour': ('h', 'hr'),
  'day': (),
  'week': (),
  'month': (),
  'year': ('yr',),
  'gram': ('g',),
  'kilogram': ('kg',),
  'pound': ('lb',),
  'ounce': ('oz',),
  'cent': (),
  'dollar': ('usd',),
  'radian': ('rad',),
  'degree': ('deg',),
  'am': (),
  'pm': (),
  'unit': (),
}
_SPEEDS = {'mph': 'mile/hour', 'kmh': 'kilometer/hour', 'kph': 'kilometer/hour'}
_KNOWN = {other: name for name, others in _NAMES.items() for other in (name, *others)}
_SHORT_UNITS = {'mph', 'men', 'per', 'eur', 'sq', 'cu', *(name for name in _KNOWN if len(name) > 1)}
_OPPOSITES = (
  ('increase', 'decrease'), ('more', 'less'), ('more', 'fewer'), ('left', 'right'), ('up', 'down'),
  ('north', 'south'), ('east', 'west'), ('profit', 'loss'), ('gain', 'loss'), ('above', 'below'),
  ('older', 'younger'), ('heads', 'tails'), ('clockwise', 'counterclockwise'), ('ad', 'bc'),
)  # fmt: skip
_COUNTS = (
  'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven',
  'twelve', 'thirteen', 'fourteen', 'fifteen', 'sixteen', 'seventeen', 'eighteen', 'nineteen',
)  # fmt: skip
_TENS = ('twenty', 'thirty', 'forty', 'fifty', 'sixty', 'seventy', 'eighty', 'ninety')
_NUMBER_WORDS = {word: value for value, word in enumerate(_COUNTS)} | {
  f'{ten}-{_COUNTS[one]}' if one else ten: 10 * i + one
  for i, ten in enumerate(_TENS, 2)
  for one in range(10)
}
_SPELLED_COUNT = re.compile('(' + '|'.join(_NUMBER_WORDS) + r') ([a-zA-Z]+)', re.IGNORECASE)
_DEGREES = re.compile(
  r'\^\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])|\\degree(?![a-zA-Z])|[°º\u02da]|\bdegrees?\b'
)
_RADIANS = re.compile(r'\brad(?:ian)?s?\b')
_DOLLARS = re.compile(r'\\\$|^\s*\$\s*\d|\bdollars?\b|\bUSD\b', re.IGNORECASE)
_CENTS = re.compile(r'\bcents?\b|¢', re.IGNORECASE)
_TRIGONOMETRY = re.compile('sin|cos|tan|sec|csc|cot')


@dataclasses.dataclass(frozen=True)
class Scalar:
  """One value: its LaTeX, whether a percent sign followed, and the unit that was cut off."""

  text: str
  percent: bool = False
  unit: str = ''


def without_announcement(text: str) -> str:
  """Cuts "The answer is" and its kin off."""
  return _ANNOUNCED.sub('', text)


def scalar(text: str) -> Scalar:
  """Cuts an announcement ("The answer is"), a unit and a percent sign off a normalised value."""
  bare = without_announcement(unwrap_text(text))
  if bare.lower() in _NUMBER_WORDS:
    return Scalar(str(_NUMBER_WORDS[bare.lower()]))
  if match := _SPELLED.search(bare):
    return Scalar(bare[: match.start()].strip(), percent=True, unit=match[1])
  unit = ''
  while cut := _without_text_unit(text):  # a unit in a text group may have one letter: 10 \text{ m}
    text, more = cut
    bare, unit = without_announcement(unwrap_text(text)), more + unit
  if match := _SCALE.match(bare):
    scale = _SCALES[match[2].lower()]
    return Scalar(rf'{match[1].strip()} \times {scale}', unit=match[3].strip())
  bare = _SPACED_INITIALS.sub(r'\1m', bare)
  while (match := _UNIT.match(bare)) and _is_unit(match[2], bare[len(match[1])].isspace()):
    bare, unit = match[1].strip(), match[2] + unit
  if (match := _SPELLED_COUNT.fullmatch(bare)) and _known(match[2].lower()):  # forty dollars
    return Scalar(str(_NUMBER_WORDS[match[1].lower()]), unit=match[2] + unit)
  return Scalar(bare, unit=unit)


def _without_text_unit(text: str) -> tuple[str, str] | None:
  r"""(the rest, the unit) of a value that ends in \text{unit}, with a power or not."""
  group = list(TEXT_GROUP.finditer(text))
  if not group or group[-1].start() == 0:
    return None
  content, after = group[-1][1].strip(), text[group[-1].end() :].strip()
  words = re.findall('[a-zA-Z]+', content)
  if not re.fullmatch(r'(?:\^\s*(?:\{?-?\d\}?))?', after) or not words:
    return None
  first = words[0].lower()
  if any(_is_part(word.lower()) or word.lower() in _NUMBER_WORDS for word in words):
    return None
  if first in _NOT_UNITS or content in _VARIABLES:
    return None
  rest = text[: group[-1].start()].strip()
  if joined := re.search(r'(?:\\cdot|\\times|/)$', rest):
    if not TEXT_GROUP.search(rest):
      return None
    rest = rest[: joined.start()].strip()
    return rest, ('/' if joined[0] == '/' else ' ') + content + after
  return rest, content + after


def number_and_unit_letter(text: str) -> Scalar | None:
  """A number's unit of one letter, 5 m or 5 m/s: behind a number alone it is no variable."""
  match = _UNIT_LETTER.fullmatch(text)
  return Scalar(match[1], unit=match[2]) if match else None


def _is_part(word: str) -> bool:
  """Whether a word behind a number belongs to its value."""
  return bool(_PARTS.fullmatch(word)) or word.removesuffix('s') in _SCALES


def _is_unit(words: str, apart: bool) -> bool:
  """Whether bare words behind a number are a unit and not a product of variables (2ab)."""
  every = [word for word in re.split(r'[^a-z]+', words.lower()) if word]
  first = every[0]
  if first in _NOT_UNITS or _is_part(first) or any(word in _NUMBER_WORDS for word in every):
    return False
  return first in _SHORT_UNITS or _known(first) is not None or (apart and len(first) > 3)


def is_measure(word: str) -> bool:
  """Whether a word is a known unit or one of scale wherever it stands: not "in", "am", and dozens
  may be what was asked for."""
  word = word.lower()
  if word in ('in', 'am', 'unit', 'units', 'second', 'dozen', 'dozens'):
    return False
  return word.removesuffix('s') in _SCALES or _known(word) is not None


def units_clash(a: str, b: str) -> bool:
  """Whether both are units of a short list of known ones, and different (5 km is not 5 m), or of
  different powers (cm^2 is not cm^3), or are opposites (5 m up is not 5 m down)."""
  if not a.strip() or not b.strip():
    return False
  first, second = _powers(a), _powers(b)
  words = {word for word, _ in first}, {word for word, _ in second}
  for one, other in _OPPOSITES:
    if (one in words[0] and other in words[1]) or (other in words[0] and one in words[1]):
      return True
  exponents = sorted(p for _, p in first if p != 1), sorted(p for _, p in second if p != 1)
  if exponents[0] and exponents[1] and exponents[0] != exponents[1]:
    return True
  return words[0] | words[1] <= set(_NAMES) and first != second


def _powers(unit: str) -> set[tuple[str, int]]:
  """The words of a unit, known ones by their names, with their powers: mi^2 is square miles."""
  unit = _SPACED_INITIALS.sub(r'\1m', unwrap_text(normalise(unit)))
  unit = re.sub(r'\b(?:mph|kmh|kph)\b', lambda m: _SPEEDS[m[0].lower()], unit, flags=re.IGNORECASE)
  unit = re.sub(r'\b(?:square|sq\.?)\s+([a-zA-Z]+)', r'\1^2', unit.lower())
  unit = re.sub(r'\b(?:cubic|cu\.?)\s+([a-zA-Z]+)', r'\1^3', unit)
  unit = re.sub(r'\\(?:cdot|times)|\bof\b|\bthe\b', ' ', unit)
  found = set()
  below = 1
  for sign, word, power in re.findall(r'(/|\bper\b)|([a-z]+)\s*(?:\^\s*\{?(-?\d)\}?)?', unit):
    if sign:
      below = -1
    elif word:
      found.add((_known(word) or word, below * int(power or 1)))
  return found


def _known(word: str) -> str | None:
  return _KNOWN.get(word) or (_KNOWN.get(word[:-1]) if word.endswith('s') else None)


def same_amount(gold: str, given: str) -> bool | None:
  r"""Decides pairs of which one is in degrees and the other in radians, or one in dollars and the
  other in cents, by their values; None for all others. Both as they were written."""
  degrees = tuple(bool(_DEGREES.search(text)) for text in (gold, given))
  if degrees[0] != degrees[1] and not _TRIGONOMETRY.search(gold + given):
    other = given if degrees[0] else gold
    if _RADIANS.search(other) or '\\pi' in other or 'π' in other:
      return _same_angle(gold if degrees[0] else given, other)
  if bool(_DOLLARS.search(gold)) != bool(_DOLLARS.search(given)):
    cents = tuple(bool(_CENTS.search(text)) for text in (gold, given))
    if cents[0] != cents[1] and bool(_DOLLARS.search(gold)) == cents[1]:
      first, second = (plain_number(scalar(normalise(text)).text) for text in (gold, given))
      if first is None or second is None:
        return False
      return first * 100 == second if cents[1] else first == second * 100
  return None


def _same_angle(degrees: str, radians: str) -> bool:
  r"""Whether so many degrees are a rational multiple of \pi, which is how radians are given."""
  angle = plain_number(scalar(normalise(degrees)).text)
  text = re.sub(r'\s', '', scalar(normalise(radians)).text)
  if angle is None or text.count('\\pi') != 1:
    return False
  factor = text.replace('\\pi', '')
  if factor.startswith(('\\frac{}', '-\\frac{}')):
    factor = factor.replace('\\frac{}', '\\frac{1}')
  elif factor.startswith('/'):
    factor = '1' + factor
  value = Fraction(1) if not factor else plain_number(factor.replace('\\cdot', ''))
  return value is not None and value * 180 == angle

r"""One spelling for the many ways an answer is written, and exact plain numbers.

Only notation is unified here (\dfrac and \frac, 1{,}000 and 1,000, 30° and 30); what two answers
mean is compared in answers.py.
"""

import dataclasses
import functools
import re
import unicodedata
from fractions import Fraction
from typing import Any

_UNICODE = str.maketrans(
  {
    'π': '\\pi ',
    '°': '',
    '\N{MINUS SIGN}': '-',
    '\N{EN DASH}': '-',
    '\N{NON-BREAKING HYPHEN}': '-',
    '\N{FULLWIDTH HYPHEN-MINUS}': '-',
    '\N{MULTIPLICATION SIGN}': '\\times ',
    '·': '\\cdot ',
    '\N{DOT OPERATOR}': '\\cdot ',
    '\N{DIVISION SIGN}': '\\div ',
    '\N{FRACTION SLASH}': '/',
    '\N{DIVISION SLASH}': '/',
    '∞': '\\infty ',
    '\N{UNION}': '\\cup ',
    '∩': '\\cap ',
    '∈': '\\in ',
    '∅': '\\emptyset ',
    '\u211d': '\\mathbb{R}',
    '≤': '\\le ',
    '≥': '\\ge ',
    '≠': '\\ne ',
    '≈': '\\approx ',
    '±': '\\pm ',
    '∓': '\\mp ',
    '⌊': '\\lfloor ',
    '⌋': '\\rfloor ',
    '⌈': '\\lceil ',
    '⌉': '\\rceil ',
    '\u00a0': ' ',
    '\u2009': ' ',
    '\u202f': ' ',
    '\uff0c': ',',
    '\uff08': '(',
    '\uff09': ')',
    '\uff1a': ':',
    '\uff05': '%',
    **{
      letter: f'\\{name} '
      for letter, name in zip(
        'αβγδεθλμρστφω',
        [
          'alpha',
          'beta',
          'gamma',
          'delta',
          'epsilon',
          'theta',
          'lambda',
          'mu',
          'rho',
          'sigma',
          'tau',
          'phi',
          'omega',
        ],
        strict=True,
      )
    },
    **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
  }
)
_RAISED = str.maketrans('⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ', '0123456789+-n')
_LOWERED = str.maketrans('₀₁₂₃₄₅₆₇₈₉', '0123456789')
_VULGAR = re.compile('[¼-¾⅐-⅞]')  # ¼ to ¾, ⅐ to ⅞: one character a fraction
_TEXT = (
  r'\\(?:text|textbf|textit|textrm|textsf|textnormal|mathrm|mathbf|mathit|mathsf|mathtt|mbox|hbox'
  r'|operatorname|boldsymbol|bold|underline|rm|bf)'
)
_TEXT_GROUP = re.compile(_TEXT + r'(?![a-zA-Z])\s*\{((?:[^{}]|\{[^{}]*\})*)\}')
_REWRITES: tuple[tuple[re.Pattern[str], Any], ...] = tuple(
  (re.compile(pattern), to)
  for pattern, to in (
    (r'\\(?:left|right)\s*\.(?!\d)', ''),
    (r'\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])', ''),
    (r'\\(?:display|text|script)style(?![a-zA-Z])', ''),
    (r'\\[dtc]frac(?![a-zA-Z])', r'\\frac'),
    (r'\\(?:lbrace)(?![a-zA-Z])', r'\\{'),
    (r'\\(?:rbrace)(?![a-zA-Z])', r'\\}'),
    (r'\\(?:leq|leqslant)(?![a-zA-Z])', r'\\le'),
    (r'\\(?:geq|geqslant)(?![a-zA-Z])', r'\\ge'),
    (r'\\neq(?![a-zA-Z])', r'\\ne'),
    (r'\\varnothing(?![a-zA-Z])', r'\\emptyset'),
    (r'\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\(?:circ|degree)|\\degree(?![a-zA-Z])', ''),
    (r'\\frac\s*(\d|\\pi)\s*(\d)', r'\\frac{\1}{\2}'),
    (r'\\frac\s*(\d|[a-zA-Z])\s*\{', r'\\frac{\1}{'),
    (r'(\\frac\s*\{[^{}]*\})\s*(\d|[a-zA-Z])', r'\1{\2}'),
    (r'\{,\}', ','),
    (r'(?<=\d)\.(?=\s*[-+*/)])', ''),
    (r'(?<=\d),?\\[!,](?=\d{3}(?!\d))', ','),
    (r'(?<!\\)\\!', ''),
    (r'(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z]))|~', ' '),
    (r'(?<!\\)\\[()\[\]]|(?:(?<![a-zA-Z])US)?\\?\$|[€£]', ''),
    (r'\\(?:mathrm|mathit|text|operatorname)\s*\{\s*([ie])\s*\}', r' \1 '),
    (r'√\s*\(([^()]*)\)', r'\\sqrt{\1}'),
    (r'√\s*(\d+|[a-zA-Z])', r'\\sqrt{\1}'),
    (r'^(?:\\(?:approx|sim|Rightarrow|implies|therefore)(?![a-zA-Z])|=)\s*', ''),
    (r'\s+', ' '),
    (r'(?:\s*\\\\)+$', ''),
    (r'^(-?\d{1,3})((?: \d{3})+)(?=\.\d+$|$)', lambda m: m[1] + m[2].replace(' ', '')),
  )
)
_SPELLED = re.compile(r'\s*(?:\\?%|percent\b|per cent\b)\s*$')

# A trailing word that is part of the mathematics, not a unit.
_NOT_UNITS = {
  'pi',
  'sin',
  'cos',
  'tan',
  'log',
  'ln',
  'exp',
  'sqrt',
  'and',
  'or',
  'mod',
  'infty',
  'inf',
}
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
  r'|squared|cubed|factorial|choose|not|if|except|remainder|base|mod|modulo)s?'
)
_UNIT = re.compile(
  r'^(.*[\d})!])\s*((?:[a-zA-Z]{2,}\.?)(?:[ \-/^{}\d]*[a-zA-Z]+\.?)*(?:\^\{?\d\}?)?)$'
)
_UNIT_NAMES = {
  'mm': 'millimeter',
  'cm': 'centimeter',
  'm': 'meter',
  'km': 'kilometer',
  'inche': 'inch',
  'feet': 'foot',
  'ft': 'foot',
  'yd': 'yard',
  'mi': 'mile',
  'sec': 'second',
  's': 'second',
  'min': 'minute',
  'hr': 'hour',
  'h': 'hour',
  'g': 'gram',
  'kg': 'kilogram',
}
_SHORT_UNITS = {
  'mph',
  'men',
  'deg',
  'rad',
  'am',
  'pm',
  'usd',
  'eur',
  'lb',
  'lbs',
  'oz',
  'in',
  'sq',
  'cu',
}
_KNOWN_UNITS = {*_UNIT_NAMES.values(), 'cent', 'dollar', 'day', 'week', 'month', 'year'}


@dataclasses.dataclass(frozen=True)
class Scalar:
  """One value: its LaTeX, whether a percent sign followed, and the unit that was cut off."""

  text: str
  percent: bool = False
  unit: str = ''


@functools.lru_cache(maxsize=8192)
def normalise(text: str) -> str:
  r"""The answer in one notation; empty if nothing but decoration was there.

  Text groups (\text{...} and its kin) stay as they are, for their words are not mathematics.
  """
  text = text.strip()
  if not text.isascii():
    text = _without_unicode(text)
  for pattern, to in _REWRITES:
    text = pattern.sub(to, text)
  text = _joined_thousands(text.strip())
  while text.endswith(('.', ',', ';')) and not text.endswith('\\,'):
    text = text[:-1].rstrip()
  return text


def _joined_thousands(text: str) -> str:
  r"""1,000\pi as 1000\pi. A comma may also part a list: inside brackets, and where the text is
  nothing but digits and commas, only if all other commas have a space behind them."""
  if ',' not in text or not _THOUSANDS.search(text):
    return text
  without = _THOUSANDS.sub('', text)
  loose = ',' in without and not re.search(r',(?!\s)', without)
  alone = (
    ',' not in without and not re.search(r'[\[(]|\\\{', text) and re.search(r'[^\d,.\s-]', text)
  )
  if not (loose or alone):
    return text
  return _THOUSANDS.sub(lambda m: m[0].replace(',', ''), text)


def _without_unicode(text: str) -> str:
  text = re.sub('[⁰¹²³⁴-⁹⁺⁻ⁿ]+', lambda m: f'^{{{m[0].translate(_RAISED)}}}', text)
  text = re.sub('[₀-₉]+', lambda m: f'_{{{m[0].translate(_LOWERED)}}}', text)
  text = _VULGAR.sub(
    lambda m: '\\frac{{{}}}{{{}}}'.format(*unicodedata.normalize('NFKC', m[0]).split('\u2044')),
    text,
  )
  return text.translate(_UNICODE)


def _fraction(match: re.Match[str]) -> str:
  return '\\frac{{{}}}{{{}}}'.format(*unicodedata.normalize('NFKC', match[0]).split('\u2044'))


def unwrap_text(text: str) -> str:
  r"""The same with \text{...} and its kin replaced by what they hold."""
  before = None
  while before != text:
    before, text = text, _TEXT_GROUP.sub(r' \1 ', text)
  return re.sub(r'\s+', ' ', text).strip()


def has_text(text: str) -> bool:
  r"""Whether the normalised answer holds a \text group."""
  return _TEXT_GROUP.search(text) is not None


def scalar(text: str) -> Scalar:
  """Cuts an announcement ("The answer is"), a unit and a percent sign off a normalised value."""
  bare = unwrap_text(text)
  bare = re.sub(r'^(?:[Tt]he )?(?:final )?(?:[Aa]nswer)?(?: is|:)\s+', '', bare)
  if _SPELLED.search(bare):
    return Scalar(_SPELLED.sub('', bare).strip(), percent=True)
  unit = ''
  # A unit in a text group may have one letter (10 \text{ m}); a bare letter is a variable.
  if (group := list(_TEXT_GROUP.finditer(text))) and group[-1].start() > 0:
    after = text[group[-1].end() :].strip()
    word = re.search('[a-zA-Z]+', group[-1][1])
    if re.fullmatch(r'(?:\^\s*\{?-?\d\}?)?', after) and word and not _is_part(word[0].lower()):
      unit = group[-1][1].strip() + after
      bare = unwrap_text(text[: group[-1].start()])
  if match := _SCALE.match(bare):
    scale = _SCALES[match[2].lower()]
    return Scalar(rf'{match[1].strip()} \times {scale}', unit=match[3].strip())
  while (match := _UNIT.match(bare)) and _is_unit(match[2], bare[len(match[1])].isspace()):
    bare, unit = match[1].strip(), match[2] + unit
  return Scalar(bare, unit=unit)


def _is_part(word: str) -> bool:
  """Whether a word behind a number belongs to its value."""
  return bool(_PARTS.fullmatch(word)) or word.removesuffix('s') in _SCALES


def _is_unit(words: str, apart: bool) -> bool:
  """Whether bare words behind a number are a unit and not a product of variables (2ab)."""
  first = re.split(r'[^a-z]', words.lower())[0]
  if first in _NOT_UNITS or _is_part(first):
    return False
  return first in _SHORT_UNITS or _unit_name(first) in _KNOWN_UNITS or (apart and len(first) > 3)


def units_clash(a: str, b: str) -> bool:
  """Whether both are units of a short list of known ones, and different (5 km is not 5 m), or of
  different powers (cm^2 is not cm^3)."""
  powers = re.findall(r'\^\{?(-?\d)', a), re.findall(r'\^\{?(-?\d)', b)
  if powers[0] and powers[1] and powers[0] != powers[1]:
    return True
  first, second = _unit_name(a), _unit_name(b)
  return first != second and {first, second} <= _KNOWN_UNITS


def _unit_name(unit: str) -> str:
  unit = unit.lower().strip(' .')
  singular = unit[:-1] if unit.endswith('s') and len(unit) > 1 else unit
  return _UNIT_NAMES.get(unit) or _UNIT_NAMES.get(singular) or singular


_DIGITS = r'(?:\d{1,3}(?:,\d{3})+|\d+)'
_DECIMAL = rf'(?:{_DIGITS}(?:\.\d*)?|\.\d+)'
_PATTERNS = {
  'decimal': re.compile(rf'({_DECIMAL})'),
  'power': re.compile(
    rf'({_DECIMAL})(?:[eE]\+?|(?:\\times|\\cdot|\*|x)10\^)\{{?\(?([+-]?\d{{1,4}})\)?\}}?'
  ),
  'ten': re.compile(r'10\^\{?([+-]?\d{1,4})\}?'),
  'fraction': re.compile(
    rf'(?:\\frac(?:\{{(-?{_DECIMAL})\}}\{{(-?{_DECIMAL})\}}|(\d)(\d)|(\d)\{{({_DECIMAL})\}}|'
    rf'\{{(-?{_DECIMAL})\}}(\d))|({_DECIMAL})/({_DECIMAL}))'
  ),
  'repeating': re.compile(r'(\d*)\.(\d*)\\overline\{?(\d+)\}?'),
  'mixed': re.compile(r'(\d+)\\frac(?:\{(\d+)\}\{(\d+)\}|(\d)(\d))'),
}
_MIXED_SLASH = re.compile(r'([+-]?)\s*(\d+)\s+(\d+)/(\d+)')
_THOUSANDS = re.compile(r'(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)')
MAX_DIGITS = 2000


def plain_number(text: str) -> Fraction | None:
  r"""The exact value of 12, 1,234.5, 3/4, \frac34, 2\frac{1}{4}, 4.5e33 or 4.5 \times 10^{33}.

  None for everything else. A whole number before a fraction is a mixed number, not a product.
  """
  if len(text) > MAX_DIGITS:
    return None
  if match := _MIXED_SLASH.fullmatch(text.strip()):
    sign, whole, top, bottom = match.groups()
    value = _ratio(top, bottom)
    return None if value is None else (int(whole) + value) * (-1 if sign == '-' else 1)
  text = re.sub(r'\s', '', text)
  sign = 1
  while text[:1] in ('-', '+'):
    sign, text = (-sign if text[0] == '-' else sign), text[1:]
  value = _unsigned(text)
  return None if value is None else sign * value


def _unsigned(text: str) -> Fraction | None:
  if match := _PATTERNS['decimal'].fullmatch(text):
    return _decimal(match[1])
  if match := _PATTERNS['power'].fullmatch(text):
    return _decimal(match[1]) * Fraction(10) ** int(match[2])
  if match := _PATTERNS['ten'].fullmatch(text):
    return Fraction(10) ** int(match[1])
  if match := _PATTERNS['fraction'].fullmatch(text):
    top, bottom = (group for group in match.groups() if group is not None)
    return _ratio(top, bottom)
  if match := _PATTERNS['repeating'].fullmatch(text):
    whole, start, period = match.groups()
    tail = Fraction(int(period), 10 ** len(period) - 1) / 10 ** len(start)
    return _decimal(f'{whole or 0}.{start or 0}') + tail
  if match := _PATTERNS['mixed'].fullmatch(text):
    whole, top, bottom = (group for group in match.groups() if group is not None)
    value = _ratio(top, bottom)
    if value is None:
      return None
    return int(whole) + value if value < 1 else int(whole) * value  # 2\frac{5}{3} is a product
  return None


def _ratio(top: str, bottom: str) -> Fraction | None:
  denominator = _decimal(bottom)
  return _decimal(top) / denominator if denominator else None


def _decimal(text: str) -> Fraction:
  return Fraction(text.replace(',', '').rstrip('.') or '0')


def significant_digits(text: str) -> int:
  """How many digits a decimal is given with: 0 unless it has a decimal point or an exponent."""
  match = re.match(r'[+-]?([\d,]*)(?:\.(\d*))?(?:[eE]|\\times|\\cdot|$)', re.sub(r'\s', '', text))
  if match is None or (match[2] is None and not re.search(r'[eE]|\^', text)):
    return 0
  return len((match[1].replace(',', '') + (match[2] or '')).lstrip('0'))

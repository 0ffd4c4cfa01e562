r"""One spelling for the many ways an answer is written, and exact plain numbers.

Only notation is unified here (\dfrac and \frac, 1{,}000 and 1,000, 30° and 30); what two answers
mean is compared in answers.py.
"""

import functools
import re
import unicodedata
from fractions import Fraction
from typing import Any

_UNICODE = str.maketrans(
  {
    'π': '\\pi ',
    '°': '^\\circ ',
    'º': '^\\circ ',
    '\N{RING ABOVE}': '^\\circ ',
    '¢': '\\text{ cents}',
    '…': '\\ldots ',
    '\N{MINUS SIGN}': '-',
    '\N{EN DASH}': '-',
    '\N{NON-BREAKING HYPHEN}': '-',
    '\N{FULLWIDTH HYPHEN-MINUS}': '-',
    '\N{SMALL HYPHEN-MINUS}': '-',
    '\N{FULLWIDTH EQUALS SIGN}': '=',
    '\N{IDEOGRAPHIC COMMA}': ',',
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
TEXT_GROUP = re.compile(_TEXT + r'(?![a-zA-Z])\s*\{((?:[^{}]|\{[^{}]*\})*)\}')
# 0.333\ldots and 1.2727\ldots: three equal digits, or a period of more digits twice
_ELLIPSIS = r'(?<![\d.])(\d*)\.(\d{0,3}?)(?:(\d)\3{2,}|(\d{2,6}?)\4+)\s*\\ldots\s*$'
_DOTTED = r'(\.\d*)\\dot\s*\{?(\d)\}?(?:(\d*)\\dot\s*\{?(\d)\}?)?'
_ORDINAL = (
  r'(?<=\d)\s*\^\s*(?:\{\s*)?\\(?:text|mathrm)\s*\{(?:st|nd|rd|th)\}(?:\s*\})?'
  r'|(?<=\d)(?:\\(?:text|mathrm)\s*\{(?:st|nd|rd|th)\}|(?:st|nd|rd|th)(?![a-zA-Z]))'
)
# \{x \in \mathbb{R} \mid x > 2\}: the condition says it all
_SET_BUILDER = (
  r'^\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\{?R\}?\s*)?(?:\\mid(?![a-zA-Z])|\\vert(?![a-zA-Z])|\||:)'
  r'\s*((?:(?!\\[{}]).)*(?:[<>]|\\(?:le|ge|ne)(?![a-zA-Z]))(?:(?!\\[{}]).)*)\\\}$'
)
_DEGREE = r'\s*(?:\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\(?:circ|degree)|\\degree)(?![a-zA-Z])'
_TRIGONOMETRY_IN_DEGREES = rf'^.*\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z]).*{_DEGREE}.*$'
_UNIT_GROUP = r'\\(?:text|mathrm)\s*\{\s*([a-zA-Z]+)\s*\}'


def _quotient(unit: re.Match[str]) -> str:
  return rf'\text{{{unit[1]}/{unit[2]}}}{unit[3] or ""}'


_REWRITES: tuple[tuple[re.Pattern[str], Any], ...] = tuple(
  (re.compile(pattern), to)
  for pattern, to in (
    (r'^(?:\*\*([^*]+)\*\*|`([^`]+)`)$', lambda m: m[1] or m[2]),
    (r'\\(?:text)?color\s*\{[^{}]*\}|\\[hv]?phantom\s*\{[^{}]*\}', ''),
    (r'\\left\s*\\lbrack|\\lbrack(?![a-zA-Z])', '['),
    (r'\\right\s*\\rbrack|\\rbrack(?![a-zA-Z])', ']'),
    (r'\\(?:left|right)\s*\.(?!\d)', ''),
    (r'\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])', ''),
    (r'\\(?:display|text|script)style(?![a-zA-Z])|^\\(?:bf|it|rm)\s+', ''),
    (r'\\[dtc]frac(?![a-zA-Z])', r'\\frac'),
    (r'\\(?:lbrace)(?![a-zA-Z])', r'\\{'),
    (r'\\(?:rbrace)(?![a-zA-Z])', r'\\}'),
    (r'\\(?:leq|leqslant)(?![a-zA-Z])', r'\\le'),
    (r'\\(?:geq|geqslant)(?![a-zA-Z])', r'\\ge'),
    (r'\\neq(?![a-zA-Z])', r'\\ne'),
    (r'\\simeq(?![a-zA-Z])', r'\\approx'),
    (r'>=', r'\\ge '),
    (r'<=', r'\\le '),
    (r'(?<![a-zA-Z\\])(?:oo|inf|infinity)(?![a-zA-Z])', r'\\infty '),
    (r'^(.*(?:<|\\le(?![a-zA-Z])).*?)\s*<\s*\+?\\infty\s*$', r'\1'),
    (r'\\varnothing(?![a-zA-Z])|\\\{\s*\\\}', r'\\emptyset'),
    (r'\\bigcup(?![a-zA-Z])', r'\\cup'),
    (r'\\backslash(?![a-zA-Z])|(?<=\\mathbb\{R\})\s*-\s*(?=\\\{)', r'\\setminus'),
    (r'\\log_\s*(?:e|\{\s*e\s*\})(?![a-zA-Z])', r'\\ln'),
    (r'\\lg(?![a-zA-Z])', r'\\log_{10}'),
    (r'\\operatorname\s*\{(ln|log|sin|cos|tan|gcd|lcm)\}', r'\\\1 '),
    (r'\\sqrt\s*\[(\d*[13579])\]\s*\{\s*-\s*(\w+)\s*\}', r'(-\\sqrt[\1]{\2})'),  # the real root
    (r'(?<![_^}\w])\{(\d+)\}\s*\^', r'\1^'),
    (r'\\text\s*\{\s*:\s*\}|\{\s*:\s*\}|\\colon(?![a-zA-Z])', ':'),
    (r'\.{3,}|\\[lc]?dots[a-z]?(?![a-zA-Z])', r'\\ldots '),
    (_ELLIPSIS, lambda m: rf'{m[1]}.{m[2]}\overline{{{m[3] or m[4]}}}'),
    (r'(\d\.\d{5,})\s*\\ldots\s*$', r'\1'),
    (r'(\.\d*)\\bar\s*(?:\{(\d+)\}|(\d))', lambda m: rf'{m[1]}\overline{{{m[2] or m[3]}}}'),
    (_DOTTED, lambda m: rf'{m[1]}\overline{{{m[2]}{m[3] or ""}{m[4] or ""}}}'),
    (r'^(-?\d*\.\d*)\((\d+)\)$', r'\1\\overline{\2}'),
    (_ORDINAL, ''),
    (r'^(?:\\text\s*\{)?\s*[Aa]ll real numbers\s*\}?$', r'\\mathbb{R}'),
    (r'^\\text\s*\{([^a-zA-Z{}\\]*\d[^a-zA-Z{}\\]*)\}$', r'\1'),
    (_TRIGONOMETRY_IN_DEGREES, lambda m: _in_radians(m[0])),
    (r'\^\s*(?:\{\s*)?\\text\s*\{\s*o\s*\}(?:\s*\})?', ''),
    (r'\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\(?:circ|degree)|\\degree(?![a-zA-Z])', ''),
    # 9.8 \frac{\text{m}}{\text{s}^2}: a unit above another
    (
      rf'\\frac\s*\{{\s*{_UNIT_GROUP}\s*\}}\s*\{{\s*{_UNIT_GROUP}(\^\s*\{{?\d\}}?)?\s*\}}',
      _quotient,
    ),
    (r'(?<![\w}])(?:\{\})?_\{?(\d+)\}?\s*C_\{?(\d+)\}?', r'\\binom{\1}{\2}'),
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
    (r'^(?:USD|EUR)\s*(?=[\d.])', ''),
    (_SET_BUILDER, lambda m: m[1]),
    (r'^(?:\\(?:approx|sim|Rightarrow|implies|therefore)(?![a-zA-Z])|=)\s*', ''),
    (r'\s+', ' '),
    (r'(?:\s*\\\\)+$|(?<!\\)\\$', ''),
    (r'^(-?\d{1,3})((?: \d{3})+)(?=\.\d+$|$)', lambda m: m[1] + m[2].replace(' ', '')),
  )
)


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


def _in_radians(text: str) -> str:
  return re.sub(rf'(\d+(?:\.\d+)?|(?<![a-zA-Z])[a-zA-Z]){_DEGREE}', r'(\\frac{\1 \\pi}{180})', text)


def _without_unicode(text: str) -> str:
  text = re.sub('[\u200b-\u200d\u2060\ufeff]', '', text)
  text = re.sub('[\U0001d400-\U0001d7ff]', lambda m: unicodedata.normalize('NFKC', m[0]), text)
  text = re.sub(r'∛\s*(?:\(([^()]*)\)|(\w+))', lambda m: rf'\sqrt[3]{{{m[1] or m[2]}}}', text)
  text = re.sub('[⁰¹²³⁴-⁹⁺⁻ⁿ]+', lambda m: f'^{{{m[0].translate(_RAISED)}}}', text)
  text = re.sub('[₀-₉]+', lambda m: f'_{{{m[0].translate(_LOWERED)}}}', text)
  text = _VULGAR.sub(
    lambda m: '\\frac{{{}}}{{{}}}'.format(*unicodedata.normalize('NFKC', m[0]).split('\u2044')),
    text,
  )
  return text.translate(_UNICODE)


def unwrap_text(text: str) -> str:
  r"""The same with \text{...} and its kin replaced by what they hold."""
  before = None
  while before != text:
    before, text = text, TEXT_GROUP.sub(r' \1 ', text)
  return re.sub(r'\s+', ' ', text).strip()


def squeezed(text: str) -> str:
  """Without blanks, but for those that part two digits: 4 7 is not 47."""
  return re.sub(r'(?<!\d)\s+|\s+(?!\d)', '', text)


def has_text(text: str) -> bool:
  r"""Whether the normalised answer holds a \text group."""
  return TEXT_GROUP.search(text) is not None


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
  text = squeezed(text)
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

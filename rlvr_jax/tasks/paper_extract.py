r"""Which text the grader of arXiv 2504.13837 takes for the answer, and how it rewrites it.

`paper` reproduces that grader's verdicts, faults included, so that published curves can be compared
with: its rules as docs/verifiers.md states them, in code of our own. Not for rewards.
"""

import functools
import re

_NUMBER = re.compile(r'-?\d*\.?\d+')

# Words that it takes for units wherever they stand alone, with or without a plural s. Some ("east",
# "less", single letters) are answers or variables elsewhere; that is one of its faults.
_UNITS = frozenset(
  re.findall(
    r'\w+',
    """
    a ab acre am apple are bc by c cc cm coin cube cubic d day decrease deg degree dm east
    excess feet ft g gain gal gallon gm h hectare hour hr inch inches increase kg km kmh kmph
    l lb less liter litre loss lt m man mark men meter metre mile min minute mm monkey month
    more mph mt mtr noon number o ohm per percent pie pm prime profit pure ratio rd rise
    rounds rs rupee s sec second soldier sq square st surface t th tile toy unit way west
    woman women yard year yr
    """,
  )
)
_UNIT = re.compile(
  r'(^|\W)(?:' + '|'.join(sorted((f'{u}s?' for u in _UNITS), key=len, reverse=True)) + r')(?=\W|$)'
)
_ONES = (
  'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten',
  'eleven', 'twelve', 'thirteen', 'fourteen', 'fifteen', 'sixteen', 'seventeen', 'eighteen',
  'nineteen',
)  # fmt: skip
_TENS = ('twenty', 'thirty', 'forty', 'fifty', 'sixty', 'seventy', 'eighty', 'ninety')
_DIGIT_WORDS = {word: value for value, word in enumerate(_ONES)} | {
  word: 10 * value for value, word in enumerate(_TENS, 2)
}
_SCALE_WORDS = {'hundred': 100, 'thousand': 1000, 'million': 10**6, 'billion': 10**9}

Step = tuple[re.Pattern[str], str]


def _steps(*pairs: tuple[str, str]) -> tuple[Step, ...]:
  return tuple((re.compile(pattern, re.DOTALL), to) for pattern, to in pairs)


_NOTATION = _steps(
  (r'\n', ''),
  (r'\.+$', ''),
  (r'\\!', ''),
  (r'\\begin\{array\}\{.*?\}', r'\\begin{pmatrix}'),
  (r'\\end\{array\}', r'\\end{pmatrix}'),
  (r'bmatrix', 'pmatrix'),
  (r'[td]frac', 'frac'),
  (r'\\neq', r'\\ne'),
  (r'\\leq', r'\\le'),
  (r'\\geq', r'\\ge'),
  (r'\\left|\\right', ''),
  (r'\\([{}])', r'\1'),
)
_DECORATION = _steps(
  (r'\^\{\\circ\}|\^\\circ', ''),
  (r'\\?\$', ''),
  (r'\\[()]', ''),
)
_NAMES = _steps(
  (r'\\text\{(.*?)\}', r'\1'),
  (r'[xyz](?:=|\\in|\\to)', ''),
  (r'\\emptyset', '{}'),
  (r'\(-\\infty,\\infty\)', r'\\mathbb{R}'),
  (r'\\?%', ''),
  (r'\{\.', '{0.'),
  (r'infinity', r'\\infty'),
)
_WORDS = _steps((r'and', ''), (r'\\mathbf', ''), (r'\\mbox\{.*?\}', ''))
_ZEROS = _steps((r'(\d+)\.0*(?!\d)(?=.)', r'\1'), (r'(\d+)\.0*$', r'\1'))
_TRAILING_TEXT = re.compile(r'\\text\{.*?\}$')
_SLASH = re.compile(r'(-?\d+)/(-?\d+)')
_BARE_ROOT = re.compile(r'\\sqrt(\w+)')
_FRACTION = re.compile(r'\\frac(?!\{)(.)(\{[^{}]*\}|[^{])?')


def paper_answer(completion: str, *, keep_units: bool = False) -> str:
  """The answer of a completion as that grader reads it, rewritten; '' if it finds none."""
  answer = re.sub(r'\n\s*', '', _place(completion))
  answer = answer.removeprefix(':').removesuffix('.').removesuffix('/')
  return rewrite(answer, keep_units=keep_units)


def _place(text: str) -> str:
  """The first of these that is there: the phrase of Minerva, what follows the last "boxed", what
  follows an announcement, the last number."""
  if 'final answer is $' in text and '$. I hope' in text:
    return text.split('final answer is $', 1)[1].split('$. I hope', 1)[0].strip()
  if 'boxed' in text:
    return _box(text.rpartition('boxed')[2])
  for phrase in ('he answer is', 'final answer is'):
    if phrase in text:
      return text.rpartition(phrase)[2]
  if '答案是' in text:
    return text.split('答案是')[1].strip().split('\n\n')[0].strip()
  numbers = _NUMBER.findall(text.replace(',', ''))
  return numbers[-1] if numbers else ''


def _box(rest: str) -> str:
  """What a box holds, to the end of the text if it is never closed; up to a $ without braces."""
  if not rest.startswith('{'):
    return rest.split('$')[0].strip()
  depth = 1
  for at, character in enumerate(rest[1:], 1):
    depth += (character == '{') - (character == '}')
    if depth == 0:
      return rest[1:at]
  return rest[1:]


@functools.lru_cache(maxsize=4096)
def rewrite(text: str, *, keep_units: bool = False) -> str:
  """The notation in which that grader compares; keep_units as it has it for Minerva."""
  text = _apply(_NOTATION, text.strip())
  text = _TRAILING_TEXT.sub('', text).strip() or text
  if not keep_units:
    text = _without_units(text)
  text = _number_words(_apply(_DECORATION, text)).replace(' ', '')
  text = _apply(_NAMES, text)
  if '\\infty' not in text:
    text = text.replace('inf', '\\infty')
  text = _apply(_WORDS, text)
  if 'j' in text and 'i' not in text:
    text = text.replace('j', 'i')
  text = _apply(_ZEROS, text)
  if text.startswith('.'):
    text = f'0{text}'
  left, equals, right = text.partition('=')
  if equals and '=' not in right and len(left) <= 2:
    text = right
  text = _BARE_ROOT.sub(r'\\sqrt{\1}', text)
  text = _FRACTION.sub(_braced_fraction, text)
  slash = _SLASH.fullmatch(text)
  return f'\\frac{{{slash[1]}}}{{{slash[2]}}}' if slash else text


def _apply(steps: tuple[Step, ...], text: str) -> str:
  for pattern, to in steps:
    text = pattern.sub(to, text)
  return text


def _without_units(text: str) -> str:
  for _ in range(2):
    text = _UNIT.sub(r'\1', text) or text
  return text


def _number_words(text: str) -> str:
  """The number that the number words of a text say; the text itself if there are none."""
  words = [
    word
    for word in text.lower().replace('-', ' ').split()
    if word in _DIGIT_WORDS or word in _SCALE_WORDS
  ]
  if not words or text.strip().isdigit():
    return text
  total = part = 0
  for word in words:
    scale = _SCALE_WORDS.get(word)
    if scale is None:
      part += _DIGIT_WORDS[word]
    elif scale == 100:
      part = max(part, 1) * scale
    else:
      total, part = total + max(part, 1) * scale, 0
  return str(total + part)


def _braced_fraction(match: re.Match[str]) -> str:
  r"""\frac12 and \frac1{23} with all their braces; what is cut short stays."""
  top, bottom = match.groups()
  if not bottom:
    return match[0]
  return f'\\frac{{{top}}}{bottom if bottom.startswith("{") else f"{{{bottom}}}"}'

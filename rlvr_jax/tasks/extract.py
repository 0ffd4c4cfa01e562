r"""Where in a completion the final answer stands. Pure text, no mathematics.

Everything up to the last </think> is thinking and does not count when something follows it. Then,
in this order: the last <answer> tag (its last box or announcement, if it has one), the last box,
the last line with ####, the last phrase that announces the answer ("the answer is", "Answer:",
"Final answer" as a heading, "答案是"), the last number. The first of these that is there decides: a
box that is empty or never closed is an answer that cannot be read, not a reason to look further.
"""

import dataclasses
import re

from rlvr_jax.tasks.units import is_measure

_BOX = re.compile(r'\\(?:f|frame)?box(?:ed)?(?![a-zA-Z])\s*')
_TAG = re.compile(r'<answer>(.*?)(</answer>|$)', re.DOTALL | re.IGNORECASE)
_HASH = re.compile(r'####[ \t]*([^\n]*)')
_PHRASE = re.compile(
  r'(?:\b(?:final\s+)?answer(?:\s+to\s+[^.:\n]{1,80}?)?\s+'
  r'(?:is|was|(?:should|would|must)\s+be|equals)(?![a-zA-Z])(?:\s*:)?'
  r'|\banswer\s*(?:\*\*)?\s*[:\uff1a=]'
  r'|\bfinal\s+answer\s*(?:\*\*)?[ \t]*(?=\n)'
  r'|答案(?:是|为|\s*[:\uff1a])\s*[:\uff1a]?)',
  re.IGNORECASE,
)
_INLINE = re.compile(r'(?:(?<!\\)\$\$?|\\\(|\\\[)(.+?)(?:(?<!\\)\$\$?|\\\)|\\\])')
_INLINE_HERE = re.compile(r'\s*' + _INLINE.pattern, re.DOTALL)
_DISPLAY = re.compile(r'(?:\$\$|\\\[)\s*(.+?)\s*(?:\$\$|\\\])', re.DOTALL)
# What stands between the signs of "$18 and $20": a number, words, and the blank before the second.
_MONEY = re.compile(
  r'[\d.,]+\s+(?:.*[\s(]|.*(?<![\\a-zA-Z{])[a-zA-Z]{2,}(?![a-zA-Z]*\s*[}(]).*)?', re.DOTALL
)
_NUMBER = re.compile(  # 1,234.5  .5  3/4  $12  7%  1.5e-3  2 \times 10^{5}
  r'[-\u2212]?\$?(?:\d+[ \t]+(?=\d+[ \t]*/[ \t]*\d))?(?:\d[\d,]*(?:\.\d+)?|\.\d+)'
  r'(?:[eE][-+]?\d+|\s*(?:\\times|\\cdot|[\u00d7*])\s*10\s*\^\s*\{?[-+\u2212]?\d+\}?|\s*/\s*\d+)?%?'
)
# A word that is neither a command nor a joint of a list, with more words around it or a number.
_WORDS = re.compile(
  r'^(?!.*[\\^_{}=])(?!.*\b(?:and|or)\b)(?:.*\b[a-zA-Z]+\s+\S|.*\d\s+[a-zA-Z]{2,})'
)
# What follows the first of several formulas: "$5$ or $6$", "$5$, $6$", "$5$ or 6", "$D$ or E".
_NEXT = re.compile(
  r'\s*(?:(?P<word>,?\s*\b(?:and|or)\b)|[,;])\s*'
  rf'(?:{_INLINE.pattern}|(?P<bare>{_NUMBER.pattern}|\(?[A-H]\)?(?![a-zA-Z])))',
  re.DOTALL,
)
_FILLERS = re.compile(
  r'^(?:,\s*)?(?:thus|therefore|hence|so|then|simply|just|indeed|exactly|only)\b,?\s*',
  re.IGNORECASE,
)
_REASONED = re.compile(r'([-\u2212$]*[\d.,/]*\d%?(?:\s+[a-zA-Z]+){0,3}?),?\s+(?:because|since)\b')
_NEAR = 200  # characters that are looked at on either side of a number
_TUPLE = re.compile(r'[(\[][^()\[\]]*[,;][^()\[\]]*[)\]]')
_DENIED = re.compile(
  r"(?:n['\u2019]t|\bnot|\bcannot|\bnor)(?:\s+(?:be|equal))?\s*[$(]?$", re.IGNORECASE
)
# Words before and behind a number that make another value of it, or no value.
_MADE_OTHER = re.compile(
  r'(?:\b(?:(?:less|more|greater|fewer|larger|smaller|bigger|higher|lower)\s+than(?:\s+or\s+equal\s+to)?'
  r'|neither|half|twice|double|triple|thrice|times|plus|minus|negative|between|modulo|mod|except'
  r'|close\s+to|near|under|below|above|over|(?<!add )(?<!adds )(?<!adding )up\s+to|divided\s+by'
  r'|multiplied\s+by|(?:double|triple|divisor|multiple|factor|square|cube|root|power|half|halve|third'
  r'|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|remainder|part|fraction|product'
  r'|reciprocal|inverse|logarithm|factorial)s?\s+of|digits\s+of)|%\s*of)\s+(?:the\s+)?[$(]*$',
  re.IGNORECASE,
)
_BOUND = re.compile(r'\bat\s+(?:most|least)\s+[$(]*$', re.IGNORECASE)
_OTHER_MADE = re.compile(
  r'\s*\$?\s*(?:[+*/^\u00d7\u00f7]\s*[\d$(\\a-z]|(?:squared|cubed|factorial|plus|minus|divided'
  r'|multiplied|over|choose|mod|modulo|thirds|fourths|fifths|sixths|eighths|tenths|hundredths'
  r'|thousandths|per\s+mille)\b|(?:more|less|fewer|greater)\s+than\s+[\d$(\\]|-fold\b|(?:out\s+|short\s+)?of\s+[\d$(\\]'
  r'|-?(?:st|nd|rd|th)\s+(?:prime|term|root|power|digit|multiple|element|derivative|number)\b'
  r'|or\s+(?:more|less|fewer)\b|times\s+(?:[\d$(\\]|(?:the|as|that|its|more|less|larger)\b)'
  r'|if\b.*\d.*\b(?:if|otherwise|else)\b)',
  re.IGNORECASE,
)
# Between boxes that belong together: "\boxed{3} and \boxed{5}", "x_1 = \boxed{3}, x_2 = \boxed{5}".
_JOINT = re.compile(
  r'(?:\s|\$|\\q?quad(?![a-zA-Z])|\\[,;! ()\[\]]|,|;|/|\band\b|\bor\b'
  r'|\\text\s*\{\s*(?:and|or|,)\s*\}|[a-z]_\{?\d\}?\s*=)*'
)


@dataclasses.dataclass(frozen=True)
class Extracted:
  """The answer's text, None if its place is there but cannot be read; how it was found."""

  text: str | None
  how: str


def extract_answer(completion: str) -> Extracted | None:
  """The final answer of a completion by the policy above; None if there is none."""
  region = after_thinking(completion)
  tag = last_tag(region)
  if tag is not None:
    return (last_box(tag.text) or _after_phrase(tag.text) if tag.text else None) or tag
  found = last_box(region) or _after_hashes(region) or _after_phrase(region)
  return found or _last_number(region)


def after_thinking(completion: str) -> str:
  """What follows the last </think>; the whole if nothing does."""
  tail = completion.rpartition('</think>')[2]
  return tail if tail.strip() else completion


def last_tag(text: str) -> Extracted | None:
  """The content of the last <answer> ... </answer>; unreadable if empty or never closed."""
  tags = list(_TAG.finditer(text))
  if not tags:
    return None
  content = tags[-1][1].strip()
  if not tags[-1][2]:
    return Extracted(None, 'the last <answer> is not closed')
  return Extracted(content, 'tag') if content else Extracted(None, 'the last <answer> is empty')


def last_box(text: str) -> Extracted | None:
  r"""The content of the last \boxed{}, \fbox{} or \framebox{}, braces balanced.

  Boxes joined only by commas, "and" or "or" are one answer, a list. A box without braces holds the
  next token. A box that is empty, or whose brace is never closed, is unreadable.
  """
  boxes = list(_BOX.finditer(text))
  if not boxes:
    return None
  contents: list[str] = []
  right = len(text)
  for box in reversed(boxes):
    content, end = _box_content(text, box.end())
    if contents:
      if end is None or end > right or not _JOINT.fullmatch(text, end, right):
        break
      if not (content or '').strip():
        break
    elif content is None or end is None:
      return Extracted(None, 'the last box is not closed')
    elif not content.strip():
      return Extracted(None, 'the last box is empty')
    contents.insert(0, (content or '').strip())
    right = box.start()
  # the same box twice is an answer said twice
  return Extracted(', '.join(contents if len(set(contents)) > 1 else contents[:1]), 'box')


def _box_content(text: str, start: int) -> tuple[str | None, int | None]:
  """(content, end) of a box whose name ends at start; (None, None) if its brace never closes."""
  if start >= len(text):
    return None, None
  if text[start] != '{':
    token = re.compile(r'\\?[^\s$\\{}]+').match(text, start)
    return (token[0].rstrip('.,'), token.end()) if token else ('', start)
  depth = 0
  at = start
  while at < len(text):
    if text[at] == '\\':
      at += 1  # an escaped brace is a character
    elif text[at] == '{':
      depth += 1
    elif text[at] == '}':
      depth -= 1
      if depth == 0:
        return text[start + 1 : at], at + 1
    at += 1
  return None, None


def _after_hashes(text: str) -> Extracted | None:
  lines = _HASH.findall(text)
  if not lines:
    return None
  content = _clean(lines[-1])
  return Extracted(content, 'hashes') if content else Extracted(None, 'nothing follows ####')


def _after_phrase(text: str) -> Extracted | None:
  phrases = list(_PHRASE.finditer(text))
  if not phrases:
    return None
  rest = text[phrases[-1].end() :].lstrip(' \t*:\n}')  # \text{The answer is } too
  if display := _DISPLAY.match(rest):
    return Extracted(display[1], 'phrase')
  line = rest.split('\n', 1)[0]
  # "$18 and $20" is money, "$x+1$" is mathematics.
  if found := _formulas(rest):
    formulas, end = found
    if _OTHER_MADE.match(line, end) and end <= len(line):  # $36$ times $2$
      return Extracted(line.replace('$', ''), 'phrase')
    unit = _measure(rest[end:]) if re.search(r'[\d})]$', formulas[-1]) else ''
    return Extracted(', '.join(formulas) + unit, 'phrase')
  sentence = _FILLERS.sub('', _clean(re.split(r'\.(?:\s|$)|。', line, maxsplit=1)[0]))
  if not sentence:
    return Extracted(None, 'nothing follows the announced answer')
  if reasoned := _REASONED.match(sentence):
    sentence = reasoned[1]
  sentence = re.sub(r'^(?:negative|minus)\s+(?=[\d$.])', '-', sentence)
  if re.match(r'(?:not|neither)\b', sentence, re.IGNORECASE):
    but = re.match(r'not\s+(?:\$[^$]*\$|[^\s,]*\d[^\s,]*),?\s+but\s+', sentence, re.IGNORECASE)
    if but is None:
      return Extracted(None, 'the announcement says what the answer is not')
    sentence = sentence[but.end() :]
  if inside := [m[1] for m in _INLINE.finditer(sentence) if not _MONEY.fullmatch(m[1])]:
    return Extracted(inside[-1].strip(), 'phrase')
  if _WORDS.match(sentence):  # prose, not mathematics: the number is what counts
    return Extracted(_number_of_prose(sentence), 'phrase')
  return Extracted(sentence, 'phrase')


def _formulas(rest: str) -> tuple[list[str], int] | None:
  """The formula at the start, those joined to it, and where they end."""
  first = _INLINE_HERE.match(rest)
  if first is None or _MONEY.fullmatch(first[1]):
    return None
  found, end = [first[1].strip()], first.end()
  while following := _NEXT.match(rest, end):
    # "$x$, $y$ being free": a comma alone joins only what ends there
    tail = rest[following.end() :]
    if not following['word'] and not re.match(r'\s*(?:$|[.,;\n]|and\b|or\b)', tail):
      break
    found.append((following['bare'] or following[2] or '').strip())
    end = following.end()
  return found, end


def _number_of_prose(sentence: str) -> str:
  """Its first number if it starts with one, else its last; the whole sentence where that number is
  one of several (1, 2, 3 in this order)."""
  numbers = list(_NUMBER.finditer(sentence))
  if not numbers:
    return sentence
  number = numbers[0] if numbers[0].start() == 0 else numbers[-1]
  if _made_other(sentence, number):
    number = numbers[-1]
    if _made_other(sentence, number):
      return sentence
  end = number.start() + len(number[0].rstrip(','))
  if re.match(r'\s*(?:,|;|to|through|[-\u2013])\s*\d', sentence[end:]):
    return sentence
  return _whole(sentence, number) + _measure(sentence[number.end() :])


def _made_other(text: str, number: re.Match[str]) -> bool:
  """Whether the words around a number say another value: half of 36, 36 more than 4."""
  before = text[max(0, number.start() - _NEAR) : number.start()]
  after = text[number.start() + len(number[0].rstrip(',')) :][:_NEAR]
  return any((_MADE_OTHER.search(before), _BOUND.search(before), _OTHER_MADE.match(after)))


def _measure(after: str) -> str:
  """The known unit or word of scale that follows a number in prose: 40 cents, 2.5 million."""
  if percent := re.match(r'[ \t]*\\?%', after):
    return percent[0]
  word = re.match(r'[ \t]+([a-zA-Z]{2,})(?![a-zA-Z(])', after)
  return f' {word[1]}' if word and is_measure(word[1]) else ''


def _whole(text: str, number: re.Match[str]) -> str:
  r"""The number; if it is a part of something larger (2\sqrt{3}, x^2, (3, 4)), that."""
  before = text[max(0, number.start() - _NEAR) : number.start()]
  after = text[number.end() : number.end() + _NEAR]
  near, at = before + number[0] + after, len(before)
  for pair in _TUPLE.finditer(near):
    if pair.start() < at and at + len(number[0]) <= pair.end():
      return pair[0]
  joined = re.search(r'(?:[\^_√\\{]|[a-zA-Z]\(|[a-zA-Zπ]|\d:)$', before) or re.match(
    r'\s*(?:[\^_√π]|!(?!\s*$|\s*\n)|\\(?!text|mathrm|end\b|q?quad|[,;:!%$ )\]\\]))|:\d'
    r'|[a-zA-Z](?![a-zA-Z])',
    after,
  )
  if joined is None:
    return number[0].rstrip(',')
  start = at - len(before.split(' ')[-1].split('\n')[-1])
  stop = at + len(number[0]) + len(re.split(r'\s', after)[0])
  return re.sub(r'[.,;:?*]+$', '', near[start:stop])


def _last_number(text: str) -> Extracted | None:
  numbers = list(_NUMBER.finditer(text))
  if not numbers:
    return None
  last = numbers[-1]
  before = text[max(0, last.start() - _NEAR) : last.start()]
  if _DENIED.search(before) or _MADE_OTHER.search(before):
    return Extracted(None, 'the last number is denied')
  if formula := _formula_around(text, last):
    return Extracted(formula, 'last formula')
  number = _whole(text, last) + _measure(text[last.end() : last.end() + _NEAR])
  # "5-3": the minus belongs to the difference, not to the 3.
  if number[0] in '-\u2212' and last.start() and text[last.start() - 1].isalnum():
    number = number[1:]
  return Extracted(number, 'last number')


def _formula_around(text: str, number: re.Match[str]) -> str | None:
  """The formula of its line that holds the number: what stands behind its last equals sign."""
  line = text.rfind('\n', 0, number.start()) + 1
  if number.end() - line > 10 * _NEAR:
    return None
  for formula in _INLINE.finditer(text[line : number.end() + _NEAR]):
    inside = line + formula.start() <= number.start() and number.end() <= line + formula.end(1)
    if inside and not _MONEY.fullmatch(formula[1]):
      side = re.split(r'(?<![<>!\\])=(?![^(]*\))', formula[1])[-1]
      if '\\begin' not in side:  # the end of an environment whose first lines are cut off
        side = side.partition('\\end{')[0].replace('&', ' ')
      side = side.strip().lstrip(',').rstrip(' .,')
      return side if re.search(r'\d', side) else formula[1].strip()
  return None


def _clean(text: str) -> str:
  if text.count('$') == 1:  # the other one stands before the announcement
    text = text.rstrip(' .').removesuffix('$')
  return text.strip().strip('*`').strip().rstrip('.').strip().strip('*`').strip()

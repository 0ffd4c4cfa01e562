r"""An answer of several parts: lists, sets, tuples, intervals, unions, matrices."""

import dataclasses
import re

_OPEN = {'(': ')', '[': ']', '\\{': '\\}', '{': '}', '\\langle': '\\rangle'}
_CLOSE = {')', ']', '\\}', '}', '\\rangle'}
_TOKEN = re.compile(r'\\[a-zA-Z]+|\\.|.', re.DOTALL)
_JOINTS = re.compile(
  r'\\(?:text|mathrm|mbox)\s*\{\s*(?:,?\s*(?:and|or)|,)\s*\}|\s,?\s*\b(?:and|or)\b\s|\s\\?&\s|\\(?:lor|vee)(?![a-zA-Z])'
)
_MATRIX = re.compile(
  r'^[(\[]?\s*\\begin\s*\{([pbB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr|]*\})?(.*)'
  r'\\end\s*\{\1\}\s*[)\]]?$',
  re.DOTALL,
)
_FACTOR = re.compile(
  r'^((?:-?\s*(?:\\frac\s*\{[^{}]*(?:\{[^{}]*\})?\}\s*\{[^{}]*(?:\{[^{}]*\})?\}|\d+(?:/\d+)?|-))?)'
  r'(?:\s*\\cdot|\s*\\times)?\s*((?:[(\[]\s*)?\\begin.*|.*)$',
  re.DOTALL,
)
SEPARATED = re.compile(r'^-?\d{1,3}(?:,\d{3})+(?:\.\d+)?$')


@dataclasses.dataclass(frozen=True)
class Group:
  """Several answers: a 'list' or 'set' without order, or a 'bracket' (tuple, interval) with."""

  kind: str
  items: tuple[str, ...]
  ends: str = ''


def group(text: str) -> Group | None:
  r"""The parts of a normalised answer that is more than one value; None for a single one.

  `a \pm b` is the list of both; a union of intervals is a list of them.
  """
  if SEPARATED.match(text):
    return None
  text = _JOINTS.sub(' , ', text)
  text = re.sub(r'(?<=[\])])\s*(?:\\cup(?![a-zA-Z])|U)\s*(?=[\[(])', ' , ', text)
  parts = split(text, ',;')
  if len(parts) > 1:
    items: list[str] = []
    for part in parts:
      items += _both_signs(part)
    return Group('list', tuple(items))
  inside = inside_of(text)
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


def is_list(text: str) -> bool:
  return not SEPARATED.match(text) and len(split(_JOINTS.sub(' , ', text), ',;')) > 1


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


def inside_of(text: str) -> tuple[str, str, str] | None:
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


def is_interval_like(answer: Group) -> bool:
  if answer.kind == 'bracket':
    return len(answer.items) == 2
  return all((part := inside_of(item)) and len(split(part[0], ',')) == 2 for item in answer.items)


def matrix(text: str) -> list[list[str]] | None:
  """The cells of a matrix, a number before it multiplied in; None for what is no matrix."""
  before = _FACTOR.match(text)
  factor, text = before.groups() if before else ('', text)
  match = _MATRIX.match(text)
  if match is None or '\\end' in match[2]:
    return None
  rows = re.split(r'\\\\(?:\[[^\]]*\])?', match[2])
  cells = [[cell.strip() for cell in row.split('&')] for row in rows if row.strip()]
  if factor:
    factor = '-1' if factor == '-' else factor
    cells = [[rf'({factor}) \cdot ({cell})' for cell in row] for row in cells]
  return cells

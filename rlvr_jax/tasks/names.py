r"""Left sides that only name what is asked for: x = 5, f(x) = ..., P(A) = ..., m + n = ..."""

import re

from rlvr_jax.tasks.normal import squeezed, unwrap_text
from rlvr_jax.tasks.parts_of import split

_NAME = re.compile(
  r"^(?:\\?[a-zA-Z]+'{0,2}(?:_\{?\w+\}?)?(?:\([a-z](?:,\s*[a-z])*\))?|\([a-z](?:\s*,\s*[a-z])+\)"
  r'|\\(?:mathbf|mathrm|vec|overrightarrow|boldsymbol)\s*\{\w+\}'
  r'|[fghA-Z](?:\^\{-1\}|\^-1)(?:\([a-z]\))?'
  # the value of a function at a place; x(3) would be a product
  r'|(?:[fghpqrFGHPQET]|\\(?:gcd|lcm|det|min|max|Pr))\s*\([^()]*\)'
  r'|\\(?:mathbf|mathrm)\s*\{\w+\}\^\{?(?:-1|T)\}?)$'
)
# The left side of an equation that names its right side: angle ABC, |PQ|, P(A), [ABC], m + n, ab.
_NAMED = re.compile(
  r'(?:[a-zA-Z]|\\(?:angle|triangle|overline|overrightarrow|vec|hat|frac|cdot|times|cos|sin|tan|log'
  r'|[lr]vert|alpha|beta|gamma|delta|theta|phi|omega|lambda|mu|sigma)(?![a-zA-Z])|_(?:\{\w+\}|[a-zA-Z]|\d+)'
  r'|[+|()\[\]{},\s]|(?<=[a-zA-Z\s])-)+'
)
_FUNCTION_OF = re.compile(r'^([a-zA-Z])\(([a-z])\)$')


def without_name(gold: str, given: str) -> tuple[str, str]:
  r"""Drops `x =` and `x \in` where the other side does not need it."""
  sides = []
  for text in (gold, given):
    text = re.sub(r'^(?:[a-zA-Z]|\([a-z](?:\s*,\s*[a-z])+\))\s*\\in(?![a-zA-Z])\s*', '', text)
    parts = split(text, '=')
    sides.append((text, parts, len(parts) > 1 and is_name(parts[0])))
  (gold, gold_parts, gold_named), (given, given_parts, given_named) = sides
  if gold_named and len(gold_parts) == 2:
    if len(given_parts) == 1:
      return gold_parts[1], given
    if squeezed(gold_parts[0]) == squeezed(given_parts[0]):
      return gold_parts[1], '='.join(given_parts[1:])
    if len(given_parts) == 2 and (renamed := _with_argument_of(gold_parts[0], *given_parts)):
      return gold_parts[1], renamed
  if given_named and len(gold_parts) == 1:
    return gold, '='.join(given_parts[1:])
  return gold, given


def _with_argument_of(gold_name: str, name: str, value: str) -> str | None:
  """f(t) = 4t + 1 written for f(x): 4x + 1. None where the names are not of one function."""
  first, second = _FUNCTION_OF.match(gold_name), _FUNCTION_OF.match(name)
  if first is None or second is None or first[1] != second[1]:
    return None
  letter = rf'(?<![a-zA-Z\\]){first[2]}(?![a-zA-Z])'
  if re.search(letter, value):
    return None
  return re.sub(rf'(?<![a-zA-Z\\]){second[2]}(?![a-zA-Z])', first[2], value)


def is_name(text: str) -> bool:
  """Whether the left side of an equation only names the right one: x, f(x), (x, y), m + n."""
  if _NAME.match(text):
    return True
  words = unwrap_text(text)
  return words != text or (_NAMED.fullmatch(text) is not None and '\\sqrt' not in text)


def one_by_one(gold: str, given: str) -> str:
  """(x, y) = (2, 5) as x = 2, y = 5, where the gold names its values one by one."""
  match = re.fullmatch(r'\(([a-z](?:\s*,\s*[a-z])+)\)\s*=\s*\((.*)\)', given)
  if match is None or values_by_name(tuple(split(gold, ',;'))) is None:
    return given
  names, values = split(match[1], ','), split(match[2], ',')
  if len(names) != len(values):
    return given
  return ', '.join(f'{name} = {value}' for name, value in zip(names, values, strict=True))


def values_by_name(items: tuple[str, ...]) -> tuple[str, ...] | None:
  """The values of x = 2, y = 5 in the order of their letters; None for anything else."""
  found = {}
  for item in items:
    match = re.fullmatch(r'\s*([a-zA-Z])\s*=([^=]+)', item)
    if match is None or match[1] in found:
      return None
    found[match[1]] = match[2].strip()
  return tuple(found[letter] for letter in sorted(found)) if len(found) > 1 else None

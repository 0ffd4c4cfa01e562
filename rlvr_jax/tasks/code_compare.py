"""When outputs are what was expected: of calls by EvalPlus's rules, of programs by their tokens.

Everything given has gone through codec.decode or is text: plain data, whatever the program said.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from rlvr_jax.tasks.sandbox import codec

RTOL = 1e-7  # of calls, as numpy.allclose is called
FLOAT_ATOL = 1e-6  # where an expected float has no tolerance of its own
STDIN_TOLERANCE = 1e-6  # absolute or relative, of numbers on stdout

# one way to match only: what a program writes must not make the search quadratic
_NUMBER = re.compile(rb'[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?')
_WHOLE = re.compile(rb'[+-]?\d+')


def same_output(
  got: Any, expected: Any, atol: float, oracle: str, arguments: Sequence[Any]
) -> bool:
  """Whether a call's output is right, by EvalPlus's rules.

  Equal is right; so is, with a tolerance, what has the same outer type and length and numbers
  within atol + RTOL * |expected|. A task's atol of 0 is FLOAT_ATOL for this one output if it
  consists of floats. oracle names another rule of the same task (ORACLES).
  """
  if oracle:
    decided = ORACLES[oracle](got, expected, atol, arguments)
    if decided is not None:
      return decided
  if _equal(got, expected):
    return True
  if atol == 0 and _is_floats(expected):
    atol = FLOAT_ATOL
  if atol == 0 or type(got) is not type(expected):
    return False
  return _close(got, expected, atol)


def _equal(got: Any, expected: Any) -> bool:
  try:
    return bool(got == expected)
  except (RecursionError, ArithmeticError):  # Decimal's signalling nan
    return False


def _is_floats(value: Any) -> bool:
  if isinstance(value, list | tuple):
    return bool(value) and all(isinstance(item, float) for item in value)
  return isinstance(value, float)


def _close(got: Any, expected: Any, atol: float) -> bool:
  """numpy.allclose of numbers, or of lists and tuples of them of the same shape."""
  if isinstance(expected, list | tuple):
    return (
      isinstance(got, list | tuple)
      and len(got) == len(expected)
      and all(_close(a, b, atol) for a, b in zip(got, expected, strict=True))
    )
  if not isinstance(got, int | float | complex) or not isinstance(expected, int | float | complex):
    return False
  try:
    if got == expected:  # infinities too
      return True
    bound = atol + RTOL * abs(expected)
    return math.isfinite(bound) and abs(got - expected) <= bound
  except OverflowError:  # an int beyond the floats
    return False


def _find_zero(got: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool:
  """HumanEval/32: any x at which the polynomial is within atol of 0."""
  if isinstance(got, bool) or not isinstance(got, int | float):
    return False
  try:
    value = sum(c * math.pow(got, i) for i, c in enumerate(arguments[0]))
  except (OverflowError, ValueError):
    return False
  return abs(value) <= atol


def _as_set(got: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool:
  try:
    codec.check_hashes(list(got))
    return set(got) == set(expected)
  except (TypeError, codec.CodecError):
    return False


def _not_none(got: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool:
  """A match object or True stands for True, None or False for False."""
  wanted = expected if isinstance(expected, bool) else expected is not None
  return (got if isinstance(got, bool) else got is not None) == wanted


def _digit_distance(got: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool | None:
  """Mbpp/558: the distance of the digits aligned at the right is right as well."""
  first, second = (str(argument) for argument in arguments)
  width = max(len(first), len(second))
  pairs = list(zip(first.zfill(width), second.zfill(width), strict=True))
  if not (first + second).isdigit():
    return None
  return True if got == sum(abs(int(a) - int(b)) for a, b in pairs) else None


def _surface_area(got: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool | None:
  """Mbpp/581: the height may be read as that of the pyramid in place of its face's."""
  base, height = arguments
  area = round(base**2 + 2 * base * math.sqrt((base / 2) ** 2 + height**2))
  number = isinstance(got, int | float) and not isinstance(got, bool)
  return True if number and abs(got - area) <= atol else None


ORACLES: dict[str, Callable[[Any, Any, float, Sequence[Any]], bool | None]] = {
  'find_zero': _find_zero,
  'set': _as_set,
  'not_none': _not_none,
  'digit_distance': _digit_distance,
  'surface_area': _surface_area,
}


def lists_for_tuples(value: Any) -> Any:
  """The value with lists in place of its tuples, as LiveCodeBench compares."""
  if isinstance(value, list | tuple):
    return [lists_for_tuples(item) for item in value]
  if type(value) is dict:
    return {key: lists_for_tuples(item) for key, item in value.items()}
  return value


def same_text(got: bytes, expected: bytes) -> bool:
  """Whether two outputs have the same tokens, wherever their lines end.

  A token is the same text, or a number within STDIN_TOLERANCE of the expected one, absolutely or
  relative to it. Two whole numbers must be the same text (0011 may be a string), and where the
  expected one is whole the tolerance is absolute.
  """
  left, right = got.split(), expected.split()
  if left == right:
    return True
  return len(left) == len(right) and all(map(_same_token, left, right))


def _same_token(got: bytes, expected: bytes) -> bool:
  if got == expected:
    return True
  if not _NUMBER.fullmatch(got) or not _NUMBER.fullmatch(expected):
    return False
  whole = _WHOLE.fullmatch(expected) is not None
  if whole and _WHOLE.fullmatch(got):
    return False
  a, b = float(got), float(expected)
  if not math.isfinite(a) or not math.isfinite(b):
    return False
  return abs(a - b) <= STDIN_TOLERANCE * (1.0 if whole else max(1.0, abs(b)))

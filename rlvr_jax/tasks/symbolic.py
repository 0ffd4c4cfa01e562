"""Whether two single expressions, equations or sets are the same, read by math-verify's parser.

sympy is imported where it is used, so that reading answers does without. Nothing here has a clock:
expressions that take for ever are ended by the pool.
"""

import functools
import logging
from fractions import Fraction
from typing import Any

_MAX_DEPTH = 40  # of brackets; the parser's time grows steeply with it
_DIGITS = 40  # working precision of numerical comparisons
_HUGE = 10**20
# Any two different expressions that occur as answers differ at these places; they are positive, so
# that sqrt(x^2) = x and log rules hold as a reader takes them.
_NEGATIVE_PLACES = (('-1.3717', '0.2153'), ('-37.6180', '-7.0719'))  # where |x| is not x
_PLACES = (('1.3717', '0.2153'), ('37.6180', '7.0719'), ('0.6180', '0.0719'))
_WHOLE_PLACES = tuple((str(n), '1') for n in range(1, 13))  # where floors and factorials differ


class UnreadableError(ValueError):
  """The LaTeX is not an expression that can be read."""


def same_expression(gold: str, given: str) -> bool:
  """Whether two LaTeX expressions (or sets, inequalities) are equal.

  Expressions are compared by value at several places to 30 digits, constants to a relative 1e-25
  (1e-9 where one holds a decimal fraction); what is not an expression by math-verify.
  Raises UnreadableError if the given answer cannot be read; a gold that cannot be read equals
  nothing but its own text.
  """
  import sympy

  try:
    first = _read(gold)
  except UnreadableError:
    return False
  second = _read(given)
  if first is sympy.S.EmptySet or second is sympy.S.EmptySet:
    return gold.strip() == given.strip()  # (5, 2) read as an interval holds nothing
  if first == second:
    return True
  if isinstance(first, sympy.Expr) and isinstance(second, sympy.Expr):
    return _same_value(first, second)
  if not isinstance(first, sympy.Expr) and not isinstance(second, sympy.Expr):
    wanted, got = _solutions(first), _solutions(second)
    if isinstance(wanted, sympy.Set) and isinstance(got, sympy.Set):
      names = {s for value in (first, second) for s in getattr(value, 'free_symbols', ())}
      if len(names) > 1 or wanted is sympy.S.EmptySet or got is sympy.S.EmptySet:
        return False
      if wanted == got:
        return True
    if isinstance(first, sympy.Set) != isinstance(second, sympy.Set):
      first, second = wanted, got
  return _math_verify(first, second)


def _solutions(value: Any) -> Any:
  """The set of real numbers that satisfy an inequality in one unknown; others as they are."""
  import sympy

  if not isinstance(value, sympy.logic.boolalg.Boolean) or len(value.free_symbols) != 1:
    return value
  exact = {f: sympy.Rational(str(f)) for f in value.atoms(sympy.Float)}
  unknown = next(iter(value.free_symbols))
  in_reals: Any = value.xreplace({**exact, unknown: sympy.Symbol('x', real=True)})
  try:
    return in_reals.as_set()
  except NotImplementedError:  # beyond what sympy solves: then it equals no set
    return value


def same_equation(gold: tuple[str, str], given: tuple[str, str]) -> bool:
  """Whether two equations are multiples of each other: (l - r) / (l' - r') is a nonzero constant.

  Raises UnreadableError if the given one cannot be read.
  """
  import sympy

  try:
    sides = [_read(side) for side in gold]
  except UnreadableError:
    return False
  sides += [_read(side) for side in given]
  if not all(isinstance(side, sympy.Expr) for side in sides):  # (u, v) = (0, 0)
    return False
  left, right = sides[0] - sides[1], sides[2] - sides[3]
  if left.free_symbols != right.free_symbols or not left.free_symbols:
    return False
  pairs = [(a, b) for a, b in _at_places(left, right) if a != 0 or b != 0]  # 0 of 0 says nothing
  if len(pairs) < 2 or any(b == 0 for _, b in pairs):
    return False
  ratios = [a / b for a, b in pairs]
  return bool(ratios) and ratios[0] != 0 and all(_close(r, ratios[0], '1e-25') for r in ratios)


@functools.lru_cache(maxsize=4096)
def _read(latex: str) -> Any:
  depth = deepest = 0
  for character in latex:
    depth += (character in '([{') - (character in ')]}')
    deepest = max(deepest, depth)
  if deepest > _MAX_DEPTH:
    raise UnreadableError(f'brackets nested {deepest} deep')

  import sympy
  from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
  from latex2sympy2_extended.latex2sympy2 import ConversionConfig

  normalization = NormalizationConfig(
    basic_latex=True,
    units=False,
    malformed_operators=True,
    nits=False,
    boxed='none',
    equations=False,
  )
  try:
    value = latex2sympy(
      normalize_latex(latex, normalization),
      normalization_config=None,
      conversion_config=ConversionConfig(lowercase_symbols=False),
    )
    if isinstance(value, sympy.Basic | sympy.MatrixBase):
      value = _evaluated(_plain_symbols(value))  # an interval from i to 1 is refused here
  except MemoryError:
    raise
  except Exception as error:  # the grammar's actions raise whatever Python raises on bad input
    raise UnreadableError(f'cannot read {latex[:100]!r} ({type(error).__name__})') from error
  if isinstance(value, sympy.Basic | sympy.MatrixBase) and not value.has(sympy.zoo, sympy.nan):
    return value
  raise UnreadableError(f'cannot read {latex[:100]!r}')


def _plain_symbols(value: Any) -> Any:
  """i becomes the imaginary unit; the assumptions that context gave other letters are dropped."""
  import sympy

  free = getattr(value, 'free_symbols', set())
  return value.xreplace({s: sympy.I if s.name == 'i' else sympy.Symbol(s.name) for s in free})


def _evaluated(value: Any) -> Any:
  """Plain arithmetic carried out, which the reader leaves undone: else 1 - 1 is a tiny number.

  Only where it is cheap: sums, products and small powers of numbers of some digits and of symbols.
  """
  import sympy

  plain = (sympy.Add, sympy.Mul, sympy.Pow, sympy.Rational, sympy.Symbol, sympy.NumberSymbol)
  for node in sympy.preorder_traversal(value):
    if not isinstance(node, (*plain, type(sympy.I))):
      return value
    if isinstance(node, sympy.Rational) and max(abs(node.p), node.q) > 10**12:
      return value
    if isinstance(node, sympy.Pow) and not (
      isinstance(node.exp, sympy.Symbol)
      or (isinstance(node.exp, sympy.Rational) and abs(node.exp.p) <= 64)
    ):
      return value
  return value.doit()


def _same_value(first: Any, second: Any) -> bool:
  if first.has(*_unfinished()) or second.has(*_unfinished()):
    pairs = _at_whole_places(first, second)
    return first == second or (bool(pairs) and all(_close(a, b, '1e-25') for a, b in pairs))
  if not first.free_symbols and not second.free_symbols:
    return _same_constant(first, second)
  pairs = _at_places(first, second)
  if not pairs:
    return _math_verify(first, second)
  if not all(_close(a, b, _tolerance(first, second)) for a, b in pairs):
    return False
  # where all values are huge, a difference of 1 is lost in the digits
  return bool(min(abs(a) for a, _ in pairs) < _HUGE) or _same_exactly(first, second)


def _same_constant(first: Any, second: Any) -> bool:
  import sympy

  if first.is_Rational and second.is_Rational:
    return bool(first == second)
  a, b = first.evalf(_DIGITS), second.evalf(_DIGITS)
  if not _is_number(a) or not _is_number(b):
    return bool(first == second)
  if first.is_integer and second.has(sympy.Float):  # integers are exact
    exact = second.xreplace({f: sympy.Rational(str(f)) for f in second.atoms(sympy.Float)})
    return _same_constant(first, exact)
  if not _close(a, b, _tolerance(first, second)):
    return False
  return bool(abs(a) < _HUGE) or _same_exactly(first, second)


def _same_exactly(first: Any, second: Any) -> bool:
  """Whether the difference is zero by exact arithmetic; no for numbers of over 10,000 digits."""
  import sympy

  if first.has(sympy.Float) or second.has(sympy.Float):
    return True  # a decimal fraction holds no more digits than were compared
  if not first.free_symbols and abs(first.evalf(_DIGITS)) > sympy.Integer(10) ** 10_000:
    return bool(first == second)
  return bool(sympy.expand((first - second).doit()) == 0)


def _unfinished() -> tuple[Any, ...]:
  """What has no value at every place, and may take for ever to get one."""
  import sympy

  return sympy.Sum, sympy.Product, sympy.Integral


def _at_whole_places(first: Any, second: Any) -> list[tuple[Any, Any]]:
  """The values at small whole numbers of expressions that hold short sums; [] if one has none."""
  import sympy

  symbols = sorted(first.free_symbols | second.free_symbols, key=str)
  pairs = []
  for start in range(1, 7) if symbols else (1,):
    place = {symbol: sympy.Integer(start + 2 * i) for i, symbol in enumerate(symbols)}
    sides = [side.xreplace(place) for side in (first, second)]
    for side in sides:
      if side.has(sympy.Integral) or not all(map(_is_short, side.atoms(*_unfinished()))):
        return []
    a, b = (side.doit().evalf(_DIGITS) for side in sides)
    if not _is_number(a) or not _is_number(b):
      return []
    pairs.append((a, b))
  return pairs


def _is_short(total: Any) -> bool:
  """Whether a sum or product has at most 1000 terms, by its limits."""
  return len(total.limits) == 1 and all(
    len(limits) == 3
    and limits[1].is_Integer
    and limits[2].is_Integer
    and limits[2] - limits[1] < 1000
    for limits in total.limits
  )


def _at_places(first: Any, second: Any) -> list[tuple[Any, Any]]:
  """The values of both where both have one, at the places (_PLACES)."""
  import sympy

  symbols = sorted(first.free_symbols | second.free_symbols, key=str)
  whole = (sympy.floor, sympy.ceiling, sympy.Mod, sympy.factorial, sympy.binomial)
  places = _PLACES + (_WHOLE_PLACES if first.has(*whole) or second.has(*whole) else ())
  if first.has(sympy.Abs) or second.has(sympy.Abs):
    places += _NEGATIVE_PLACES
  pairs = []
  for start, step in places:
    place = {
      symbol: sympy.Rational(start) + sympy.Rational(step) * (i * i + i)
      for i, symbol in enumerate(symbols)
    }
    a, b = (_without_dust(side.evalf(_DIGITS, subs=place)) for side in (first, second))
    if _is_number(a) and _is_number(b):
      pairs.append((a, b))
  return pairs


def _without_dust(value: Any) -> Any:
  """0 for what is left where terms cancel: a number without a correct digit, as sympy marks it."""
  import sympy

  return sympy.Integer(0) if value.is_Float and value._prec <= 4 else value


def _is_number(value: Any) -> bool:
  return value.is_number and value.is_finite is True and value.is_comparable is not None


def _tolerance(first: Any, second: Any) -> str:
  import sympy

  return '1e-9' if first.has(sympy.Float) or second.has(sympy.Float) else '1e-25'


def _close(a: Any, b: Any, relative: str) -> bool:
  import sympy

  bound = sympy.Float(relative, _DIGITS) * max(abs(a), abs(b))
  return bool(abs(a - b) <= bound)


def _math_verify(first: Any, second: Any) -> bool:
  from math_verify import verify

  # It says once a process that it runs without its own clock; the pool has one.
  logging.getLogger('math_verify').setLevel(logging.ERROR)

  return bool(
    verify([first], [second], float_rounding=6, numeric_precision=15, timeout_seconds=None)
  )


def between(latex: str, low: Fraction, high: Fraction) -> bool:
  """Whether a constant LaTeX expression that is not an integer lies in [low, high]."""
  value = constant(latex)
  return value is not None and value.denominator > 1 and low <= value <= high


def constant(latex: str) -> Fraction | None:
  """The value of a constant LaTeX expression to 40 digits; None for any other."""
  import sympy

  try:
    value = _read(latex)
  except UnreadableError:
    return None
  if not isinstance(value, sympy.Expr) or value.free_symbols:
    return None
  if value.is_Integer:
    return Fraction(int(value))
  number = value.evalf(_DIGITS)
  if not number.is_Float:
    return None
  return Fraction(str(sympy.Rational(number)))

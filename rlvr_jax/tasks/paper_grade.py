r"""The verifier `paper`: when the grader of arXiv 2504.13837 calls two answers equal.

Its rules, faults included (docs/verifiers.md lists both): factors of 100 are forgiven, numbers may
differ by 1e-4, commas vanish from numbers, the LaTeX reader stops at what it does not know. The
reason of a verdict is the rule that made the answers equal, so that what rests on a fault can be
counted.
"""

import functools
import math
import re
import string
from collections.abc import Callable
from typing import Any

# Loaded with this module: its second of imports would else count against the first verdict.
import latex2sympy2_extended  # noqa: F401

from rlvr_jax.tasks.paper_extract import paper_answer, rewrite
from rlvr_jax.tasks.problem import Problem, Verdict

_TOLERANCE = 1e-4
_CHOICES = 'ABCDE'
_LONGEST = 10_000  # characters of an answer that are looked at
# What sympy's own reader of expressions may be given. It evaluates Python, so: no attributes, no
# strings, no underscores, no subscripts.
_PLAIN = re.compile(r'(?!.*[.]\s*[A-Za-z])[0-9A-Za-z+\-*/^().,!<>= ]+')
_FUNCTIONS = (
  'sin', 'cos', 'tan', 'asin', 'acos', 'atan', 'log', 'ln', 'exp', 'sqrt', 'factorial', 'floor',
  'ceiling', 'binomial',
)  # fmt: skip
_BRACKETED = re.compile(r'[(\[].+[)\]]')


def verify_paper(problem: Problem, completion: str) -> Verdict:
  """Judges the completion as the paper's grader does. Reward 1 or 0.

  Minerva's units stay where they are and its golds as they are (problem.task names it). Raises
  ValueError for a gold that is not a string.
  """
  gold = problem.answer
  if not isinstance(gold, str):
    raise ValueError(
      f'problem {problem.task}/{problem.id}: the gold answer {gold!r} is not a text, which the '
      "verifier 'paper' needs"
    )
  minerva = 'minerva' in problem.task
  gold = _minerva_gold(gold) if minerva else rewrite(gold)
  given = paper_answer(completion, keep_units=minerva)[:_LONGEST]
  if gold in tuple(_CHOICES) and given not in tuple(_CHOICES):
    given = _choice(completion)
  elif set(gold) <= set(_CHOICES) and not set(given) <= set(_CHOICES):
    given = ''.join(c for c in given if c in _CHOICES)  # a gold that vanished ends here too
  rule = equal_by(given, gold)
  if rule is not None:
    return Verdict('correct', 1.0, given, rule)
  if not given:
    return Verdict('unparsed', 0.0, '', 'no answer')
  return Verdict('wrong', 0.0, given, 'no rule makes them equal')


def _minerva_gold(gold: str) -> str:
  return gold.replace('\\neq', '\\ne').replace('\\leq', '\\le').replace('\\geq', '\\ge')


def _choice(text: str) -> str:
  """The last lone letter A to E of a text, in capitals; the text itself if there is none."""
  text = text.strip('\n').rstrip('.').rstrip('/').strip(' ').lstrip(':')
  letters = re.findall(r'\b[A-E]\b', text.upper())
  return letters[-1] if letters else text.strip().strip('.').rstrip('/')


def equal_by(given: str, gold: str) -> str | None:
  """The rule by which two rewritten answers are equal; None if they are not."""
  if given.strip().lower() == gold.strip().lower():
    return 'same text' if gold else 'the gold is empty'
  if gold in tuple(_CHOICES) and _choice(given) == gold:
    return 'same letter'
  first, second = _number(given), _number(gold)
  if first is not None and second is not None:
    return _same_number(first, second)
  if not given:
    return None
  for rule, holds in _RULES:
    if holds(given.strip(), gold.strip()):
      return rule
  return None


def _number(text: str) -> float | None:
  """A float without its commas; a percentage as its hundredth."""
  text = text.replace(',', '')
  try:
    return float(text)
  except ValueError:
    pass
  if not text.endswith('%'):
    return None
  try:
    return float(text.removesuffix('%').removesuffix('\\')) / 100
  except ValueError:
    return None


def _same_number(given: float, gold: float) -> str | None:
  for factor, rule in ((1.0, 'number'), (0.01, 'a hundredth'), (100.0, 'a hundredfold')):
    if math.isclose(gold * factor, given, rel_tol=_TOLERANCE):
      return rule
  return None


def _same_without_brackets(given: str, gold: str) -> bool:
  outer = {'[': ']', '(': ')'}
  ends, other = outer.get(given[:1]), '(' if given.startswith('[') else '['
  if ends is not None and given.endswith(ends) and not gold.startswith(other):
    given, gold = given.strip('[]()'), gold.strip('[]()')
  dropped = str.maketrans('', '', '{}()')
  return given.translate(dropped).lower() == gold.translate(dropped).lower()


def _same_parts(given: str, gold: str) -> bool:
  if not (_BRACKETED.match(given) and _BRACKETED.match(gold)):
    return False
  return _all_equal(given[1:-1].split(','), gold[1:-1].split(','))


def _same_matrix(given: str, gold: str) -> bool:
  begin, end = '\\begin{pmatrix}', '\\end{pmatrix}'
  if 'pmatrix' in given and 'pmatrix' not in gold:  # a gold like {(1,2),(3,4)}
    rows = re.findall(r'\{[^{}]*,[^{}]*\}', gold)
    gold = ', '.join(begin + row.strip('{}').replace(',', '\\') + end for row in rows)
  if not all(text.startswith(begin) and text.endswith(end) for text in (given, gold)):
    return False
  rows = [
    [row.strip() for row in text[len(begin) : -len(end)].split('\\\\') if row.strip()]
    for text in (given, gold)
  ]
  return len(rows[0]) == len(rows[1]) and all(
    _all_equal(a.split('&'), b.split('&')) for a, b in zip(*rows, strict=True)
  )


def _all_equal(given: list[str], gold: list[str]) -> bool:
  return len(given) == len(gold) and all(
    equal_by(a, b) is not None for a, b in zip(given, gold, strict=True)
  )


def _same_equation(given: str, gold: str) -> bool:
  """Differences of the sides; or the right side where the left one is a short name."""
  if given.count('=') == gold.count('=') == 1:
    ours, theirs = (
      '{} - ({})'.format(*(side.strip() for side in text.split('='))) for text in (given, gold)
    )
    return _same_symbolically(ours, theirs) or _same_symbolically(f'-({ours})', theirs)
  for text, other, swap in ((given, gold, False), (gold, given, True)):
    left, _, right = text.partition('=')
    if text.count('=') == 1 and len(left.strip()) <= 2 and '=' not in other:
      return equal_by(*((other, right) if swap else (right, other))) is not None
  return False


def _same_symbolically(given: str, gold: str) -> bool:
  first, second = _read(given), _read(gold)
  return any(_holds(test, first, second) for test in _SYMBOLIC)


def _holds(test: Callable[[Any, Any], Any], first: Any, second: Any) -> bool:
  """Whether a test says yes; what it cannot do with such values counts as no, as it does there."""
  try:
    return bool(test(first, second))
  except MemoryError:
    raise
  except Exception:  # sympy raises whatever Python raises on values that a test is not made for
    return False


def _simplified(first: Any, second: Any) -> bool:
  import sympy

  return bool(first.equals(second)) or sympy.simplify(first - second) == 0


def _same_to_four_digits(first: Any, second: Any) -> bool:
  import sympy

  return math.isclose(float(sympy.N(second)), float(sympy.N(first)), rel_tol=_TOLERANCE)


def _same_relation(first: Any, second: Any) -> bool:
  return abs(first.lhs - first.rhs).equals(abs(second.lhs - second.rhs))


def _same_shape_and_cells(first: Any, second: Any) -> bool:
  return first.shape == second.shape and first.applyfunc(lambda x: round(x, 3)).equals(
    second.applyfunc(lambda x: round(x, 3))
  )


_SYMBOLIC: tuple[Callable[[Any, Any], Any], ...] = (
  lambda a, b: str(a) == str(b) or a == b,
  _simplified,
  _same_relation,
  _same_to_four_digits,
  _same_shape_and_cells,
)
_RULES: tuple[tuple[str, Callable[[str, str], bool]], ...] = (
  ('same without brackets', _same_without_brackets),
  ('item by item', _same_parts),
  ('cell by cell', _same_matrix),
  ('equation', _same_equation),
  ('symbolic', _same_symbolically),
)


def _read(text: str) -> Any:
  """What the first of three readers makes of a text; the text itself if none can read it."""
  for reader in (_read_latex, _read_expression, _read_latex_again):
    for spelling in (text.replace('\\\\', '\\'), text):
      try:
        return reader(spelling)
      except MemoryError:
        raise
      except Exception:  # each of them raises whatever Python raises on bad input
        continue
  return text


def _read_latex(text: str) -> Any:
  """sympy's LaTeX reader, which reads up to the first thing it does not know ("24" of "24,-3")."""
  import antlr4
  from sympy.parsing.latex import _parse_latex_antlr as reader

  lexer_class, parser_class = _latex_classes()
  listener = reader.MathErrorListener(text.strip())
  lexer = lexer_class(antlr4.InputStream(text.strip()))
  parser = parser_class(antlr4.CommonTokenStream(lexer))
  for recogniser in (lexer, parser):
    recogniser.removeErrorListeners()
    recogniser.addErrorListener(listener)
  return reader.convert_relation(parser.math().relation())


@functools.cache
def _latex_classes() -> tuple[Any, Any]:
  """sympy's lexer and parser under any antlr4 runtime that reads their tables (4.11 to 4.13).

  sympy's own front refuses all but 4.11, and the classes complain of others at every text.
  """
  from sympy.parsing.latex import _parse_latex_antlr as reader

  silent = {'checkVersion': lambda self, version: None}
  return tuple(type(c.__name__, (c,), silent) for c in (reader.LaTeXLexer, reader.LaTeXParser))


def _read_expression(text: str) -> Any:
  """sympy's reader of its own notation, on texts that cannot do anything but arithmetic."""
  import sympy
  from sympy.parsing.sympy_parser import parse_expr

  if not _PLAIN.fullmatch(text):
    raise ValueError('not plain')
  names = {name: getattr(sympy, name) for name in (*_FUNCTIONS, 'Symbol', 'Integer', 'Float', 'pi')}
  letters = {letter: sympy.Symbol(letter) for letter in string.ascii_letters if letter not in 'EI'}
  scope = {**letters, **names, 'E': sympy.E, 'I': sympy.I, 'Rational': sympy.Rational}
  return parse_expr(text, global_dict={**scope, 'Function': sympy.Function, '__builtins__': {}})


def _read_latex_again(text: str) -> Any:
  import sympy
  from latex2sympy2_extended import latex2sympy

  # The reader that stood here in the released code knows neither unicode nor sets.
  if not text.isascii():
    raise ValueError('not ASCII')
  value = latex2sympy(text)
  if not isinstance(value, sympy.Expr | sympy.MatrixBase | sympy.core.relational.Relational):
    raise TypeError(f'a {type(value).__name__}')
  return value

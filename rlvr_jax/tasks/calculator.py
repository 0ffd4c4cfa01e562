"""Exact arithmetic on text: + - * / ^ and parentheses over integers and decimals, as fractions."""

import ast
import re
from fractions import Fraction

MOST_CHARACTERS = 300  # of an expression
MOST_BITS = 4096  # of a numerator or denominator
_ALLOWED = re.compile(r'[0-9.+\-*/^()\s]+')
_SIGNS = str.maketrans('\u00d7\u00b7\u00f7\u2212', '**/-')  # the signs people print
_LEADING_ZEROS = re.compile(r'(?<![0-9.])0+(?=[0-9])')


class ArithmeticTextError(ValueError):
  """What is wrong with an expression, in words for the one who wrote it."""


def calculate(text: str) -> str:
  """The value of an expression as an integer or a fraction p/q in lowest terms.

  Raises ArithmeticTextError for text that is no expression, a division by zero, and numbers of more
  than MOST_BITS bits.
  """
  text = text.translate(_SIGNS).strip()
  if len(text) > MOST_CHARACTERS:
    raise ArithmeticTextError(f'the expression is longer than {MOST_CHARACTERS} characters')
  if not _ALLOWED.fullmatch(text):
    raise ArithmeticTextError('only numbers and + - * / ^ ( ) are understood')
  source = _LEADING_ZEROS.sub('', ' '.join(text.split())).replace('^', '**')
  try:
    tree = ast.parse(source, mode='eval')
  except (SyntaxError, RecursionError, MemoryError) as error:  # the latter two: nested too deep
    raise ArithmeticTextError('this is not an expression') from error
  return str(_value(tree.body, source))


def _value(node: ast.expr, source: str) -> Fraction:
  match node:
    case ast.Constant(value=int() | float()):
      return _small(Fraction(ast.get_source_segment(source, node) or ''))
    case ast.UnaryOp(op=ast.UAdd(), operand=operand):
      return _value(operand, source)
    case ast.UnaryOp(op=ast.USub(), operand=operand):
      return -_value(operand, source)
    case ast.BinOp(left=left, op=op, right=right):
      return _small(_combined(op, _value(left, source), _value(right, source)))
  raise ArithmeticTextError('this is not an expression')


def _combined(op: ast.operator, a: Fraction, b: Fraction) -> Fraction:
  match op:
    case ast.Add():
      return a + b
    case ast.Sub():
      return a - b
    case ast.Mult():
      return a * b
    case ast.Div():
      if b == 0:
        raise ArithmeticTextError('division by zero')
      return a / b
    case ast.Pow():
      return _power(a, b)
  raise ArithmeticTextError('this is not an expression')


def _power(a: Fraction, b: Fraction) -> Fraction:
  if b.denominator != 1:
    raise ArithmeticTextError('an exponent must be an integer')
  if a == 0 and b < 0:
    raise ArithmeticTextError('division by zero')
  bits = max(abs(a.numerator).bit_length(), a.denominator.bit_length())
  if bits > 1 and (bits - 1) * abs(b) > MOST_BITS:  # 1 bit: -1, 0 or 1, whatever the exponent
    raise ArithmeticTextError('the result is too large')
  return a ** int(b)


def _small(x: Fraction) -> Fraction:
  if max(abs(x.numerator).bit_length(), x.denominator.bit_length()) > MOST_BITS:
    raise ArithmeticTextError('the result is too large')
  return x

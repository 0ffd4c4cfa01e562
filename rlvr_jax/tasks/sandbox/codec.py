"""Python values as JSON, in both directions, for data that may come from a hostile program.

None, bool, int, float and str are themselves, a list is an array. All else is an object of one key:
{'t': [...]} tuple, {'s': [...]} set, {'z': [...]} frozenset, {'q': [...]} deque, {'d': [[key,
value], ...]} dict, {'b': hex} bytes, {'i': hex} a long int, {'c': [re, im]} complex, {'F': 'a/b'}
Fraction, {'D': text} Decimal, {'L': [...]} a linked list of `ListNode`, {'T': [...]} a tree of
`TreeNode` in level order, {'h': [number, type]} an object that stays where it is, {'m': digest}
data of more than LARGE values, which equals what has the same digest.

Subclasses of these types become the type itself: what a program's own class says about equality is
not carried over. Decoding makes values of these types only, and nothing of the program's is run.
"""

import collections
import decimal
import fractions
import hashlib
import json
import marshal
import typing
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100
MAX_NODES = 100_000  # of a linked list or a tree
LARGE = 4_000_000
_CHUNK = 4096
_LONG_BITS = 8192  # an int beyond these is written in hex: decimal digits take quadratic time
_BASES: tuple[Any, ...] = (
  *(int, float, complex, str, tuple, list, dict, set, frozenset, collections.deque),
)
_SAME_HASH = 64  # equal hashes in one set or dict that no honest output has


class CodecError(ValueError):
  """A value that cannot be carried over, or text that stands for none."""


class Opaque:
  """An object that has no value here: what encode's `keep` numbered."""

  def __init__(self, number: int, kind: str):
    self.number, self.kind = number, kind

  def __repr__(self) -> str:
    return f'<{self.kind} object>'


Keep = Callable[[Any], list[Any]]


def _no_keep(value: Any) -> list[Any]:
  raise CodecError(f'a {type(value).__name__} is not data')


def encode(value: Any, keep: Keep = _no_keep, depth: int = 0) -> Any:
  """The JSON value of a Python value. keep(object) gives [number, type] for what is not data.

  Raises CodecError for data nested deeper than MAX_DEPTH, and what keep raises.
  """
  kind = type(value)
  if kind is int:
    return value if value.bit_length() <= _LONG_BITS else {'i': hex(value)}
  if kind is str or kind is float or kind is bool or value is None:
    return value
  if depth > MAX_DEPTH:
    raise CodecError(f'nested deeper than {MAX_DEPTH}')
  depth += 1
  if kind is list:
    return [encode(item, keep, depth) for item in value]
  if kind is tuple:
    return {'t': [encode(item, keep, depth) for item in value]}
  if kind is dict:
    return {'d': [[encode(k, keep, depth), encode(v, keep, depth)] for k, v in value.items()]}
  if kind in (set, frozenset, collections.deque):
    tag = {set: 's', frozenset: 'z'}.get(kind, 'q')
    return {tag: [encode(item, keep, depth) for item in value]}
  return _encode_rare(value, keep, depth)


def is_large(value: Any) -> bool:
  """Whether value holds more than LARGE values, in lists, tuples and sets at its top two levels."""
  if not isinstance(value, list | tuple | set | frozenset) or len(value) > LARGE:
    return isinstance(value, list | tuple | set | frozenset)
  count = len(value)
  for item in value:
    if isinstance(item, list | tuple | set | frozenset):
      count += len(item)
      if count > LARGE:
        return True
  return False


def digest(value: Any) -> dict[str, str]:
  """What stands for data too large to be carried over. Types count: 2 and 2.0 differ in it.

  Raises ValueError for what is not made of plain types.
  """
  state = hashlib.sha256(type(value).__name__.encode())
  items = value if isinstance(value, list | tuple) else list(value)
  for start in range(0, len(items), _CHUNK):
    # version 2 has no references, so that equal values give equal bytes
    state.update(marshal.dumps(items[start : start + _CHUNK], 2))
  return {'m': state.hexdigest()}


def _encode_rare(value: Any, keep: Keep, depth: int) -> Any:
  if isinstance(value, bytes | bytearray):
    return {'b': bytes(value).hex()}
  if type(value) is complex:
    return {'c': [value.real, value.imag]}
  if type(value) is fractions.Fraction:
    return {'F': f'{value.numerator}/{value.denominator}'}
  if type(value) is decimal.Decimal:
    return {'D': str(value)}
  for base in _BASES:
    if isinstance(value, base) and type(value) is not base:
      plain = str.__str__(value) if base is str else base(value)
      return encode(plain, keep, depth) if type(plain) is base else {'h': keep(value)}
  name, value = type(value).__name__, typing.cast(Any, value)
  if name == 'ListNode' and hasattr(value, 'next'):
    return {'L': [encode(item, keep, depth) for item in _list_values(value)]}
  if name == 'TreeNode' and hasattr(value, 'left'):
    return {'T': [encode(item, keep, depth) for item in _tree_values(value)]}
  if type(value).__module__ == 'numpy' and hasattr(value, 'dtype'):
    if getattr(value, 'ndim', None) == 0:
      return encode(value.item(), keep, depth)
    return {'a': encode(value.tolist(), keep, depth)}
  return {'h': keep(value)}


def _list_values(node: Any) -> list[Any]:
  values = []
  while node is not None:
    values.append(node.val)
    if len(values) > MAX_NODES:
      raise CodecError(f'a linked list of more than {MAX_NODES} nodes')
    node = node.next
  return values


def _tree_values(root: Any) -> list[Any]:
  values, nodes = [], collections.deque([root])
  while nodes:
    node = nodes.popleft()
    if node is None:
      values.append(None)
      continue
    values.append(node.val)
    nodes += (node.left, node.right)
    if len(values) > MAX_NODES:
      raise CodecError(f'a tree of more than {MAX_NODES} nodes')
  while values and values[-1] is None:
    values.pop()
  return values


Restore = Callable[[int, str], Any]


def decode(
  value: Any,
  restore: Restore = Opaque,
  nodes: dict[str, Any] | None = None,
  depth: int = 0,
) -> Any:
  """The Python value of a JSON value; restore(number, type) gives the objects that are not data.

  nodes holds the classes ListNode and TreeNode where such may come. Raises CodecError for anything
  that encode does not write.
  """
  if isinstance(value, list):
    if depth > MAX_DEPTH:
      raise CodecError(f'nested deeper than {MAX_DEPTH}')
    return [decode(item, restore, nodes, depth + 1) for item in value]
  if not isinstance(value, dict):
    return value
  if depth > MAX_DEPTH:
    raise CodecError(f'nested deeper than {MAX_DEPTH}')
  try:
    ((tag, content),) = value.items()
    return _decode_tagged(tag, content, restore, nodes, depth + 1)
  except CodecError:
    raise
  except (TypeError, ValueError, ArithmeticError, KeyError, AttributeError) as error:
    raise CodecError(f'{type(error).__name__}: {error}') from error


def _decode_tagged(
  tag: str, content: Any, restore: Restore, nodes: dict[str, Any] | None, depth: int
) -> Any:
  if tag == 'i':
    return int(content, 16)
  if tag == 'b':
    return bytes.fromhex(content)
  if tag == 'c':
    real, imaginary = content
    return complex(float(real), float(imaginary))
  if tag == 'F':
    top, bottom = content.split('/')
    return fractions.Fraction(int(top), int(bottom))
  if tag == 'D':
    return decimal.Decimal(content)
  if tag == 'm':
    return Opaque(0, f'value of digest {str(content)[:64]}')
  if tag == 'h':
    number, kind = content
    return restore(int(number), str(kind)[:100])
  if not isinstance(content, list):
    raise CodecError(f'{tag!r} holds a {type(content).__name__}')
  if tag == 'd':
    pairs = [
      (decode(key, restore, nodes, depth), decode(item, restore, nodes, depth))
      for key, item in content
    ]
    check_hashes([key for key, _ in pairs])
    return dict(pairs)
  items = [decode(item, restore, nodes, depth) for item in content]
  if tag in ('L', 'T'):
    return (_linked if tag == 'L' else _tree)(items, nodes or {})
  if tag in ('s', 'z'):
    check_hashes(items)
  return {
    't': tuple, 's': set, 'z': frozenset, 'q': collections.deque, 'a': Array
  }[tag](items)  # fmt: skip


class Array(list):
  """A numpy array's items. Like an array, it is not the same as a list of them."""

  __hash__ = None  # type: ignore[assignment]

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Array) and list.__eq__(self, other)


def check_hashes(keys: list[Any]) -> None:
  """Refuses keys of which many have one hash: they would take quadratic time."""
  if len(keys) > _SAME_HASH:
    ((_, count),) = collections.Counter(map(hash, keys)).most_common(1)
    if count > _SAME_HASH:
      raise CodecError(f'{count} keys have one hash')


def _linked(values: list[Any], nodes: dict[str, Any]) -> Any:
  head = None
  for value in reversed(values):
    node = nodes['ListNode'](value)
    node.next, head = head, node
  return head


def _tree(values: list[Any], nodes: dict[str, Any]) -> Any:
  if not values or values[0] is None:
    return None
  made = [None if value is None else nodes['TreeNode'](value) for value in values]
  children = iter(made[1:])
  for node in made:
    if node is not None:
      node.left = next(children, None)
      node.right = next(children, None)
  return made[0]


def dumps(value: Any) -> bytes:
  """One line of JSON."""
  return json.dumps(value, separators=(',', ':')).encode() + b'\n'


def loads(line: bytes) -> Any:
  """The JSON value of a line. Raises CodecError."""
  try:
    return json.loads(line)
  except (ValueError, RecursionError) as error:
    raise CodecError(f'not JSON ({type(error).__name__}: {str(error)[:80]})') from error

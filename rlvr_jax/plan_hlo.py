"""What a compiled program computes and sends, read from its HLO text.

XLA's own cost analysis counts the body of a loop once; here each body counts as often as its loop
runs. A loop of a fixed number of turns says so in its condition; for the others (micro-batches that
hold tokens, decode steps, pages of the longest completion) the caller gives a number.

The text's grammar is that of XLA (github.com/openxla/xla, xla/hlo/parser); only what is counted
here is read. No jax is imported.
"""

import collections
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_SIZES = {'pred': 1, 's4': 1, 'u4': 1, 's8': 1, 'u8': 1, 'f8e4m3fn': 1, 'f8e5m2': 1, 's16': 2}
_SIZES |= {'u16': 2, 'f16': 2, 'bf16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8}
_SIZES |= {'f64': 8, 'c64': 8, 'c128': 16}
_SHAPE = re.compile(r'\b([a-z]+\d+[a-z0-9]*|pred)\[([\d,]*)\]')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.-]+) .*\{$')
_LINE = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = ')
_CALLED = re.compile(
  r'\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)'
)
COLLECTIVES = (
  'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'ragged-all-to-all',
  'collective-permute', 'collective-broadcast',
)  # fmt: skip

Shape = tuple[str, tuple[int, ...]]


class Op(NamedTuple):
  """An instruction; attributes: what stands behind its operands."""

  opcode: str
  shapes: tuple[Shape, ...]
  operands: tuple[str, ...]
  attributes: str
  inside: str  # the operands as text: a constant's value, a parameter's number


class Module(NamedTuple):
  """Computations by name, their instructions by name."""

  entry: str
  computations: dict[str, dict[str, Op]]


class Moved(NamedTuple):
  """One kind of collective over one group of devices: what, over which mesh axes."""

  kind: str
  axes: str  # 'fsdp', 'data+fsdp', ...; 'self' within one device


class Cost(NamedTuple):
  """On one device: operations, and by collective the bytes it sends and how often."""

  flops: float
  sent: dict[Moved, float]
  times: dict[Moved, float]


def parse(text: str) -> Module:
  """The module of an HLO text; ValueError without an entry computation."""
  computations: dict[str, dict[str, Op]] = {}
  entry, current = '', None
  for line in text.splitlines():
    if line.startswith('}'):
      current = None
    elif current is None:
      head = _HEAD.match(line)
      if head and not line.startswith('HloModule'):
        current = computations.setdefault(head[2], {})
        entry = head[2] if head[1] else entry
    else:
      found = _LINE.match(line)
      if found:
        current[found[1]] = _op(line[found.end() :])
  if not entry:
    raise ValueError('no HLO module: there is no ENTRY computation in the text')
  return Module(entry, computations)


def _op(text: str) -> Op:
  """An instruction from what stands behind its '='."""
  end = _closing(text, 0) + 1 if text.startswith('(') else text.index(' ')
  shape, rest = text[:end], text[end:].lstrip()
  start = rest.index('(')
  stop = _closing(rest, start)
  inside = rest[start + 1 : stop]
  operands = tuple(re.findall(r'%([\w.-]+)', inside)) or tuple(
    word.strip().rpartition(' ')[2] for word in inside.split(',') if word.strip()
  )
  return Op(rest[:start].strip(), _shapes(shape), operands, rest[stop + 1 :], inside)


def _closing(text: str, start: int) -> int:
  depth = 0
  for i in range(start, len(text)):
    depth += {'(': 1, ')': -1}.get(text[i], 0)
    if not depth:
      return i
  raise ValueError(f'unbalanced parentheses in HLO: {text[:80]!r}')


def _shapes(text: str) -> tuple[Shape, ...]:
  return tuple(
    (kind, tuple(int(n) for n in dims.split(',') if n)) for kind, dims in _SHAPE.findall(text)
  )


def size_of(shapes: Sequence[Shape]) -> int:
  """Bytes of arrays of such shapes, without padding."""
  return sum(_SIZES.get(kind, 4) * math.prod(dims) for kind, dims in shapes)


def cost(
  module: Module,
  mesh: Mapping[str, int],
  *,
  outer: float = 1.0,
  inner: float = 1.0,
  shares: Mapping[str, float] | None = None,
) -> Cost:
  """What the entry computation costs on one device.

  mesh: axis -> size in the order of the devices. outer: turns of a loop whose number only the run
  knows; inner: of such a loop within one. shares: named scope -> in which share of their runs the
  conditions in it are true; without one the larger branch counts.
  """
  return _Walk(module, mesh, outer, inner, shares or {}).of(module.entry, 0)


class _Walk:
  def __init__(
    self,
    module: Module,
    mesh: Mapping[str, int],
    outer: float,
    inner: float,
    shares: Mapping[str, float],
  ):
    self._shares = shares
    self._computations = module.computations
    self._mesh = {axis: size for axis, size in mesh.items() if size > 1}
    self._turns = (outer, inner)
    self._known: dict[tuple[str, int], Cost] = {}

  def of(self, name: str, depth: int) -> Cost:
    """Cost of one run of a computation, within `depth` loops of unknown length."""
    key = name, min(depth, 1)
    if key not in self._known:
      self._known[key] = self._sum(name, depth)
    return self._known[key]

  def _sum(self, name: str, depth: int) -> Cost:
    total = Cost(0.0, {}, {})
    channels: set[str] = set()
    ops = self._computations.get(name, {})
    for op in ops.values():
      one, times = self._one(op, ops, depth)
      # a collective that computation overlaps lies in several fusions: its start, pieces that go
      # on with it (these may be inside a loop), its end
      channel, goes_on = _channel(op, self._computations)
      if goes_on or (channel and channel in channels):
        one = Cost(one.flops, {}, {})
      channels |= {channel} if channel else set()
      total = _add(total, one, times)
    return total

  def _one(self, op: Op, ops: dict[str, Op], depth: int) -> tuple[Cost, float]:
    none = Cost(0.0, {}, {})
    called = dict(_CALLED.findall(op.attributes))
    if op.opcode == 'while':
      turns = trip_count(op, ops, self._computations)
      if turns is None:
        return self.of(called['body'], depth + 1), self._turns[min(depth, 1)]
      return self.of(called['body'], depth), turns
    if op.opcode == 'conditional':
      costs = [self.of(branch, depth) for branch in _branches(op, called)]
      share = self._share(op)
      if share is None or len(costs) != 2:
        return max(costs, key=_weight, default=none), 1.0
      return _add(_add(none, costs[0], 1 - share), costs[1], share), 1.0
    if op.opcode in ('fusion', 'call', 'async-start') and called:
      return self.of(next(iter(called.values())), depth), 1.0
    kind = op.opcode.removesuffix('-start')
    if kind in COLLECTIVES:
      return self._collective(kind, op, ops), 1.0
    if op.opcode in ('dot', 'convolution'):
      shapes = [ops[name].shapes[0][1] for name in op.operands]
      return none._replace(flops=_products(op, shapes)), 1.0
    return none, 1.0

  def _share(self, op: Op) -> float | None:
    name = re.search(r'op_name="([^"]*)"', op.attributes)
    scopes = re.split(r'[/()]', name[1]) if name else []
    return next((share for scope, share in self._shares.items() if scope in scopes), None)

  def _collective(self, kind: str, op: Op, ops: dict[str, Op]) -> Cost:
    groups = _groups(op.attributes)
    n = max((len(group) for group in groups), default=math.prod(self._mesh.values()))
    size = size_of([s for name in op.operands if name in ops for s in ops[name].shapes])
    share = {
      'all-gather': n - 1.0,  # rings: Thakur, Rabenseifner & Gropp 2005
      'reduce-scatter': (n - 1) / n,
      'all-reduce': 2 * (n - 1) / n,
      'all-to-all': (n - 1) / n,
      'ragged-all-to-all': (n - 1) / n,
    }.get(kind, 1.0)
    moved = Moved(kind, _axes(groups, self._mesh, kind))
    return Cost(0.0, {moved: share * size}, {moved: 1.0})


def _branches(op: Op, called: Mapping[str, str]) -> list[str]:
  """A conditional's computations, that of false (or 0) first."""
  names = re.search(r'branch_computations=\{([^}]*)\}', op.attributes)
  if names:
    return re.findall(r'%?([\w.-]+)', names[1])
  return [called[kind] for kind in ('false_computation', 'true_computation') if kind in called]


def _weight(cost: Cost) -> tuple[float, float]:
  return cost.flops, sum(cost.sent.values())


def _add(total: Cost, one: Cost, times: float) -> Cost:
  flops = total.flops + times * one.flops
  for kept, more in ((total.sent, one.sent), (total.times, one.times)):
    for key, value in more.items():
      kept[key] = kept.get(key, 0.0) + times * value
  return Cost(flops, total.sent, total.times)


def _channel(op: Op, computations: Mapping[str, Mapping[str, Op]]) -> tuple[str, bool]:
  """The channel of the collective inside a fusion ('' for anything else), whether it goes on."""
  if op.opcode != 'fusion':
    return '', False
  called = dict(_CALLED.findall(op.attributes)).get('calls', '')
  for inner in computations.get(called, {}).values():
    if inner.opcode in COLLECTIVES:
      found = re.search(r'channel_id=(\d+)', inner.attributes)
      return found[1] if found else '', called.startswith('async_collective_fusion')
  return '', False


def trip_count(
  op: Op, ops: Mapping[str, Op], computations: Mapping[str, Mapping[str, Op]]
) -> int | None:
  """Turns of a while loop that counts up to a constant; None where a run decides."""
  known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', op.attributes)
  if known:
    return int(known[1])
  called = dict(_CALLED.findall(op.attributes))
  condition, body = (computations[called[part]] for part in ('condition', 'body'))
  root = list(condition.values())[-1]
  compare = _unwrapped(root, computations)
  if compare is None or 'direction=LT' not in compare.attributes:
    return None
  counter, limit = (condition.get(name) for name in root.operands[:2])
  if counter is None or limit is None or limit.opcode != 'constant':
    return None
  number = re.search(r'index=(\d+)', counter.attributes)
  if counter.opcode != 'get-tuple-element' or not number:
    return None
  index = int(number[1])
  begin = _constant(_tuple_element(op.operands[0], index, ops), ops)
  step = _step(body, index)
  if step is None:
    return None
  return max(0, -(-(int(limit.inside) - (begin or 0)) // step))


def _unwrapped(root: Op, computations: Mapping[str, Mapping[str, Op]]) -> Op | None:
  """The comparison that is root, or all that root's fusion does."""
  if root.opcode == 'compare':
    return root
  called = dict(_CALLED.findall(root.attributes)).get('calls', '')
  inner = [op for op in computations.get(called, {}).values() if op.opcode != 'parameter']
  return inner[0] if len(inner) == 1 and inner[0].opcode == 'compare' else None


def _tuple_element(name: str, index: int, ops: Mapping[str, Op]) -> str:
  op = ops.get(name)
  return op.operands[index] if op is not None and op.opcode == 'tuple' else ''


def _constant(name: str, ops: Mapping[str, Op]) -> int | None:
  """The integer behind copies of a constant."""
  op = ops.get(name)
  while op is not None and op.opcode in ('copy', 'bitcast', 'convert'):
    op = ops.get(op.operands[0])
  if op is None or op.opcode != 'constant' or not re.fullmatch(r'-?\d+', op.inside):
    return None
  return int(op.inside)


def _step(body: Mapping[str, Op], index: int) -> int | None:
  """What a loop's body adds to its counter; 1 where that is not plain to see."""
  root = list(body.values())[-1]
  if root.opcode != 'tuple' or index >= len(root.operands):
    return 1
  op = body.get(root.operands[index])
  while op is not None and op.opcode in ('copy', 'bitcast'):
    op = body.get(op.operands[0])
  if op is None or op.opcode == 'get-tuple-element':
    return None if op is not None else 1
  if op.opcode != 'add':
    return 1
  added = [value for name in op.operands if (value := _constant(name, body)) is not None]
  return max(1, added[0]) if len(added) == 1 else 1


def _products(op: Op, operands: Sequence[tuple[int, ...]]) -> float:
  """Operations of a matrix product or convolution: 2 for each multiplication."""
  out = op.shapes[0][1]
  if op.opcode == 'dot':
    dims = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', op.attributes)
    inner = [operands[0][int(i)] for i in dims[1].split(',') if i] if dims else []
    return 2.0 * math.prod(out) * math.prod(inner)
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', op.attributes)
  assert labels is not None, op.attributes[:200]
  left, right, result = labels.groups()
  size = 2.0 * operands[1][right.index('i')]
  size *= out[result.index('b')] * out[result.index('f')]
  windows = _windows(op.attributes, len(result) - 2)
  for axis, window in enumerate(windows):
    size *= _taps(operands[0][left.index(str(axis))], out[result.index(str(axis))], window)
  return size


def _windows(attributes: str, count: int) -> list[dict[str, tuple[int, ...]]]:
  """Of each spatial axis: size, stride, pad (low, high), lhs_dilate, rhs_dilate."""
  default: dict[str, tuple[int, ...]] = {
    'size': (1,), 'stride': (1,), 'pad': (0, 0), 'lhs_dilate': (1,), 'rhs_dilate': (1,),
  }  # fmt: skip
  windows = [dict(default) for _ in range(count)]
  text = re.search(r'window=\{([^}]*)\}', attributes)
  for name, values in re.findall(r'(\w+)=([\dx_-]+)', text[1] if text else ''):
    for window, value in zip(windows, values.split('x'), strict=False):
      window[name] = tuple(int(n) for n in value.split('_'))
  return windows


def _taps(size: int, out: int, window: dict[str, tuple[int, ...]]) -> int:
  """Pairs of an output place and a tap of the window that meets an input, not padding."""
  (taps,), (stride,), (low, _) = window['size'], window['stride'], window['pad']
  (spread,), (apart,) = window['lhs_dilate'], window['rhs_dilate']
  if taps == 1 and spread == 1 and not low:
    return out
  if taps * out > 1 << 22:  # a real convolution over that much is none of ours
    return taps * out
  reach = (size - 1) * spread
  places = itertools.product(range(out), range(taps))
  at = (o * stride + t * apart - low for o, t in places)
  return sum(1 for x in at if 0 <= x <= reach and x % spread == 0)


def _groups(attributes: str) -> list[tuple[int, ...]]:
  """Which devices exchange: groups, or for a permutation its (source, target) pairs."""
  pairs = re.search(r'source_target_pairs=\{(.*?)\}\}', attributes)
  listed = pairs or re.search(r'replica_groups=\{(\{.*?\})\}', attributes)
  if listed:
    return [tuple(int(n) for n in group.split(',')) for group in listed[1].strip('{}').split('},{')]
  iota = re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', attributes)
  if iota:
    shape, source = ([int(n) for n in iota[i].split(',')] for i in (1, 2))
    order = [int(n) for n in iota[3].split(',')] if iota[3] else list(range(len(source)))
    return _turned(source, order, math.prod(shape[1:]))
  axes = re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', attributes)
  if axes:
    return _mesh_groups(*axes.groups())
  return []


def _turned(source: Sequence[int], order: Sequence[int], width: int) -> list[tuple[int, ...]]:
  """0, 1, ... in shape `source`, its axes put in this order, in groups of `width`."""
  strides = [math.prod(source[i + 1 :]) for i in range(len(source))]
  ids = [
    sum(place * strides[axis] for place, axis in zip(at, order, strict=True))
    for at in itertools.product(*(range(source[axis]) for axis in order))
  ]
  return [tuple(ids[i : i + width]) for i in range(0, len(ids), width)]


def _mesh_groups(mesh: str, chosen: str) -> list[tuple[int, ...]]:
  """Groups along axes, or parts of axes, of a mesh: "'a'=4,'b'=8" and "'a','b':(2)4"."""
  sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
  within: dict[str, list[tuple[int, int]]] = {}
  for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", chosen):
    within.setdefault(name, []).append((int(before or 1), int(size or sizes[name])))
  source: list[int] = []
  grouped: list[int] = []
  for name, whole in sizes.items():
    done = 1
    for before, size in sorted(within.get(name, [])):
      source += [before // done, size]
      grouped.append(len(source) - 1)
      done = before * size
    source.append(whole // done)
  rest = [axis for axis in range(len(source)) if axis not in grouped]
  return _turned(source, [*rest, *grouped], math.prod(source[axis] for axis in grouped))


def _axes(groups: Sequence[tuple[int, ...]], mesh: Mapping[str, int], kind: str) -> str:
  """The mesh axes along which members of a group differ."""
  sizes = list(mesh.values())

  def at(device: int) -> list[int]:
    places = []
    for size in reversed(sizes):
      places.append(device % size)
      device //= size
    return places[::-1]

  varied: collections.Counter[str] = collections.Counter()
  for group in groups:
    places = [at(device) for device in group]
    axes = [
      a for a, column in zip(mesh, zip(*places, strict=True), strict=True) if len(set(column)) > 1
    ]
    varied['+'.join(axes)] += 1
  if not groups:
    return '+'.join(mesh) or 'self'
  if kind == 'collective-permute' and len(varied) > 1:  # a ring's last step may cross other axes
    return varied.most_common(1)[0][0] or 'self'
  return max(varied, key=len) or 'self'

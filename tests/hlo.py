"""What a compiled program does, read from its HLO text: loops, collectives, aliases, transfers."""

import dataclasses
import functools
import math
import re

_HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_OP = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$')
_CALLED = re.compile(
  r'\b(?:calls|to_apply|body|condition|branch_computations|true_computation|false_computation'
  r'|called_computations)=(?:\{([^}]*)\}|%?([\w.\-]+))'
)
_SHAPE = re.compile(r'([a-z]+\d*\w*)\[([\d,]*)\]')
_ALIAS = re.compile(r'\{([\d, ]*)\}: \((\d+), ')
COLLECTIVES = (
  'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute',
  'collective-broadcast', 'ragged-all-to-all',
)  # fmt: skip
TRANSFERS = ('infeed', 'outfeed', 'send', 'recv')


@dataclasses.dataclass(frozen=True)
class Op:
  """An instruction; shapes of its result, one of each part of a tuple."""

  name: str
  kind: str  # of an asynchronous pair both ends have the plain name
  shapes: tuple[tuple[int, ...], ...]
  types: tuple[str, ...]
  rest: str  # operands and attributes
  computation: str

  @property
  def largest(self) -> int:
    """Elements of the largest part of the result."""
    return max((math.prod(shape) for shape in self.shapes), default=0)


class Program:
  """The computations of a compiled module."""

  def __init__(self, text: str):
    self.entry = ''
    self.computations: dict[str, list[Op]] = {}
    header = text[: text.index('\n')]
    begin = header.find('input_output_alias={')
    aliases = header[begin : header.find(' }', begin)] if begin >= 0 else ''
    # parameters of the program whose memory a result is written over
    self.aliased = {int(number) for _, number in _ALIAS.findall(aliases)}
    here = ''
    for line in text.splitlines():
      if head := _HEAD.match(line):
        here = head[2]
        self.computations[here] = []
        if head[1]:
          self.entry = here
      elif op := _OP.match(line):
        found = _SHAPE.findall(op[3])
        shapes = tuple(tuple(int(n) for n in dims.split(',') if n) for _, dims in found)
        kind = re.sub(r'-(start|done)$', '', op[4])
        types = tuple(kind for kind, _ in found)
        self.computations[here].append(Op(op[2], kind, shapes, types, op[5], here))
    assert self.entry, 'not the text of an HLO module'

  @property
  def ops(self) -> list[Op]:
    """All of them."""
    return [op for ops in self.computations.values() for op in ops]

  def called(self, op: Op) -> list[str]:
    """Names of the computations an instruction calls."""
    found = [several or one for several, one in _CALLED.findall(op.rest)]
    names = [name.strip().lstrip('%') for group in found for name in group.split(',')]
    return [name for name in names if name in self.computations]

  @functools.cached_property
  def depth(self) -> dict[str, int]:
    """In how many loops, one in the other, a computation runs; 0 for what runs once."""
    found = {self.entry: 0}
    waiting = [self.entry]
    while waiting:
      name = waiting.pop()
      for op in self.computations[name]:
        for other in self.called(op):
          depth = found[name] + (op.kind == 'while')
          if depth > found.get(other, -1):
            found[other] = depth
            waiting.append(other)
    return found

  def collectives(self, *kinds: str) -> list[Op]:
    """Instructions that exchange something between devices, of the given kinds or of all."""
    return [op for op in self.ops if op.kind in (kinds or COLLECTIVES)]

  def transfers(self) -> list[Op]:
    """Instructions that speak to the host while the program runs."""
    return [
      op
      for op in self.ops
      if op.kind in TRANSFERS
      or (op.kind == 'custom-call' and re.search(r'custom_call_target="[^"]*callback', op.rest))
    ]


def program_of(compiled) -> Program:
  """Of what jax compiled."""
  return Program(compiled.as_text())


def local_sizes(tree) -> dict[str, int]:
  """Elements that one device holds of each leaf of a tree of arrays, by its path."""
  import jax

  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): math.prod(
      leaf.sharding.shard_shape(leaf.shape)
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }

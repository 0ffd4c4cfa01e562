"""Right functions in odd but legal styles: f(a, b) gives [a + b, a * b]."""

FUNCTION = {
  'lambda': 'f = lambda a, b: [a + b, a * b]',
  'annotated': 'from typing import *\ndef f(a: int, b: "int") -> List:\n  return [a + b, a * b]',
  'partial': (
    'import functools\ndef g(x, a, b):\n  return [a + b, a * b]\nf = functools.partial(g, None)'
  ),
  'cached': (
    'from functools import cache\n@cache\ndef f(a, b):\n  return [a + b, a * b]\nf.cache_clear()'
  ),
  'an object that is called': (
    'class F:\n  def __call__(self, a, b):\n    return [a + b, a * b]\nf: object = F()'
  ),
  'a list of another class': """
class Mine(list):
  pass
def f(a, b):
  return Mine([a + b, a * b])
""",
  'numbers of numpy': (
    'import numpy as np\ndef f(a, b):\n  return [np.int64(a) + np.int64(b), np.int32(a * b)]'
  ),
  'tolist': 'import numpy as np\ndef f(a, b):\n  return (np.array([a + b, a * b])).tolist()',
  'enums': """
import enum
def f(a, b):
  Kind = enum.IntEnum('Kind', {'S': a + b, 'P': a * b})
  return [Kind(a + b), Kind(a * b)]
""",
  'floats that are whole': 'def f(a, b):\n  return [float(a + b), a * b / 1]',
  'fractions': (
    'from fractions import Fraction as F\ndef f(a, b):\n  return [F(a) + F(b), F(a * b, 1)]'
  ),
  'booleans and prints': (
    'import sys\ndef f(a, b):\n  print(a, b)\n  sys.stderr.write("x" * 300000)\n'
    '  return [a + b, a * b]'
  ),
  'stdin that is empty': """
def f(a, b):
  try:
    input()
  except EOFError:
    return [a + b, a * b]
""",
  'global state': 'n = 0\ndef f(a, b):\n  global n\n  n += 1\n  return [a + b, a * b]',
  'star': 'def f(*args, **_):\n  return [sum(args), args[0] * args[1]]',
  'defaults': 'def f(a, b=0, *, c=[]):\n  c.append(a)\n  return [a + b, a * b]',
  'a dataclass': """
from __future__ import annotations
from dataclasses import dataclass, field
@dataclass
class Both:
  a: int
  b: int
  out: list[int] = field(default_factory=list)
  def run(self):
    self.out += [self.a + self.b, self.a * self.b]
    return self.out
def f(a, b):
  return Both(a, b).run()
""",
  'threads': """
import threading
def f(a, b):
  out = [0, 0]
  def work(i, v): out[i] = v
  ts = [threading.Thread(target=work, args=(i, v)) for i, v in enumerate((a + b, a * b))]
  for t in ts: t.start()
  for t in ts: t.join()
  return out
""",
  'executor': """
from concurrent.futures import ThreadPoolExecutor
def f(a, b):
  with ThreadPoolExecutor() as pool:
    return [pool.submit(lambda: a + b).result(), pool.submit(lambda: a * b).result()]
""",
  'asyncio': """
import asyncio
async def g(a, b):
  await asyncio.sleep(0.001)
  return [a + b, a * b]
def f(a, b):
  return asyncio.run(g(a, b))
""",
  'deep recursion': """
import sys
sys.setrecursionlimit(10 ** 6)
def deep(n):
  return 0 if n == 0 else 1 + deep(n - 1)
def f(a, b):
  assert deep(60000) == 60000
  return [a + b, a * b]
""",
  'examples that fail': 'def f(a, b):\n  return [a + b, a * b]\nassert f(1, 2) == 3\n',
  'main block': (
    'def f(a, b):\n  return [a + b, a * b]\nif __name__ == "__main__":\n  print(f(*input()))'
  ),
  'examples that read': 'def f(a, b):\n  return [a + b, a * b]\nprint(f(int(input()), 2))',
  'examples that exit': 'import sys\ndef f(a, b):\n  return [a + b, a * b]\nsys.exit(f(1, 2))',
  'doctest': (
    'def f(a, b):\n  """\n  >>> f(1, 2)\n  [3, 2]\n  """\n  return [a + b, a * b]\n'
    'import doctest\ndoctest.testmod()'
  ),
  'unittest': """
import unittest
def f(a, b):
  return [a + b, a * b]
class Test(unittest.TestCase):
  def test(self):
    self.assertEqual(f(1, 2), 3)
unittest.main()
""",
  'assigned in two': 'def g(a, b):\n  return [a + b, a * b]\nf, h = g, None',
  'in a condition': (
    'try:\n  import nothing\nexcept ImportError:\n  def f(a, b):\n    return [a + b, a * b]'
  ),
  'imports in it': """
def f(a, b):
  import operator, itertools, collections, heapq, bisect, math, re, string
  return [operator.add(a, b), math.prod((a, b))]
""",
  'exec': "exec('def f(a, b): return [a + b, a * b]')",
  'a large value between': 'def f(a, b):\n  x = 10 ** 20000\n  return [a + b + x - x, a * b]',
  'a warning': 'def f(a, b):\n  x = "\\d"\n  assert 1 is not 2\n  return [a + b, a * b]',
  'tabs and returns': 'def f(a, b):\r\n\treturn [a + b,\r\n\t\ta * b]\r\n',
  'a type of its own': (
    'import typing\nT = typing.TypeVar("T")\nclass G(typing.Generic[T]):\n'
    '  def f(self, a: T, b: T):\n    return [a + b, a * b]\nf = G[int]().f'
  ),
  'swaps its arguments': 'def f(a, b):\n  a, b = b, a\n  return list((a + b, a * b))',
  'closes stdout': (
    'import os, sys\ndef f(a, b):\n  sys.stdout = open(os.devnull, "w")\n  return [a + b, a * b]'
  ),
  'a random one': (
    'import random, time\nrandom.seed(time.time())\ndef f(a, b):\n  random.random()\n'
    '  return [a + b, a * b]'
  ),
  'collects': 'import gc\ndef f(a, b):\n  gc.collect()\n  gc.freeze()\n  return [a + b, a * b]',
}  # fmt: skip

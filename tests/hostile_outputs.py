"""Hostile programs like those of hostile.py: outputs that are too much, or no values."""

_NESTED = """
def nested():
  value = []
  for _ in range(100000):
    value = [value]
  return value
"""

OUTPUTS = {
  'flood': """
import os
def attack():
  while True:
    for fd in range(1, 64):
      try:
        os.write(fd, b'x' * (1 << 16))
      except OSError:
        pass
""",
  'flood of lines': """
import os
def attack():
  while True:
    for fd in range(1, 64):
      try:
        os.write(fd, b'{{"ok": 1}}\\n' * 5000)
      except OSError:
        pass
""",
  'nested': _NESTED + 'def attack():\n  return nested()',
  'nested by hand': """
import os
def attack():
  for fd in range(1, 64):
    try:
      os.write(fd, b'{{"ok": ' + b'[' * 50000 + b']' * 50000 + b'}}\\n')
    except OSError:
      pass
""",
  'in itself': 'def attack():\n  value = []\n  value.append(value)\n  return value',
  'giant text': 'def attack():\n  return "x" * (1 << 28)',
  'giant repr': """
def attack():
  class Big:
    def __repr__(self):
      return 'x' * (1 << 30)
    __str__ = __repr__
  raise ValueError(Big())
""",
  'giant int': 'def attack():\n  return 1 << (1 << 26)',
  'giant decimal': 'import decimal\ndef attack():\n  return decimal.Decimal("1e99999999999999")',
  'endless iterator': 'import itertools\ndef attack():\n  return itertools.count()',
  'one hash': 'def attack():\n  return {{i * (2 ** 61 - 1) for i in range(1, 3000)}}',
  'not a number': 'def attack():\n  return float("nan")',
  'surrogates': 'def attack():\n  print("\\udc80")\n  return "\\udc80" * 1000',
  'late exception': """
def attack():
  class Late(BaseException):
    def __str__(self):
      raise Late()
  raise Late()
""",
}

"""Files of data sets, of our own making, and task groups that read them."""

import gzip
import json
import pathlib

GSM8K = [
  {'question': f'{a} apples and {b} more?', 'answer': f'{a} + {b} = {a + b}.\n#### {a + b}'}
  for a, b in ((1, 2), (3, 4), (5, 6))
]


def write_lines(path: pathlib.Path, lines) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  if path.suffix == '.gz':
    path.write_bytes(gzip.compress(text.encode()))
  else:
    path.write_text(text)
  return path


def task(name, path='', **more):
  given = {'name': name, 'path': str(path), 'split': '', 'params': {}, 'limit': 0, 'holdout': 0}
  return given | {'fields': {}, 'verifier': '', 'template': 'raw', 'self_check': 'off'} | more


def gsm8k(folder: pathlib.Path) -> pathlib.Path:
  write_lines(folder / 'train.jsonl', GSM8K)
  write_lines(folder / 'test.jsonl', GSM8K[::-1])
  return folder

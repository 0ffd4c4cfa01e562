"""Every config and function that docs/paper_map.md names is there."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAP = (ROOT / 'docs' / 'paper_map.md').read_text()


def test_every_figure_and_table_has_a_row():
  rows = re.findall(r'^\| ((?:Fig|Table|App)[^|]*)\|', MAP, re.MULTILINE)
  named = set()
  for row in rows:
    numbers = [int(n) for n in re.findall(r'\d+', row)]
    if ' to ' in row:
      numbers = list(range(numbers[0], numbers[1] + 1))
    named |= {(row.split()[0].rstrip('s.'), n) for n in numbers}
  assert {('Fig', n) for n in range(1, 28)} <= named
  assert {('Table', n) for n in range(1, 6)} <= named


def test_functions_that_are_named_exist():
  for path, name in re.findall(r'`(rlvr_jax/\S+?\.py)(?::(\w+))?`', MAP):
    assert (ROOT / path).is_file(), path
    if name:
      body = ast.parse((ROOT / path).read_text()).body
      defined = {one.name for one in body if isinstance(one, ast.FunctionDef | ast.ClassDef)}
      assert name in defined, f'{path}:{name}'


def test_configs_that_are_named_exist():
  for name in re.findall(r'`(\w+\.py)(?::\w+)?`', MAP):
    assert (ROOT / 'configs' / name).is_file(), name

r"""Variants of words, letters, tuples, intervals, matrices, equations. See math_variants.py."""

import re


def _items(text: str) -> list[str]:
  """What the commas outside of all brackets part."""
  items, depth = [''], 0
  for character in text:
    depth += (character in '([{') - (character in ')]}')
    if character == ',' and not depth:
      items.append('')
    else:
      items[-1] += character
  return [item.strip() for item in items]


def choice_right(gold, match):
  letter = match[1]
  yield 'bare', letter
  yield 'brackets', f'({letter})'
  yield 'text', f'\\text{{{letter}}}'
  yield 'both', f'\\text{{({letter})}}'
  yield 'bold', f'\\textbf{{({letter})}}'


def choice_wrong(gold, match):
  other = 'BCDEA'['ABCDE'.index(match[1])]
  yield 'other', other
  yield 'other brackets', f'\\text{{({other})}}'
  yield 'either', f'({match[1]}) or ({other})'
  yield 'number', '42'


def text_right(gold, match):
  word = match[1]
  for command in ('text', 'mathrm', 'textbf', 'mbox', 'textit'):
    yield command, f'\\{command}{{{word}}}'
  yield 'bare', word
  yield 'lower', f'\\text{{{word.lower()}}}'
  yield 'upper', word.upper()


def text_wrong(gold, match):
  word = match[1]
  if word.lower() != word.lower()[::-1]:
    yield 'backwards', f'\\text{{{word[::-1]}}}'
  yield 'other', '\\text{Zeno}'
  yield 'number', '42'
  yield 'several', f'\\text{{{word} or Zeno}}'


def base_right(gold, match):
  yield 'braced', f'{match[1]}_{{{match[2]}}}'
  yield 'text', f'{match[1]}_{{\\text{{{match[2]}}}}}'
  yield 'unicode', match[1] + '_' + match[2]


def base_wrong(gold, match):
  changed = match[1][:-1] + str((int(match[1][-1]) + 1) % 10)
  yield 'digits', f'{changed}_{match[2]}'
  yield 'base', f'{match[1]}_{int(match[2]) + 1}'


def complex_right(gold, match):
  real, sign, imaginary = match.groups()
  yield 'spaced', f'{real} {sign} {imaginary}i'
  yield 'swapped', f'{"-" if sign == "-" else ""}{imaginary}i + {real}'
  yield 'cdot', f'{real} {sign} {imaginary}\\cdot i'


def complex_wrong(gold, match):
  real, sign, imaginary = match.groups()
  if int(imaginary):
    yield 'conjugate', f'{real}{"+" if sign == "-" else "-"}{imaginary}i'
  yield 'real', f'{int(real) + 1}{sign}{imaginary}i'


def plus_minus_right(gold, match):
  yield 'split', f'{match[1]} + {match[2]}, {match[1]} - {match[2]}'
  yield 'swapped', f'{match[1]} - {match[2]} \\text{{ and }} {match[1]} + {match[2]}'


def plus_minus_wrong(gold, match):
  yield 'plus', f'{match[1]} + {match[2]}'
  yield 'minus', f'{match[1]} - {match[2]}'
  yield 'other', f'{int(match[1]) + 1} \\pm {match[2]}'


def _rows(body: str) -> list[list[str]]:
  rows = [row for row in body.split('\\\\') if row.strip()]
  return [[cell.strip() for cell in row.split('&')] for row in rows]


def _joined(rows: list[list[str]], begin='\\begin{pmatrix}', end='\\end{pmatrix}') -> str:
  body = ' \\\\ '.join(' & '.join(row) for row in rows)
  return f'{begin} {body} {end}'


def matrix_right(gold, match):
  rows = _rows(match[1])
  yield 'tight', gold.replace(' & ', '&').replace(' \\\\ ', '\\\\')
  yield 'square', _joined(rows, '\\begin{bmatrix}', '\\end{bmatrix}')
  columns = 'c' * len(rows[0])
  yield 'array', _joined(rows, f'\\left( \\begin{{array}}{{{columns}}}', '\\end{array} \\right)')


def matrix_wrong(gold, match):
  rows = _rows(match[1])
  yield 'cell', _joined([*rows[:-1], [*rows[-1][:-1], '987']])
  turned = [list(column) for column in zip(*rows, strict=False)]
  if turned != rows:
    yield 'turned', _joined(turned)


def union_right(gold, match):
  yield 'swapped', f'{match[2]} \\cup {match[1]}'
  yield 'U', f'{match[1]} U {match[2]}'
  yield 'unicode', f'{match[1]} \u222a {match[2]}'.replace('\\infty', '∞')
  yield 'or', f'{match[1]} \\text{{ or }} {match[2]}'
  yield 'in', f'x \\in {gold}'


def union_wrong(gold, match):
  yield 'cap', f'{match[1]} \\cap {match[2]}'
  yield 'first', match[1]
  yield 'second', match[2]
  ends = {'(': '[', '[': '('}
  flipped = re.sub(r'(?<=cup )([(\[])', lambda m: ends[m[1]], f'{match[1]} \\cup {match[2]}')
  yield 'end', flipped


def interval_right(gold, match):
  inner = gold[1:-1].split(',')
  yield 'left', f'\\left{gold[0]} {inner[0]}, {inner[1]} \\right{gold[-1]}'
  yield 'in', f'x \\in {gold}'
  yield 'unicode in', f'x ∈ {gold}'.replace('\\infty', '∞').replace('\\pi', 'π')


def interval_wrong(gold, match):
  low, high = gold[1:-1].split(',')
  ends = {'(': '[', '[': '(', ')': ']', ']': ')'}
  yield 'low end', f'{ends[gold[0]]}{low},{high}{gold[-1]}'
  yield 'high end', f'{gold[0]}{low},{high}{ends[gold[-1]]}'
  if 'infty' not in high:
    yield 'high', f'{gold[0]}{low},{high}+1{gold[-1]}'
  if 'infty' not in low:
    yield 'low', f'{gold[0]}{low}-1,{high}{gold[-1]}'


def tuple_right(gold, match):
  items = _items(match[1])
  yield 'spaced', f'\\left( {", ".join(items)} \\right)'
  names = 'xyzabcdefgh'[: len(items)]
  yield 'names', f'({",".join(names)}) = {gold}'


def tuple_wrong(gold, match):
  items = _items(match[1])
  if items != items[::-1]:
    yield 'swapped', f'({", ".join(reversed(items))})'
  yield 'changed', f'({", ".join([*items[:-1], "987"])})'
  yield 'missing', f'({", ".join(items[:-1])})' if len(items) > 2 else items[0]
  yield 'extra', f'({", ".join([*items, "987"])})'


def list_right(gold, match):
  items = _items(gold)
  if len(items) < 2:
    return
  yield 'reversed', ', '.join(reversed(items))
  yield 'braces', f'\\{{{", ".join(reversed(items))}\\}}'
  yield 'and', f'{", ".join(items[:-1])} \\text{{ and }} {items[-1]}'
  yield 'or', ' or '.join(items)
  yield 'names', ', '.join(f'x = {item}' for item in items)


def list_wrong(gold, match):
  items = _items(gold)
  if len(items) < 2:
    return
  yield 'missing', ', '.join(items[1:])
  yield 'extra', ', '.join([*items, '987'])
  yield 'changed', ', '.join([*items[:-1], '987'])
  if all(item.isdigit() for item in items):
    yield 'digits', ''.join(items)


def equation_right(gold, match):
  left, equal = match[1].strip(), match[2].strip()
  yield 'swapped', f'{equal} = {left}'
  yield 'scaled', f'3({left}) = 3({equal})'
  yield 'moved', f'({left}) - ({equal}) = 0'
  yield 'negated', f'-({left}) = -({equal})'


def equation_wrong(gold, match):
  left, equal = match[1].strip(), match[2].strip()
  yield 'constant', f'{left} = {equal} + 1'
  yield 'zero', f'2({left}) = 2({equal}) + 5'
  yield 'one side scaled', f'{left} = 2({equal}) + 987'


def expression_right(gold, match):
  yield 'brackets', f'({gold})'
  yield 'halved', f'\\frac{{2({gold})}}{{2}}'
  yield 'plus zero', f'{gold} + 0'
  yield 'minus minus', f'-(-({gold}))'
  yield 'shifted', f'({gold} + 7) - 7'
  if not re.search(r'\\(?:sqrt|frac)?\d', gold) and ' ' in gold:
    yield 'tight', re.sub(r'(?<![a-zA-Z]) | (?![a-zA-Z])', '', gold)
  if re.search('x', gold):
    yield 'f', f'f(x) = {gold}'


def expression_wrong(gold, match):
  yield 'plus one', f'{gold} + 1'
  yield 'doubled plus one', f'2({gold}) + 1'
  yield 'negated minus', f'-({gold}) - 987'
  if re.search(r'(?<![a-z\\])x(?![a-z])', gold):
    yield 'renamed', re.sub(r'(?<![a-z\\])x(?![a-z])', 'w', gold)

r"""Right and wrong answers made from a gold one, by its kind, and completions around them.

Nothing here knows the verifier: a variant is right or wrong by how it was made. Used on the golds
of real benchmarks (make check) and on a few of our own making.
"""

import re
from collections.abc import Iterator

INTEGER = re.compile(r'-?(?:\d{1,3}(?:,(?:\\!)?\d{3})+|\d+)')
_SPAN = r'[(\[][^()\[\]]+,[^()\[\]]+[)\]]'
_PAIR = r'[^()\[\]{},]+,[^()\[\]{},]+'
_OTHER = r'[,=<>%$_]|\\text|\\mbox|\\begin|\\circ|infty|\\in|\\pm'
KINDS = (
  ('integer', INTEGER),
  ('decimal', re.compile(r'-?\d*\.\d+')),
  ('scientific', re.compile(r'-?(\d+(?:\.\d+)?)e([+-]?\d+)')),
  ('fraction', re.compile(r'(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}')),
  ('mixed', re.compile(r'(\d+)\\frac\{(\d+)\}\{(\d+)\}')),
  ('radical', re.compile(r'(\d*)\\sqrt\{(\d+)\}')),
  ('pi', re.compile(r'(\d+)\\pi')),
  ('percent', re.compile(r'(\d+(?:\.\d+)?)\\%')),
  ('money', re.compile(r'\\\$(\d+(?:\.\d+)?)')),
  ('degrees', re.compile(r'(\d+)\s*\^\\circ')),
  ('units', re.compile(r'(-?\d+)\s*\\(?:text|mbox)\{ ?([a-z ]{3,})\}')),
  ('choice', re.compile(r'\\text\{\(?([A-E])\)?\}')),
  ('text', re.compile(r'\\(?:text|mbox)\{([A-Za-z]{3,})\}')),
  ('base', re.compile(r'(\d+)_\{?(\d+)\}?')),
  ('complex', re.compile(r'(-?\d+)\s*([+-])\s*(\d+)i')),
  ('plus_minus', re.compile(r'(-?\d+)\s*\\pm\s*([^,]+)')),
  ('matrix', re.compile(r'\\begin\{pmatrix\}(.*)\\end\{pmatrix\}', re.DOTALL)),
  ('union', re.compile(rf'({_SPAN})\s*\\cup\s*({_SPAN})')),
  ('interval', re.compile(rf'\[{_PAIR}[)\]]|\({_PAIR}\]')),
  ('tuple', re.compile(r'\(([^()\[\]{}]+,[^()\[\]{}]+)\)')),
  ('list', re.compile(r'(?!.*(?:[{}()\[\]=]|\\!))[^,]+(?:,\s*[^,]+)+')),
  ('equation', re.compile(r'(?!.*[,<>])([^=]+)=([^=]+)')),
  ('expression', re.compile(rf'(?!.*(?:{_OTHER}))(?=.*[a-z0-9]).+')),
)  # fmt: skip


def kind_of(gold: str) -> tuple[str, re.Match[str]] | None:
  """The kind of a gold answer and its match; None for what no kind holds."""
  for kind, pattern in KINDS:
    if match := pattern.fullmatch(gold.strip('$ ')):
      return kind, match
  return None


def right(gold: str) -> Iterator[tuple[str, str]]:
  """(name of the variant, an equal answer)."""
  found = kind_of(gold)
  bare = gold.strip('$ ')
  yield 'same', bare
  if found:
    kind, match = found
    yield from ((f'{kind} {name}', text) for name, text in _RIGHT[kind](bare, match))


def wrong(gold: str) -> Iterator[tuple[str, str]]:
  """(name of the variant, an unequal answer)."""
  found = kind_of(gold)
  if found:
    kind, match = found
    bare = gold.strip('$ ')
    made = dict.fromkeys(_WRONG[kind](bare, match))
    yield from ((f'{kind} {name}', text) for name, text in made if text != bare)


def _integer_of(text: str) -> int:
  return int(re.sub(r',|\\!', '', text))


def _integer_right(gold, match):
  value = _integer_of(gold)
  yield 'plain', str(value)
  yield 'zero', f'{value}.0'
  yield 'name', f'x = {value}'
  yield 'text', f'\\text{{{value}}}'
  yield 'bold', f'\\mathbf{{{value}}}'
  yield 'words', f'\\text{{The answer is }} {value}'
  yield 'sum', f'{value - 3} + 3 = {value}'
  yield 'fraction', f'\\frac{{{2 * value}}}{{2}}'
  yield 'dollars', f'${value}$'
  if value < 0:
    yield 'unicode minus', f'\N{MINUS SIGN}{-value}'
  if abs(value) > 999:
    for name, mark in (('comma', ','), ('braced', '{,}'), ('thin', '\\,'), ('latex', ',\\!')):
      yield name, f'{value:,}'.replace(',', mark)


def _integer_wrong(gold, match):
  value = _integer_of(gold)
  yield 'next', str(value + 1)
  yield 'before', str(value - 1)
  yield 'half', f'{value}.5'
  yield 'pair', f'{value}, {value + 1}'
  yield 'or', f'{value + 1} \\text{{ or }} {value}'
  yield 'million', f'{value or 1} \\text{{ million}}'
  yield 'chain', f'x = {value} = {value + 2}'
  if value:
    yield 'negated', str(-value)
    yield 'hundredfold', str(100 * value)
    yield 'hundredth', f'{value / 100:.15g}' if abs(value) < 10**12 else '0.5'
    yield 'power', f'{value} \\cdot 10^{{1}}'


def _decimal_right(gold, match):
  yield 'zero', f'{gold}0'
  yield 'name', f'k = {gold}'
  if gold.lstrip('-').startswith('0.'):
    yield 'no zero', gold.replace('0.', '.', 1)


def _decimal_wrong(gold, match):
  value = float(gold)
  yield 'percent off', f'{value * 1.02 + 0.5:.6f}'
  yield 'negated', gold.removeprefix('-') if gold.startswith('-') else f'-{gold}'
  if value:
    yield 'hundredfold', f'{value * 100:.10g}'


def _scientific_right(gold, match):
  digits, power = match[1], int(match[2])
  sign = '-' if gold.startswith('-') else ''
  yield 'times', f'{sign}{digits} \\times 10^{{{power}}}'
  yield 'unicode', f'{sign}{digits}\u00d710^{power}'
  raised = str(power).translate(str.maketrans('0123456789-', '⁰¹²³⁴⁵⁶⁷⁸⁹⁻'))
  yield 'superscript', f'{sign}{digits} \u00d7 10{raised}'
  yield 'cdot', f'{sign}{digits}\\cdot10^{{{power}}}'
  yield 'unit', f'{sign}{digits} \\times 10^{{{power}}} \\text{{ m}}'
  yield 'mathrm unit', f'{sign}{digits} \\times 10^{{{power}}} \\mathrm{{~erg/s}}'
  yield 'capital', f'{sign}{digits}E{power}'


def _scientific_wrong(gold, match):
  digits, power = match[1], int(match[2])
  yield 'power', f'{digits} \\times 10^{{{power + 1}}}'
  yield 'power sign', f'{digits} \\times 10^{{{-power or 3}}}'
  yield 'digits', f'{float(digits) * 1.1:.4g} \\times 10^{{{power}}}'


def _fraction_right(gold, match):
  sign, top, bottom = match[1], int(match[2]), int(match[3])
  yield 'dfrac', f'{sign}\\dfrac{{{top}}}{{{bottom}}}'
  yield 'tfrac', f'{sign}\\tfrac{{{top}}}{{{bottom}}}'
  yield 'slash', f'{sign}{top}/{bottom}'
  yield 'unreduced', f'{sign}\\frac{{{3 * top}}}{{{3 * bottom}}}'
  yield 'inside', f'\\frac{{{sign}{top}}}{{{bottom}}}'
  yield 'unicode slash', f'{sign}{top}\u2044{bottom}'
  yield 'name', f'P(A) = {gold}'
  yield 'decimal', f'{gold} \\approx {float(f"{sign}{top}") / bottom:.4f}'
  if top < 10 and bottom < 10:
    yield 'braceless', f'{sign}\\frac{top}{bottom}'
  if top > bottom and top % bottom:
    yield 'mixed', f'{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}'


def _fraction_wrong(gold, match):
  sign, top, bottom = match[1], int(match[2]), int(match[3])
  yield 'sign', f'\\frac{{{top}}}{{{bottom}}}' if sign else f'-{gold}'
  yield 'next', f'{sign}\\frac{{{top + 1}}}{{{bottom}}}'
  if top != bottom:
    yield 'inverted', f'{sign}\\frac{{{bottom}}}{{{top}}}'
  rounded = f'{top / bottom:.2f}'
  if abs(float(rounded) - top / bottom) > 1e-9:
    yield 'rounded', f'{sign}{rounded}'
  yield 'two', f'{gold} \\text{{ or }} {top}'


def _mixed_right(gold, match):
  whole, top, bottom = map(int, match.groups())
  yield 'improper', f'\\frac{{{whole * bottom + top}}}{{{bottom}}}'
  yield 'slash', f'{whole} {top}/{bottom}'
  yield 'sum', f'{whole} + \\frac{{{top}}}{{{bottom}}}'


def _mixed_wrong(gold, match):
  whole, top, bottom = map(int, match.groups())
  yield 'product', f'\\frac{{{whole * top}}}{{{bottom}}}'
  yield 'next', f'{whole + 1}\\frac{{{top}}}{{{bottom}}}'


def _radical_right(gold, match):
  factor, radicand = int(match[1] or 1), int(match[2])
  head = match[1]
  yield 'cdot', f'{factor}\\cdot\\sqrt{{{radicand}}}'
  yield 'swapped', f'\\sqrt{{{radicand}}} \\times {factor}'
  yield 'inside', f'\\sqrt{{{factor * factor * radicand}}}'
  yield 'unicode', f'{head}√{radicand}'
  yield 'unicode brackets', f'{head}√({radicand})'
  yield 'power', f'{factor} \\cdot {radicand}^{{1/2}}'
  if head != '1':
    yield 'braceless', f'{head}\\sqrt{radicand}' if radicand < 10 else gold


def _radical_wrong(gold, match):
  factor, radicand = int(match[1] or 1), int(match[2])
  yield 'factor', f'{factor + 1}\\sqrt{{{radicand}}}'
  yield 'radicand', f'{factor}\\sqrt{{{radicand + 1}}}'
  yield 'decimal', f'{factor * radicand**0.5:.2f}'
  yield 'squared', str(factor * factor * radicand + 1)


def _pi_right(gold, match):
  factor = match[1]
  yield 'unicode', f'{factor}π'
  yield 'cdot', f'{factor} \\cdot \\pi'
  yield 'swapped', f'\\pi \\cdot {factor}'
  yield 'unit', f'{factor}\\pi \\text{{ square units}}'
  yield 'comma', f'{int(factor):,}\\pi'


def _pi_wrong(gold, match):
  yield 'factor', f'{int(match[1]) + 1}\\pi'
  yield 'decimal', f'{int(match[1]) * 3.14:.2f}'
  yield 'squared', f'{match[1]}\\pi^2'


def _percent_right(gold, match):
  yield 'unescaped', f'{match[1]}%'
  yield 'word', f'{match[1]}\\text{{ percent}}'


def _percent_wrong(gold, match):
  yield 'next', f'{float(match[1]) + 1:g}\\%'
  yield 'hundredfold', f'{float(match[1]) * 100:g}\\%'


def _money_right(gold, match):
  yield 'bare', match[1]
  yield 'sign', f'\\${match[1]}'
  yield 'words', f'{match[1]}\\text{{ dollars}}'


def _money_wrong(gold, match):
  yield 'cents', f'{float(match[1]) * 100:g}'
  yield 'next', f'\\${float(match[1]) + 1:.2f}'


def _degrees_right(gold, match):
  yield 'bare', match[1]
  yield 'unicode', f'{match[1]}°'
  yield 'braced', f'{match[1]}^{{\\circ}}'
  yield 'word', f'{match[1]}\\text{{ degrees}}'
  yield 'name', f'\\angle ABC = {match[1]}^\\circ'


def _degrees_wrong(gold, match):
  yield 'next', f'{int(match[1]) + 1}^\\circ'
  yield 'radians', f'\\frac{{{match[1]}\\pi}}{{90}}'


def _units_right(gold, match):
  yield 'bare', match[1]
  yield 'plain', f'{match[1]} {match[2]}'
  yield 'mathrm', f'{match[1]}\\ \\mathrm{{{match[2].replace(" ", "~")}}}'


def _units_wrong(gold, match):
  yield 'next', f'{int(match[1]) + 1}\\text{{ {match[2]}}}'
  yield 'hundredfold', f'{int(match[1]) * 100 or 7}\\text{{ {match[2]}}}'


def _choice_right(gold, match):
  letter = match[1]
  yield 'bare', letter
  yield 'brackets', f'({letter})'
  yield 'text', f'\\text{{{letter}}}'
  yield 'both', f'\\text{{({letter})}}'
  yield 'bold', f'\\textbf{{({letter})}}'


def _choice_wrong(gold, match):
  other = 'BCDEA'['ABCDE'.index(match[1])]
  yield 'other', other
  yield 'other brackets', f'\\text{{({other})}}'
  yield 'either', f'({match[1]}) or ({other})'
  yield 'number', '42'


def _text_right(gold, match):
  word = match[1]
  for command in ('text', 'mathrm', 'textbf', 'mbox', 'textit'):
    yield command, f'\\{command}{{{word}}}'
  yield 'bare', word
  yield 'lower', f'\\text{{{word.lower()}}}'
  yield 'upper', word.upper()


def _text_wrong(gold, match):
  word = match[1]
  if word.lower() != word.lower()[::-1]:
    yield 'backwards', f'\\text{{{word[::-1]}}}'
  yield 'other', '\\text{Zeno}'
  yield 'number', '42'
  yield 'several', f'\\text{{{word} or Zeno}}'


def _base_right(gold, match):
  yield 'braced', f'{match[1]}_{{{match[2]}}}'
  yield 'text', f'{match[1]}_{{\\text{{{match[2]}}}}}'
  yield 'unicode', match[1] + '_' + match[2]


def _base_wrong(gold, match):
  changed = match[1][:-1] + str((int(match[1][-1]) + 1) % 10)
  yield 'digits', f'{changed}_{match[2]}'
  yield 'base', f'{match[1]}_{int(match[2]) + 1}'


def _complex_right(gold, match):
  real, sign, imaginary = match.groups()
  yield 'spaced', f'{real} {sign} {imaginary}i'
  yield 'swapped', f'{"-" if sign == "-" else ""}{imaginary}i + {real}'
  yield 'cdot', f'{real} {sign} {imaginary}\\cdot i'


def _complex_wrong(gold, match):
  real, sign, imaginary = match.groups()
  if int(imaginary):
    yield 'conjugate', f'{real}{"+" if sign == "-" else "-"}{imaginary}i'
  yield 'real', f'{int(real) + 1}{sign}{imaginary}i'


def _plus_minus_right(gold, match):
  yield 'split', f'{match[1]} + {match[2]}, {match[1]} - {match[2]}'
  yield 'swapped', f'{match[1]} - {match[2]} \\text{{ and }} {match[1]} + {match[2]}'


def _plus_minus_wrong(gold, match):
  yield 'plus', f'{match[1]} + {match[2]}'
  yield 'minus', f'{match[1]} - {match[2]}'
  yield 'other', f'{int(match[1]) + 1} \\pm {match[2]}'


def _rows(body: str) -> list[list[str]]:
  rows = [row for row in body.split('\\\\') if row.strip()]
  return [[cell.strip() for cell in row.split('&')] for row in rows]


def _joined(rows: list[list[str]], begin='\\begin{pmatrix}', end='\\end{pmatrix}') -> str:
  body = ' \\\\ '.join(' & '.join(row) for row in rows)
  return f'{begin} {body} {end}'


def _matrix_right(gold, match):
  rows = _rows(match[1])
  yield 'tight', gold.replace(' & ', '&').replace(' \\\\ ', '\\\\')
  yield 'square', _joined(rows, '\\begin{bmatrix}', '\\end{bmatrix}')
  columns = 'c' * len(rows[0])
  yield 'array', _joined(rows, f'\\left( \\begin{{array}}{{{columns}}}', '\\end{array} \\right)')


def _matrix_wrong(gold, match):
  rows = _rows(match[1])
  yield 'cell', _joined([*rows[:-1], [*rows[-1][:-1], '987']])
  turned = [list(column) for column in zip(*rows, strict=False)]
  if turned != rows:
    yield 'turned', _joined(turned)


def _union_right(gold, match):
  yield 'swapped', f'{match[2]} \\cup {match[1]}'
  yield 'U', f'{match[1]} U {match[2]}'
  yield 'unicode', f'{match[1]} \u222a {match[2]}'.replace('\\infty', '∞')
  yield 'or', f'{match[1]} \\text{{ or }} {match[2]}'
  yield 'in', f'x \\in {gold}'


def _union_wrong(gold, match):
  yield 'cap', f'{match[1]} \\cap {match[2]}'
  yield 'first', match[1]
  yield 'second', match[2]
  ends = {'(': '[', '[': '('}
  flipped = re.sub(r'(?<=cup )([(\[])', lambda m: ends[m[1]], f'{match[1]} \\cup {match[2]}')
  yield 'end', flipped


def _interval_right(gold, match):
  inner = gold[1:-1].split(',')
  yield 'left', f'\\left{gold[0]} {inner[0]}, {inner[1]} \\right{gold[-1]}'
  yield 'in', f'x \\in {gold}'
  yield 'unicode in', f'x ∈ {gold}'.replace('\\infty', '∞').replace('\\pi', 'π')


def _interval_wrong(gold, match):
  low, high = gold[1:-1].split(',')
  ends = {'(': '[', '[': '(', ')': ']', ']': ')'}
  yield 'low end', f'{ends[gold[0]]}{low},{high}{gold[-1]}'
  yield 'high end', f'{gold[0]}{low},{high}{ends[gold[-1]]}'
  if 'infty' not in high:
    yield 'high', f'{gold[0]}{low},{high}+1{gold[-1]}'
  if 'infty' not in low:
    yield 'low', f'{gold[0]}{low}-1,{high}{gold[-1]}'


def _tuple_right(gold, match):
  items = [item.strip() for item in match[1].split(',')]
  yield 'spaced', f'\\left( {", ".join(items)} \\right)'
  names = 'xyzabcdefgh'[: len(items)]
  yield 'names', f'({",".join(names)}) = {gold}'


def _tuple_wrong(gold, match):
  items = [item.strip() for item in match[1].split(',')]
  if items != items[::-1]:
    yield 'swapped', f'({", ".join(reversed(items))})'
  yield 'changed', f'({", ".join([*items[:-1], "987"])})'
  yield 'missing', f'({", ".join(items[:-1])})' if len(items) > 2 else items[0]
  yield 'extra', f'({", ".join([*items, "987"])})'


def _list_right(gold, match):
  items = [item.strip() for item in gold.split(',')]
  yield 'reversed', ', '.join(reversed(items))
  yield 'braces', f'\\{{{", ".join(reversed(items))}\\}}'
  yield 'and', f'{", ".join(items[:-1])} \\text{{ and }} {items[-1]}'
  yield 'or', ' or '.join(items)
  yield 'names', ', '.join(f'x = {item}' for item in items)


def _list_wrong(gold, match):
  items = [item.strip() for item in gold.split(',')]
  yield 'missing', ', '.join(items[1:])
  yield 'extra', ', '.join([*items, '987'])
  yield 'changed', ', '.join([*items[:-1], '987'])
  if all(item.isdigit() for item in items):
    yield 'digits', ''.join(items)


def _equation_right(gold, match):
  left, equal = match[1].strip(), match[2].strip()
  yield 'swapped', f'{equal} = {left}'
  yield 'scaled', f'3({left}) = 3({equal})'
  yield 'moved', f'({left}) - ({equal}) = 0'
  yield 'negated', f'-({left}) = -({equal})'


def _equation_wrong(gold, match):
  left, equal = match[1].strip(), match[2].strip()
  yield 'constant', f'{left} = {equal} + 1'
  yield 'zero', f'2({left}) = 2({equal}) + 5'
  yield 'one side scaled', f'{left} = 2({equal}) + 1'


def _expression_right(gold, match):
  yield 'brackets', f'({gold})'
  yield 'halved', f'\\frac{{2({gold})}}{{2}}'
  yield 'plus zero', f'{gold} + 0'
  yield 'minus minus', f'-(-({gold}))'
  yield 'shifted', f'({gold} + 7) - 7'
  if not re.search(r'\\(?:sqrt|frac)?\d', gold) and ' ' in gold:
    yield 'tight', re.sub(r'(?<![a-zA-Z]) | (?![a-zA-Z])', '', gold)
  if re.search('x', gold):
    yield 'f', f'f(x) = {gold}'


def _expression_wrong(gold, match):
  yield 'plus one', f'{gold} + 1'
  yield 'doubled plus one', f'2({gold}) + 1'
  yield 'negated minus', f'-({gold}) - 987'
  if re.search(r'(?<![a-z\\])x(?![a-z])', gold):
    yield 'renamed', re.sub(r'(?<![a-z\\])x(?![a-z])', 'w', gold)


_RIGHT = {kind: globals()[f'_{kind}_right'] for kind, _ in KINDS}
_WRONG = {kind: globals()[f'_{kind}_wrong'] for kind, _ in KINDS}

AROUND = (
  ('box', 'Let us compute 2+3=5.\n\nSo the final answer is $\\boxed{ANSWER}$.'),
  ('display', 'Therefore, the answer is:\n\\[\n\\boxed{ANSWER}\n\\]'),
  ('paren', 'Thus the value is \\(\\boxed{ANSWER}\\).'),
  ('think', '<think>\nPerhaps \\boxed{0}?\n</think>\nThe answer is \\boxed{ANSWER}'),
  ('chatter', '\\boxed{ANSWER}. Let me know if you want 12 more examples!'),
  ('second box', 'At first \\boxed{1} seems right, but no. It is $\\boxed{ANSWER}$.'),
  ('tag', '<think>short</think> <answer> $ANSWER$ </answer>'),
  ('tag box', '<answer>\\boxed{ANSWER}</answer>'),
  ('answer line', 'We count the cases.\nAnswer: $ANSWER$'),
  ('bold', '**Final Answer:** $ANSWER$'),
  ('heading', '**Final Answer**\n\\[\nANSWER\n\\]'),
  ('phrase', 'We add everything up. The answer is $ANSWER$.'),
  ('Chinese', '所以答案是 $ANSWER$。'),
  ('fbox', 'The answer is $\\fbox{ANSWER}$.'),
)  # fmt: skip


def completion(answer: str, number: int) -> tuple[str, str]:
  """(name of the form, a completion that gives the answer), the forms in turn."""
  name, text = AROUND[number % len(AROUND)]
  plain = '$' not in answer or number % len(AROUND) < 6 or 'fbox' in name
  if not plain:
    name, text = AROUND[number % 6]
  return name, text.replace('ANSWER', answer)

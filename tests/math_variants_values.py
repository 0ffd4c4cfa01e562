r"""Variants of single values: numbers, roots, money, degrees, units. See math_variants.py."""

import re


def integer_of(text: str) -> int:
  return int(re.sub(r',|\\!', '', text))


def integer_right(gold, match):
  value = integer_of(gold)
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


def integer_wrong(gold, match):
  value = integer_of(gold)
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


def decimal_right(gold, match):
  yield 'zero', f'{gold}0'
  yield 'name', f'k = {gold}'
  if gold.lstrip('-').startswith('0.'):
    yield 'no zero', gold.replace('0.', '.', 1)


def decimal_wrong(gold, match):
  value = float(gold)
  yield 'percent off', f'{value * 1.02 + 0.5:.6f}'
  yield 'negated', gold.removeprefix('-') if gold.startswith('-') else f'-{gold}'
  if value:
    yield 'hundredfold', f'{value * 100:.10g}'


def scientific_right(gold, match):
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


def scientific_wrong(gold, match):
  digits, power = match[1], int(match[2])
  yield 'power', f'{digits} \\times 10^{{{power + 1}}}'
  yield 'power sign', f'{digits} \\times 10^{{{-power or 3}}}'
  yield 'digits', f'{float(digits) * 1.1:.4g} \\times 10^{{{power}}}'


def fraction_right(gold, match):
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


def fraction_wrong(gold, match):
  sign, top, bottom = match[1], int(match[2]), int(match[3])
  yield 'sign', f'\\frac{{{top}}}{{{bottom}}}' if sign else f'-{gold}'
  yield 'next', f'{sign}\\frac{{{top + 1}}}{{{bottom}}}'
  if top != bottom:
    yield 'inverted', f'{sign}\\frac{{{bottom}}}{{{top}}}'
  rounded = f'{top / bottom:.2f}'
  if abs(float(rounded) - top / bottom) > 1e-9:
    yield 'rounded', f'{sign}{rounded}'
  yield 'two', f'{gold} \\text{{ or }} {top}'


def mixed_right(gold, match):
  whole, top, bottom = map(int, match.groups())
  yield 'improper', f'\\frac{{{whole * bottom + top}}}{{{bottom}}}'
  yield 'slash', f'{whole} {top}/{bottom}'
  yield 'sum', f'{whole} + \\frac{{{top}}}{{{bottom}}}'


def mixed_wrong(gold, match):
  whole, top, bottom = map(int, match.groups())
  yield 'product', f'\\frac{{{whole * top}}}{{{bottom}}}'
  yield 'next', f'{whole + 1}\\frac{{{top}}}{{{bottom}}}'


def radical_right(gold, match):
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


def radical_wrong(gold, match):
  factor, radicand = int(match[1] or 1), int(match[2])
  yield 'factor', f'{factor + 1}\\sqrt{{{radicand}}}'
  yield 'radicand', f'{factor}\\sqrt{{{radicand + 1}}}'
  yield 'decimal', f'{factor * radicand**0.5:.2f}'
  yield 'squared', str(factor * factor * radicand + 1)


def pi_right(gold, match):
  factor = match[1]
  yield 'unicode', f'{factor}π'
  yield 'cdot', f'{factor} \\cdot \\pi'
  yield 'swapped', f'\\pi \\cdot {factor}'
  yield 'unit', f'{factor}\\pi \\text{{ square units}}'
  yield 'comma', f'{int(factor):,}\\pi'


def pi_wrong(gold, match):
  yield 'factor', f'{int(match[1]) + 1}\\pi'
  yield 'decimal', f'{int(match[1]) * 3.14:.2f}'
  yield 'squared', f'{match[1]}\\pi^2'


def percent_right(gold, match):
  yield 'unescaped', f'{match[1]}%'
  yield 'word', f'{match[1]}\\text{{ percent}}'


def percent_wrong(gold, match):
  yield 'next', f'{float(match[1]) + 1:g}\\%'
  yield 'hundredfold', f'{float(match[1]) * 100:g}\\%'


def money_right(gold, match):
  yield 'bare', match[1]
  yield 'sign', f'\\${match[1]}'
  yield 'words', f'{match[1]}\\text{{ dollars}}'


def money_wrong(gold, match):
  yield 'cents', f'{float(match[1]) * 100:g}'
  yield 'next', f'\\${float(match[1]) + 1:.2f}'


def degrees_right(gold, match):
  yield 'bare', match[1]
  yield 'unicode', f'{match[1]}°'
  yield 'braced', f'{match[1]}^{{\\circ}}'
  yield 'word', f'{match[1]}\\text{{ degrees}}'
  yield 'name', f'\\angle ABC = {match[1]}^\\circ'


def degrees_wrong(gold, match):
  yield 'next', f'{int(match[1]) + 1}^\\circ'
  yield 'radians', f'\\frac{{{match[1]}\\pi}}{{90}}'


def units_right(gold, match):
  yield 'bare', match[1]
  yield 'plain', f'{match[1]} {match[2]}'
  yield 'mathrm', f'{match[1]}\\ \\mathrm{{{match[2].replace(" ", "~")}}}'


def units_wrong(gold, match):
  yield 'next', f'{int(match[1]) + 1}\\text{{ {match[2]}}}'
  yield 'hundredfold', f'{int(match[1]) * 100 or 7}\\text{{ {match[2]}}}'

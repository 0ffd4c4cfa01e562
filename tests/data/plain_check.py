"""Verifiers for tests: a completion is correct if it holds the answer, spaces aside."""

import time


def check(problem, completion):
  return ''.join(problem.answer.split()) in ''.join(completion.split())


def slow_check(problem, completion):
  time.sleep(0.02)
  return check(problem, completion)


def starts(problem, completion):
  """For texts of tests/foreign_files.py: 'The answer is 7 (3).'"""
  return completion.startswith(f'The answer is {problem.answer} ')

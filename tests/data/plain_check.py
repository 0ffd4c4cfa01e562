"""Verifiers for tests: a completion is correct if it holds the answer, spaces aside."""

import time


def check(problem, completion):
  return ''.join(problem.answer.split()) in ''.join(completion.split())


def slow_check(problem, completion):
  time.sleep(0.02)
  return check(problem, completion)

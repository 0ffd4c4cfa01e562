"""A verifier for tests: the completion is correct if it holds the answer, spaces aside."""


def check(problem, completion):
  return ''.join(problem.answer.split()) in ''.join(completion.split())

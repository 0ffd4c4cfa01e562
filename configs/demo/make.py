"""Makes the tables of configs/demo.py: simulated counts, no model's. Run it to make them again:

  python configs/demo/make.py

200 problems, n = 512 draws of each by binomial chance. The base's solve rates are 0 with chance
0.05, else Beta(0.35, 1.2); the others are made from them, so what the report must find is known:

  sharpened  as if trained by RL: a rate p becomes p^0.6, but 50 problems are lost (rate 0): those
             with the lowest rates from 0.02 on, which the base solves within 128 draws as a rule
  distilled  a rate p becomes 0.8 p + 0.2 q with q from Beta(2, 2): higher rates, and problems that
             the base never solves become solvable
  same       the base's own rates, drawn anew: there is no difference to find
"""

import pathlib

import numpy as np

PROBLEMS, N, LOST, SEED = 200, 512, 50, 20260101
HEAD = (
  '# simulated by configs/demo/make.py (seed {seed}); no model was run\nproblem_id,n,c,verifier\n'
)


def solve_rates() -> dict[str, np.ndarray]:
  """True solve rates by model, f64[PROBLEMS]."""
  rng = np.random.default_rng(SEED)
  base = np.where(rng.uniform(size=PROBLEMS) < 0.05, 0.0, rng.beta(0.35, 1.2, PROBLEMS))
  sharpened = base**0.6
  solvable = np.flatnonzero(base >= 0.02)
  sharpened[solvable[np.argsort(base[solvable])[:LOST]]] = 0.0
  distilled = 0.8 * base + 0.2 * rng.beta(2.0, 2.0, PROBLEMS)
  return {'base': base, 'sharpened': sharpened, 'distilled': distilled, 'same': base.copy()}


def tables() -> dict[str, str]:
  """The CSV of every model."""
  found = {}
  for i, (name, rates) in enumerate(solve_rates().items()):
    c = np.random.default_rng([SEED, i]).binomial(N, rates)
    rows = (f'p{problem:03d},{N},{correct},simulated\n' for problem, correct in enumerate(c))
    found[name] = HEAD.format(seed=SEED) + ''.join(rows)
  return found


if __name__ == '__main__':
  for name, text in tables().items():
    (pathlib.Path(__file__).parent / f'{name}.csv').write_text(text)

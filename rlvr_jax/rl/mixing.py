"""The start model beside the policy: it writes a share of every group (train.base_share).

The completions of the start model have its own log-probs as the sampler's, so that the row's
correction for the sampler is the importance weight pi / start model.
"""

import contextlib
from collections.abc import Iterator

import jax

from rlvr_jax.models import lora
from rlvr_jax.models.transformer import Params
from rlvr_jax.rl.learner import Learner
from rlvr_jax.sampling.engine import Engine


def start_params(learn: Learner) -> Params:
  """The model that the run started from, as the learner's forward pass takes it."""
  adapter = learn.trained.adapter
  if adapter is None:
    assert learn.base is not None, 'train.base_share=0: the start model was not kept'
    return learn.base
  factors = learn.trained.start(learn.config, learn.run.seed)  # whose product is 0
  placed = jax.tree.map(lambda x, y: jax.device_put(x, y.sharding), factors, learn.state.lora)
  return lora.attach(learn.state.params, placed, adapter)


@contextlib.contextmanager
def drawing_base(learn: Learner, engine: Engine) -> Iterator[None]:
  """The engine draws from the start model inside, and from the policy after it: two hand-overs.

  After an exception it keeps the start model's weights: sampling was given up, or failed.
  """
  learn.refresh(engine, start_params(learn))
  yield
  learn.refresh(engine)

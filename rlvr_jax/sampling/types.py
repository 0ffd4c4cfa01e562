"""What goes into the engine and what comes out. Host-side values; arrays are numpy."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Item:
  """One completion to draw.

  problem is the caller's index of the problem (it comes back untouched); uid, visit and sample
  enter the key (docs/design.md); prompt_ids are the tokens given. start is the position of the
  first sampled token (0 unless a conversation goes on). limit, if given, ends the completion after
  that many tokens where sampling.max_tokens is larger. forced, if given, are the tokens to emit
  instead of sampling; their log-probs are recorded as if they had been drawn.
  """

  problem: int
  uid: int
  visit: int
  sample: int
  prompt_ids: tuple[int, ...]
  start: int = 0
  limit: int | None = None
  forced: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How to draw. temperature 0 is greedy; top_k 0 is off; stop_ids end a completion.

  max_tokens counts the stop token. Log-probs are of the tempered distribution over the full
  vocabulary (at temperature 0: of the untempered one). extras asks for what a Completion may know
  besides; it changes no token and no log-prob, and costs a pass over the vocabulary a step, with
  top_p below 1 several.
  """

  temperature: float = 1.0
  top_p: float = 1.0
  top_k: int = 0
  stop_ids: tuple[int, ...] = ()
  max_tokens: int = 1024
  extras: bool = False


@dataclasses.dataclass(frozen=True)
class Turns:
  """Of a conversation laid end to end in one Completion: what is the model's and what is not.

  sampled: bool[length], false on observations. last: where its last completion begins; count:
  completions in it. outgrown: it was ended because the next prompt would not have fitted. failed:
  why the environment gave no observation, '' if all went well. rewards: the environment's, of each
  completion but the last.
  """

  sampled: np.ndarray
  last: int
  count: int
  outgrown: bool = False
  failed: str = ''
  rewards: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Completion:
  """One drawn completion: tokens i32[length] (stop token included), logprobs f32[length].

  truncated: it ended at its limit, without a stop token. With Sampling.extras, of each token and in
  nats: the entropies f32[length] of the distributions that logprobs are of, and the log-probs
  f32[length] in what top_k and top_p left of them (-inf for a forced token outside).

  turns: given for a conversation (eval/turns.py), whose tokens are its completions and the
  observations between them, and whose item is that of the first completion; then per-token values
  are 0 on observations.
  """

  item: Item
  tokens: np.ndarray
  logprobs: np.ndarray
  truncated: bool
  entropies: np.ndarray | None = None
  truncated_logprobs: np.ndarray | None = None
  turns: Turns | None = None

  @property
  def drawn(self) -> int:
    """Tokens that the model wrote."""
    return len(self.tokens) if self.turns is None else int(self.turns.sampled.sum())


@dataclasses.dataclass
class Stats:
  """What an engine has done since it was made; counts over all its runs and shards.

  kv_live and kv_read are tokens summed over steps: those whose keys a step has to read (each prompt
  in use once, every sampled token), and those it read, padding and repetition included.
  """

  steps: int = 0  # decode steps
  slot_steps: int = 0  # slots * steps
  live_steps: int = 0  # slots that emitted a token, summed over steps
  tokens: int = 0  # delivered, in completions
  evicted: int = 0  # items sent back to the queue for want of pages
  prompts: int = 0  # prefills
  prefill_tokens: int = 0  # computed in them, padding included
  kv_live: int = 0
  kv_read: int = 0

  @property
  def occupancy(self) -> float:
    """Share of the slots' steps that emitted a token."""
    return self.live_steps / max(self.slot_steps, 1)

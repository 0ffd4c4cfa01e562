"""Where each parameter lives on the mesh ("data", "fsdp", "tensor"): regex on its path -> spec.

Two tables. In training, weights are sharded over fsdp and tensor; for decoding they are replicated
over data and fsdp, so that no step gathers weights.
"""

from jax.sharding import PartitionSpec as P

# of the tower (vision.py), stacked in learner and sampler; 3420, the mlp's width, has few divisors,
# so that `tensor` splits heads and merger alone
VISION_RULES = (
  (r'vision/layers/qkv$', P(None, 'fsdp', None, 'tensor', None)),
  (r'vision/layers/qkv_bias$', P(None, None, 'tensor', None)),
  (r'vision/layers/o$', P(None, 'tensor', None, 'fsdp')),
  (r'vision/layers/(gate|up)$', P(None, 'fsdp', None)),
  (r'vision/layers/down$', P(None, None, 'fsdp')),
  (r'vision/patch$', P(None, None, None, None, 'fsdp')),
  (r'vision/merge_in$', P('fsdp', 'tensor')),
  (r'vision/merge_in_bias$', P('tensor')),
  (r'vision/merge_out$', P('tensor', 'fsdp')),
  (r'vision/', P()),
)

# stacked [L,...] layout of the learner; the tower's rules come first, its paths end alike
TRAIN_RULES = (
  *VISION_RULES,
  (r'(^|/)(embed|head)$', P('tensor', 'fsdp')),
  (r'layers/(q|k|v)$', P(None, 'fsdp', 'tensor', None)),
  (r'layers/o$', P(None, 'tensor', None, 'fsdp')),
  (r'layers/(gate|up)$', P(None, 'fsdp', 'tensor')),
  (r'layers/down$', P(None, 'tensor', 'fsdp')),
  (r'layers/(q|k|v)_bias$', P(None, 'tensor', None)),
  # factors of low rank: split where their weight is, never along the rank
  (r'layers/(q|k|v|gate|up)_a$', P(None, 'fsdp', None)),
  (r'layers/(q|k|v)_b$', P(None, None, 'tensor', None)),
  (r'layers/o_a$', P(None, 'tensor', None, None)),
  (r'layers/(gate|up)_b$', P(None, None, 'tensor')),
  (r'layers/down_a$', P(None, 'tensor', None)),
  (r'layers/(o|down)_b$', P(None, None, 'fsdp')),
  (r'norm$', P()),
  (r'(^|/)value$', P()),  # a critic's head
)

# per-layer lists of the sampler: paths are layers/<i>/<name>
DECODE_RULES = (
  (r'(^|/)vision/', P()),  # runs once a prompt: to split it would not pay
  (r'(^|/)(embed|head)$', P('tensor', None)),
  (r'layers/\d+/(q|k|v)$', P(None, 'tensor', None)),
  (r'layers/\d+/o$', P('tensor', None, None)),
  (r'layers/\d+/(gate|up)$', P(None, 'tensor')),
  (r'layers/\d+/down$', P('tensor', None)),
  (r'layers/\d+/(q|k|v)_bias$', P('tensor', None)),
  (r'layers/\d+/(q|k|v|gate|up)_a$', P()),
  (r'layers/\d+/(q|k|v)_b$', P(None, 'tensor', None)),
  (r'layers/\d+/o_a$', P('tensor', None, None)),
  (r'layers/\d+/(gate|up)_b$', P(None, 'tensor')),
  (r'layers/\d+/down_a$', P('tensor', None)),
  (r'layers/\d+/(o|down)_b$', P()),
  (r'norm$', P()),
)

# where `tensor` does not divide the kv heads, their weights are replicated over it
KV_PATHS = r'/(k|v)(_bias|_b)?$'

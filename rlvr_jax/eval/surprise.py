"""A completion with each token's surprise, as HTML: what a model found likely, odd, or impossible.

Darkness says surprise, a dotted frame says outside what top-k and top-p leave: neither needs colour
vision, and each token's numbers are in its title. All text is escaped.
"""

import html
import math
from collections.abc import Sequence

# (upper end in nats, background, text, what the legend says); contrasts are 6.5 at least
LEVELS = (
  (0.105, '#FFFFFF', '#1A1A1A', 'p above 0.9'),
  (0.693, '#E3EEF6', '#1A1A1A', '0.5 to 0.9'),
  (2.303, '#A9CFE8', '#1A1A1A', '0.1 to 0.5'),
  (4.605, '#5AA6D6', '#1A1A1A', '0.01 to 0.1'),
  (math.inf, '#00507E', '#FFFFFF', 'below 0.01'),
)
CSS = (
  '.surprise{white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7;'
  'font-family:ui-monospace,monospace}'
  '.surprise span{border-radius:2px;padding:1px 0}'
  '.surprise .out{background:#FFFFFF;color:#1A1A1A;outline:2px dotted #B34700;outline-offset:-1px}'
  '.surprise-key span{padding:1px 6px;margin-right:6px;border:1px solid #BBB;border-radius:2px}'
  + ''.join(
    f'.s{i}{{background:{back};color:{fore}}}' for i, (_, back, fore, _) in enumerate(LEVELS)
  )
)


def level(surprise: float) -> int:
  """Index into LEVELS of -log p in nats."""
  return next(i for i, (end, *_) in enumerate(LEVELS) if surprise <= end)


def spans(
  pieces: Sequence[str], surprise: Sequence[float], allowed: Sequence[bool] | None = None
) -> str:
  """A <div class="surprise"> with a <span> a token; it needs CSS once in the page.

  pieces: the tokens' texts ('' where a later one completes a character); surprise: -log p in nats;
  allowed: whether the token is inside what the sampler leaves, None where that was not asked.
  """
  allowed = [True] * len(pieces) if allowed is None else allowed
  parts = []
  for piece, nats, inside in zip(pieces, surprise, allowed, strict=True):
    title = f'p = {math.exp(-nats):.3g}, {nats:.2f} nats'
    title += '' if inside else ', cannot be drawn here'
    kind = f's{level(nats)}' + ('' if inside else ' out')
    text = html.escape(piece) or '\N{DOTTED CIRCLE}' * (not inside)
    parts.append(f'<span class="{kind}" title="{title}">{text}</span>')
  return f'<div class="surprise">{"".join(parts)}</div>'


def legend() -> str:
  """What the shades and the frame mean, as HTML."""
  shades = ''.join(f'<span class="s{i}">{text}</span>' for i, (*_, text) in enumerate(LEVELS))
  return (
    '<p class="surprise-key">Probability of each token given all before it, at temperature 1: '
    f'{shades} <span class="surprise"><span class="out">dotted</span></span> outside what the '
    "model's own top-k and top-p leave: it cannot be drawn.</p>"
  )


def pieces_of(tokens: Sequence[int], decode) -> list[str]:
  """The text that each token adds, whose concatenation is the whole text.

  decode: ids -> text. A token that ends inside a character adds '', the one that completes it all
  of it; bytes that never make a character come out as U+FFFD with the last of them.
  """
  out: list[str] = []
  context: list[int] = []  # the last tokens whose text is whole: some decoders look one back
  waiting: list[int] = []
  for place, token in enumerate(tokens):
    waiting.append(int(token))
    known = decode(context) if context else ''
    text = decode([*context, *waiting])[len(known) :]
    last = place == len(tokens) - 1
    if text.endswith('�') and len(waiting) < 5 and not last:
      out.append('')
      continue
    out.append(text)
    context, waiting = waiting, []
  return out

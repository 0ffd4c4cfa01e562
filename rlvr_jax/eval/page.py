"""What pages that stand alone are made of: assets placed inside them, data as safe JSON."""

import json
import os
import pathlib
from typing import Any

TEMPLATES = pathlib.Path(__file__).parent / 'templates'


def asset(name: str, *, inside: bool = True) -> str:
  """A file of templates/; one that is placed unescaped inside an element may not end it."""
  text = (TEMPLATES / name).read_text(encoding='utf-8')
  assert not inside or '</' not in text
  return text


def embedded_json(value: Any) -> str:
  """Compact JSON for a script element of type application/json, without '<', which could end it.

  ValueError for a number that is not finite.
  """
  text = json.dumps(value, ensure_ascii=False, separators=(',', ':'), allow_nan=False)
  return text.encode('utf-8', 'replace').decode().replace('<', '\\u003c')


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes the whole file under a temporary name, then renames it."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text(text, encoding='utf-8')
  temporary.replace(path)

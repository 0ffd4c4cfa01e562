"""`make bench` writes the promised JSON, and says which benchmarks there are."""

import json
import sys
import types

import pytest

from bench import run

GATE = {
  'gate': 'tokens per second',
  'value': 12.5,
  'target': 10,
  'holds': True,
  'unit': 'tokens/s',
  'how': 'one run',
}


def fake(monkeypatch, gates):
  monkeypatch.setitem(sys.modules, 'bench.fake', types.SimpleNamespace(main=lambda: gates))


def test_gates_are_written_and_printed(tmp_path, monkeypatch, capsys):
  fake(monkeypatch, [GATE])
  run.run_one('fake', tmp_path)
  assert json.loads((tmp_path / 'fake.json').read_text()) == [GATE]
  assert 'tokens per second' in capsys.readouterr().out


@pytest.mark.parametrize(
  'gate', [{'gate': 'a'}, {**GATE, 'holds': 1}, {**GATE, 'value': float('nan')}]
)
def test_a_malformed_gate_is_refused(tmp_path, monkeypatch, gate):
  fake(monkeypatch, [gate])
  with pytest.raises(ValueError, match=r'bench/fake\.py: '):
    run.run_one('fake', tmp_path)
  assert not list(tmp_path.iterdir())


def test_an_unknown_benchmark_names_the_known_ones(capsys):
  assert run.main(['spede']) == 2
  assert 'no benchmark spede; there are: ' in capsys.readouterr().err

"""A run over several processes: who they are, barriers, exchange, and that they end together.

Each process runs the same loop over the same data (rl/train.py, eval/fill.py, study.py); what it
draws, judges and stores is its own share (`mine`), and `exchange` brings shares together in the
order of the processes. Only the first writes what there is once. In a run of one process all of
this costs nothing. jax is imported where it is needed: a laptop without it can import this.
"""

import atexit
import concurrent.futures
import contextlib
import hashlib
import json
import logging
import os
import pathlib
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rlvr_jax import graceful, watch
from rlvr_jax.config import Config, flatten
from rlvr_jax.hosts_find import Place, alone_on_node, find

log = logging.getLogger(__name__)
# Jobs that several processes share; the others are small, and run in one.
JOBS = ('train', 'distill', 'evaluate', 'sample', 'study', 'perplexity')
EXIT_LOST = 75  # EX_TEMPFAIL, where another process is gone: the same command goes on
GRACE_S = 10.0  # from the news of an end until a process leaves: to store what it has drawn
PIECE = 1 << 26  # bytes on a device in one exchange, at most
SEEN_S = 60.0  # until a file of process 0 shows on a network file system
PORTS_APART = 1000  # of the watch's port from the coordinator's


class _Joined:
  """This process among the others. lost: what is said of one that has ended, '' while none has."""

  def __init__(self, place: Place, names: Sequence[str], watch: subprocess.Popen, group: Config):
    self.place, self.names, self.watch = place, tuple(names), watch
    self.timeout_s, self.silent_s = group.barrier_s, group.silent_s
    self.lost = ''
    self.is_lost = threading.Event()
    self.meetings = 0  # so far; each has a number in its name
    self.exit_code = 0
    self.left = self.told = False

  def tell(self, **message: Any) -> None:
    """Says something to the watch. Also called by signal handlers, so it takes no lock."""
    assert self.watch.stdin is not None
    with contextlib.suppress(OSError):
      os.write(self.watch.stdin.fileno(), json.dumps(message).encode() + b'\n')


_joined: _Joined | None = None


def count() -> int:
  """How many processes the run has."""
  return 1 if _joined is None else _joined.place.count


def index() -> int:
  """Which of them this one is, from 0."""
  return 0 if _joined is None else _joined.place.index


def is_first() -> bool:
  """Whether this is the process that writes what there is once."""
  return index() == 0


def say(text: str) -> None:
  """Prints a line on stderr, in the first process only."""
  if is_first():
    print(text, file=sys.stderr)


def mine(total: int) -> range:
  """Which of `total` things are this process's share: every count()-th."""
  return range(index(), total, count())


# -- coming together


def start(config: Config) -> None:
  """Joins the other processes of a run, if it has any; before jax is asked for its devices.

  ValueError for settings that do not fit, TimeoutError naming who has not come.
  """
  global _joined
  place = find(config)
  if place is None:
    return
  if config.job not in JOBS or config.model.name.startswith(('http://', 'https://')):
    raise ValueError(
      f'job={config.job} with model.name={config.model.name!r} runs in one process, not in '
      f'{place.count}; start it once, with --config.hosts.count=1'
    )
  h = config.hosts
  watch, names = _gather(place, h.wait_s, h.silent_s, h.watch_port)
  joined = _Joined(place, names, watch, h)
  threading.Thread(target=_listen, args=(joined,), name='hosts', daemon=True).start()
  _initialize(place, h.silent_s, h.wait_s)
  _joined = joined
  graceful.tell(lambda number: joined.tell(kind='stop', signal=number))
  atexit.register(_leave)
  log.info('process %d of %d: %s', place.index, place.count, ', '.join(names))
  _check_same(config)


def _gather(
  place: Place, wait_s: float, silent_s: float, port: int
) -> tuple[subprocess.Popen, list[str]]:
  """The watch beside this process once all have come, and the host name of each."""
  host, _, own = place.coordinator.rpartition(':')
  if not port:
    port = int(own) + (PORTS_APART if int(own) + PORTS_APART < 60_000 else -PORTS_APART)
  words = (place.index, place.count, f'{host}:{port}', socket.gethostname(), wait_s, silent_s)
  watch = subprocess.Popen(
    [
      *(sys.executable, '-I', str(pathlib.Path(__file__).with_name('hosts_watch.py'))),
      *(str(word) for word in (*words, GRACE_S + 5)),
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    start_new_session=True,  # Ctrl-C in a terminal is for the run, whose end it then sees
  )
  assert watch.stdout is not None
  said = json.loads(watch.stdout.readline() or '{"kind": "refused", "why": "its watch ended"}')
  if said['kind'] == 'ready':
    return watch, said['names']
  watch.kill()
  if said['kind'] == 'missing':
    who = ', '.join(str(i) for i in said['who'])
    raise TimeoutError(
      f'of {place.count} processes these have not come in {wait_s:g} s (hosts.wait_s): {who}; '
      f'start them with the same command, hosts.coordinator={place.coordinator}, or lower '
      'hosts.count'
    )
  if said['kind'] == 'unreachable':
    raise TimeoutError(
      f'process {place.index} of {place.count} has not reached process 0 at {host}:{port} in '
      f'{wait_s:g} s (hosts.wait_s): is it running there, and is the port open?'
    )
  raise ValueError(f'process {place.index} of {place.count} cannot take part: {said["why"]}')


def _initialize(place: Place, silent_s: float, wait_s: float) -> None:
  """jax.distributed; on CPUs its collectives go by gloo."""
  import jax

  # its own agreement on preemption stays off: signals are told by the watch
  jax.config.update('jax_enable_preemption_service', False)
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(
    place.coordinator,
    place.count,
    place.index,
    # one process on a node takes all of its devices; jax would give it one, as to one of many
    cluster_detection_method='deactivate' if alone_on_node() else None,
    heartbeat_timeout_seconds=int(silent_s) + 10,  # the watch is to be first, for it says who
    initialization_timeout=int(wait_s),
    shutdown_timeout_seconds=int(silent_s),
  )


def _check_same(config: Config) -> None:
  """ValueError where a process was started with another config than the first."""
  flat = {k: v for k, v in flatten(config).items() if not k.startswith('hosts.')}
  own = {k: repr(v) for k, v in flat.items()}
  digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
  if len(set(exchange(digest, 'config'))) == 1:
    return
  first = from_first(own)
  wrong = [
    f'{k}: {first.get(k)} in process 0, {own[k]} here' for k in own if own[k] != first.get(k)
  ]
  others = exchange(wrong, 'config')
  found = next((i, one) for i, one in enumerate(others) if one)
  raise ValueError(
    f'process {found[0]} has another config than process 0 ({"; ".join(found[1][:5])}); start all '
    'processes with the same command'
  )


def check_shared(workdir: pathlib.Path) -> None:
  """ValueError where a process does not see the files that the first writes into workdir."""
  if count() == 1:
    return
  mark = workdir / '.processes'
  token = from_first(f'{os.getpid()} {time.time_ns()}')
  if is_first():
    mark.write_text(token)
  barrier('a file in the workdir')
  until = time.monotonic() + SEEN_S
  seen = False
  while not seen and time.monotonic() < until:
    seen = mark.exists() and mark.read_text() == token
    time.sleep(0 if seen else 0.5)
  blind = [i for i, one in enumerate(exchange(seen, 'the file in the workdir')) if not one]
  if blind:
    raise ValueError(
      f'processes {blind} do not see in {workdir} what process 0 writes there; --workdir must be '
      'a directory that all share (NFS, a mounted bucket, gs://...)'
    )


# -- meeting


def barrier(name: str) -> None:
  """Waits until all processes are here; TimeoutError after hosts.barrier_s, naming who is not."""
  if _joined is None:
    return
  from jax._src import distributed
  from jax.errors import JaxRuntimeError

  joined = _joined
  joined.meetings += 1
  here = f'rlvr_jax/{joined.meetings}'
  client = distributed.global_state.client
  assert client is not None
  client.key_value_set(f'{here}/{index()}', name)
  try:
    _in_thread(lambda: client.wait_at_barrier(here, int(1000 * joined.timeout_s)))
  except JaxRuntimeError as error:
    if 'DEADLINE_EXCEEDED' not in str(error):
      raise
    there = {int(key.rpartition('/')[2]): at for key, at in client.key_value_dir_get(here)}
    raise TimeoutError(_missing(name, there, joined)) from error
  if is_first():
    client.key_value_delete(f'{here}/')


def _in_thread(wait: Callable[[], Any]) -> None:
  """Returns when `wait` has, or raises what it did.

  Handlers of signals run only while the main thread is in Python, and who waits does not hang.
  """
  done: concurrent.futures.Future[None] = concurrent.futures.Future()

  def work() -> None:
    try:
      wait()
    except Exception as error:
      done.set_exception(error)
    else:
      done.set_result(None)

  # no executor, which would be waited for when the program ends
  threading.Thread(target=work, name='barrier', daemon=True).start()
  while not concurrent.futures.wait([done], timeout=1.0).done:
    watch.tick()
  done.result()


def _missing(name: str, there: dict[int, str], joined: _Joined) -> str:
  missing = [i for i in range(joined.place.count) if i not in there]
  named = ', '.join(f'{i} ({joined.names[i]})' for i in missing)
  text = f'{name}: not there after {joined.timeout_s:g} s (hosts.barrier_s): process {named}'
  strays = {i: at for i, at in there.items() if at != name}
  return text + (f'; elsewhere: {strays}' if strays else '')


def exchange(value: Any, name: str = 'exchange') -> list[Any]:
  """The values of all processes, in their order; a value is anything that pickle takes.

  As bytes over the devices' own network. All processes must call it, in the same order.
  """
  if _joined is None:
    return [value]
  barrier(name)
  data = np.frombuffer(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), np.uint8)
  sizes = _gathered(np.array([len(data) >> 24, len(data) & 0xFFFFFF], np.int32))
  lengths = [(int(high) << 24) + int(low) for high, low in sizes]
  found = [bytearray() for _ in lengths]
  most = max(1 << 12, PIECE // len(lengths))
  for begin in range(0, max(lengths), most):
    rest = max(lengths) - begin
    piece = np.zeros(min(most, max(1 << 12, 1 << (rest - 1).bit_length())), np.uint8)
    part = data[begin : begin + most]
    piece[: len(part)] = part
    for all_of, length, one in zip(found, lengths, _gathered(piece), strict=True):
      all_of += one[: max(0, min(most, length - begin))].tobytes()
  return [pickle.loads(one) for one in found]


def _gathered(x: np.ndarray) -> np.ndarray:
  """x of all processes, [count, ...]."""
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(x))


def from_first(value: Any) -> Any:
  """The first process's value, in all."""
  return exchange(value if is_first() else None, 'what the first has')[0]


def of_first(work: Callable[[], Any]) -> Any:
  """What `work` returns, called in the first process alone; the others wait for it."""
  return from_first(work() if is_first() else None)


def anyone(flag: bool) -> bool:
  """Whether the flag is set in some process. Cheap, and without a barrier: for every step."""
  return flag if _joined is None else bool(_gathered(np.array([flag], np.int32)).any())


# -- arrays of all processes


def placed(tree: Any, sharding: Any) -> Any:
  """Host arrays, the same in every process, laid out; each device is sent its own part."""
  import jax

  if count() == 1:
    return jax.device_put(tree, sharding)

  def one(x: Any) -> Any:
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

  return jax.tree.map(one, tree)


def whole(x: Any) -> np.ndarray:
  """A whole array on the host, also of one whose parts lie in several processes (all call it)."""
  if getattr(x, 'is_fully_addressable', True) or x.is_fully_replicated:
    return np.asarray(x)
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(x, tiled=True))


# -- ending


def lost() -> str:
  """What is said of a process that has ended before its time; '' while all are there."""
  return '' if _joined is None else _joined.lost


def _listen(joined: _Joined) -> None:
  """The thread that hears the watch. It ends the process where another has ended."""
  assert joined.watch.stdout is not None
  for line in joined.watch.stdout:
    said = json.loads(line)
    if said['kind'] == 'stop':
      graceful.ask(said['signal'], 'another process was asked to end')
    elif said['kind'] == 'lost':
      joined.lost = said['text']
      break
  else:
    if joined.left:
      return
    joined.lost = 'the watch over the processes has ended'
    print(f'rlvr_jax, process {joined.place.index}: {joined.lost}', file=sys.stderr)
  joined.is_lost.set()
  if joined.left:
    return
  time.sleep(GRACE_S)
  _exit(EXIT_LOST)


def _exit(code: int) -> None:
  """Ends this process now: no farewell that waits for others."""
  with contextlib.suppress(OSError, ValueError):
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
  os._exit(code)


@contextlib.contextmanager
def together(code_of: Callable[[Exception], int]) -> Iterator[None]:
  """A run inside ends in all processes or in none: an error here is told to the others.

  Where another process has ended, this one does so with EXIT_LOST. code_of: the exit code of an
  error of this process.
  """
  try:
    yield
    if _joined is not None:
      barrier('the end of the run')
  except (Exception, KeyboardInterrupt) as error:
    tell_of(error)
    if _joined is not None:
      _joined.exit_code = code_of(error) if isinstance(error, Exception) else 130
    raise


def tell_of(error: BaseException) -> None:
  """Tells the others, once, of an error that ends this process; to be called before it leaves
  anything whose end waits for them. Where another has ended, this process does too.
  """
  joined = _joined
  if joined is None or joined.told or isinstance(error, SystemExit):
    return
  # what a lost process leaves are broken connections: who it was may be heard later
  broken = type(error).__name__ == 'JaxRuntimeError'
  if joined.is_lost.wait(joined.silent_s + 5 if broken else 2):
    _exit(EXIT_LOST)
  joined.told = True
  joined.tell(kind='failed', why=f'{type(error).__name__}: {error}')


def _leave() -> None:
  """At the end of the program, before jax says its own good-bye."""
  global _joined
  joined, _joined = _joined, None
  if joined is None:
    return
  joined.left = True
  graceful.tell(None)
  if joined.exit_code:
    _exit(joined.exit_code)
  joined.tell(kind='bye')

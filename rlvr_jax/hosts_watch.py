"""The watch over the processes of a run: a small process beside each; standard library only.

  python -I hosts_watch.py INDEX COUNT HOST:PORT NAME WAIT_S SILENT_S GRACE_S

It outlives the one it watches, and neither Python's lock nor a library that aborts stops it. That
of process 0 listens at HOST:PORT, the others connect to it. Each tells the others when its own
process ends without having said good-bye, fails, or is asked to stop; so does silence of SILENT_S
seconds, as of a machine that lost power. JSON lines on stdin and stdout are for the watched process
(hosts.py), on the sockets for each other; what people should read goes to stderr.
"""

import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any

BEAT_S = 2.0
RETRY_S = 0.2
LINGER_S = 3.0  # after the end of the watched process: until the others have been told
SETTLE_S = 0.3  # one death brings others about; those that come so soon after are told as one
FAILED, GONE = 'failed', 'gone'
Message = dict[str, Any]


class Line:
  """One end of a connection by which messages come and go; index: of the process at the other."""

  def __init__(self, stream: socket.socket | int, index: int = -1):
    self.stream, self.index = stream, index
    self.heard = time.monotonic()
    self.parted = False  # it said good-bye
    self._rest = b''

  def receive(self) -> list[Message] | None:
    """What has arrived; None at its end."""
    try:
      data = (
        os.read(self.stream, 65536) if isinstance(self.stream, int) else self.stream.recv(65536)
      )
    except BlockingIOError:
      return []
    except OSError:
      data = b''
    if not data:
      return None
    self.heard = time.monotonic()
    *lines, self._rest = (self._rest + data).split(b'\n')
    return [json.loads(line) for line in lines]

  def send(self, message: Message) -> None:
    """Sends a message; an end that is closed will be seen by who reads from it."""
    data = json.dumps(message).encode() + b'\n'
    try:
      if isinstance(self.stream, int):
        os.write(self.stream, data)
      else:
        self.stream.sendall(data)
    except OSError:
      pass


class Watch:
  """State of one watch. names: host name of each process, by index, '' before it came."""

  def __init__(self, index: int, count: int, name: str, silent_s: float, grace_s: float):
    self.index, self.count, self.name = index, count, name
    self.silent_s, self.grace_s = silent_s, grace_s
    self.names = [''] * count
    self.names[index] = name
    self.selector = selectors.DefaultSelector()
    self.own = Line(0)  # from the watched process
    self.to_own = Line(1)
    self.peers: list[Line] = []  # of process 0: to all others; of another: to process 0
    self.ready = self.refused = False
    self.told: list[Message] = []  # of ends, in the order in which they were heard of
    self.told_at = float('inf')
    self.named = self.failed = False
    self.kill_at = self.end_at = float('inf')
    os.set_blocking(0, False)
    self.selector.register(0, selectors.EVENT_READ, self.own)

  def add(self, connection: socket.socket, index: int = -1) -> None:
    connection.settimeout(5.0)  # of what is sent; it is read only where there is something
    line = Line(connection, index)
    self.peers.append(line)
    self.selector.register(connection, selectors.EVENT_READ, line)

  def everyone(self, message: Message, but: Line | None = None) -> None:
    for peer in self.peers:
      if peer is not but:
        peer.send(message)

  def hear(self, message: Message, line: Line) -> None:
    """One message of another watch."""
    kind = message['kind']
    if kind == 'hello':
      self.welcome(message, line)
    elif kind in ('ready', 'missing', 'refused'):
      if kind == 'ready':
        self.names, self.ready = message['names'], True
      else:
        self.refused = True
      self.to_own.send(message)
    elif kind in (GONE, FAILED):
      if self.index == 0:
        self.everyone(message, but=line)
      self.end(message)
    elif kind == 'stop':
      if self.index == 0:
        self.everyone(message, but=line)
      self.to_own.send(message)
    elif kind == 'bye':
      line.parted = True

  def welcome(self, message: Message, line: Line) -> None:
    """Another process has come to process 0."""
    index, count = message['index'], message['count']
    why = ''
    if count != self.count:
      why = f'it was started as one of {count} processes, process 0 as one of {self.count}'
    elif not 0 < index < self.count or self.names[index]:
      why = f'there is a process {index} already, on {self.names[index % self.count]}'
    if why:
      line.send({'kind': 'refused', 'why': why})
      return
    line.index, self.names[index] = index, message['name']
    if all(self.names):
      self.ready = True
      ready = {'kind': 'ready', 'names': self.names}
      self.everyone(ready)
      self.to_own.send(ready)

  def obey(self, message: Message) -> None:
    """One message of the watched process."""
    kind = message['kind']
    if kind == FAILED:
      self.failed = True
      message = {**message, 'index': self.index}
      self.everyone(message)
    elif kind == 'stop':
      self.everyone(message)
    elif kind == 'bye':
      self.own.parted = True
      self.everyone(message)

  def gone(self, index: int, why: str) -> None:
    """A process has ended before its time."""
    message = {'kind': GONE, 'index': index, 'why': why}
    if self.index == 0 or index == self.index:
      self.everyone(message)
    if index != self.index:
      self.end(message)

  def end(self, message: Message) -> None:
    """Some other process has ended: soon this one will be too."""
    if self.own.parted:
      return
    self.told.append(message)
    self.told_at = min(self.told_at, time.monotonic())

  def say(self) -> None:
    """Names whose end it was, to people and to the watched process."""
    first = min(self.told, key=lambda one: (one['kind'] != FAILED, one['index'] != 0))
    first = self.told[0] if self.told[0]['kind'] == FAILED else first
    index = first['index']
    who = f'process {index} of {self.count} ({self.names[index] or "unknown host"})'
    if first['kind'] == FAILED:
      text = f'{who} ended with an error: {first["why"]}'
    else:
      text = f'{who} is gone: {first["why"]}'
    self.named = True
    if not self.failed:
      note = f'rlvr_jax, process {self.index} of {self.count} ({self.name}): {text}'
      print(note, file=sys.stderr, flush=True)
    self.to_own.send({'kind': 'lost', 'text': text})
    self.kill_at = time.monotonic() + self.grace_s

  def closed(self, line: Line) -> None:
    """The end of a connection."""
    self.selector.unregister(line.stream)
    now = time.monotonic()
    if line is self.own:
      self.end_at = now + LINGER_S
      if not (line.parted or self.failed or self.named):  # else the others know, or it is why
        self.gone(self.index, 'its process ended')
    else:
      self.peers.remove(line)
      assert not isinstance(line.stream, int)
      line.stream.close()
      if line.index >= 0 and not line.parted and self.ready:
        self.gone(line.index, 'its connection ended')

  def step(self, listener: socket.socket | None) -> None:
    """Waits a little for messages and acts on them."""
    for key, _ in self.selector.select(0.1):
      line = key.data
      if line is None:
        assert listener is not None
        self.add(listener.accept()[0])
        continue
      messages = line.receive()
      if messages is None:
        self.closed(line)
        continue
      for message in messages:
        if line is self.own:
          self.obey(message)
        else:
          self.hear(message, line)

  def watch(self, listener: socket.socket | None) -> None:
    """Until the watched process has ended; kills it where it does not end though others have."""
    beaten = 0.0
    while True:
      self.step(listener)
      now = time.monotonic()
      if now - beaten > BEAT_S:
        beaten = now
        self.everyone({'kind': 'beat'})
      for peer in [p for p in self.peers if p.index >= 0 and not p.parted]:
        if now - peer.heard > self.silent_s:
          peer.parted = True
          self.gone(peer.index, f'nothing was heard of it for {self.silent_s:g} s')
      if self.told and not self.named and now - self.told_at > SETTLE_S and self.end_at > now:
        self.say()
      elif self.told and not self.named and self.end_at < float('inf'):
        self.say()  # the watched process died of it before it could be told
      if now > self.kill_at and self.end_at == float('inf'):
        self.kill_at = float('inf')
        os.kill(os.getppid(), signal.SIGKILL)
      if now > self.end_at or (self.own.parted and self.end_at < float('inf')):
        return


def gather(watch: Watch, address: tuple[str, int], wait_s: float) -> socket.socket | None:
  """Brings the watches together; process 0's listening socket. Tells the own process who lacks."""
  until = time.monotonic() + wait_s
  listener = None
  if watch.index == 0:
    listener = socket.create_server(('', address[1]), reuse_port=False, backlog=watch.count)
    watch.selector.register(listener, selectors.EVENT_READ, None)
    if watch.count == 1:
      watch.ready = True
      watch.to_own.send({'kind': 'ready', 'names': watch.names})
  elif not connect(watch, address, until):
    watch.to_own.send({'kind': 'unreachable'})
    return None
  while not (watch.ready or watch.refused) and watch.end_at == float('inf'):
    watch.step(listener)
    if watch.index == 0 and time.monotonic() > until and not watch.ready:
      missing = {'kind': 'missing', 'who': [i for i, n in enumerate(watch.names) if not n]}
      watch.everyone(missing)
      watch.to_own.send(missing)
      return listener
    if watch.index and not (watch.peers or watch.refused):  # process 0 gave up, or was stopped
      watch.to_own.send({'kind': 'unreachable'})
      return None
  return listener


def connect(watch: Watch, address: tuple[str, int], until: float) -> bool:
  """Another watch's way to that of process 0."""
  while time.monotonic() < until and watch.end_at == float('inf'):
    try:
      connection = socket.create_connection(address, timeout=5.0)
    except OSError:
      time.sleep(RETRY_S)
      watch.step(None)
      continue
    watch.add(connection, 0)
    me = {'kind': 'hello', 'index': watch.index, 'count': watch.count, 'name': watch.name}
    watch.everyone(me)
    return True
  return False


def main(argv: list[str]) -> None:
  index, count, address, name, wait_s, silent_s, grace_s = argv
  host, _, port = address.rpartition(':')
  watch = Watch(int(index), int(count), name, float(silent_s), float(grace_s))
  try:
    listener = gather(watch, (host.strip('[]'), int(port)), float(wait_s))
  except OSError as error:
    watch.to_own.send({'kind': 'refused', 'why': f'cannot listen at {address}: {error.strerror}'})
    return
  if watch.ready:
    watch.watch(listener)


if __name__ == '__main__':
  main(sys.argv[1:])

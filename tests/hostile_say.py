"""What hostile programs of several files begin with: a word to every file that may be open."""

SAY = """
import os
def say(text):
  for fd in range(1, 64):
    try:
      os.write(fd, text)
    except OSError:
      pass
"""

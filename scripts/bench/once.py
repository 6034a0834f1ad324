"""Runs a command once and prints its wall seconds, CPU seconds, peak memory in bytes and exit code.

It is a small process of its own for this reason: the peak memory that Linux reports for a child is never less than the
memory of the parent when it started the child, and a parent with torch has 0.8 GB.

Usage: once.py COMMAND …
"""

import os
import subprocess
import sys
import time

begin = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - begin
print(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status))

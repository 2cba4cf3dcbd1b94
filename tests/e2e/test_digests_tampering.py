"""Whoever changes a bucket is found out: what the AWS CLI says of each way to do it, and what `traild verify` says.

Both judge copies of a chain that a real daemon made. The CLI looks backwards from the newest digest it finds, and at links alone, so it
cannot see all; `traild verify` has to. With `-s` the table for the README is printed.
"""

from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest
import rsa

import digests
from harness import BUCKET
from tampering import TABLE, Scene

STORES = 3  # at once

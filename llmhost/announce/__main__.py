"""`python -m llmhost.announce`: send what is on standard input; prints why a channel failed.

A process of its own: a deploy announces its end while its interpreter ends, and there neither
threads nor gevent can be relied on.
"""

import sys

from llmhost.announce.send import main

print(*main(sys.stdin.read()), sep="\n")

import sys

from tests.doubles.ollama.command import main

main(*sys.argv[1:])

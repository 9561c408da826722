"""A double of Ollama 0.31.1: its HTTP interface, its store on disk and its scheduler, and no model.

It answers as the real one did in tests/unit/data/ollama-0.31.1.json, which the contract tests
compare; what is not in there follows upstream's source. It says nothing about inference. It needs
the standard library only, and an image has it as one file (testbed/double_images.py). The store is
always read-only, as it is in llmhost's container.

command.py    the command line; server.py the routes
native.py     Ollama's own interface, openai.py, openai_responses.py and anthropic.py the others
closed.py     what is refused: changes of the store, and what needs a network
answers.py    what is said, and in which form
scheduler.py  which models are loaded; runner.py their processes; store.py, gguf.py where they are
"""

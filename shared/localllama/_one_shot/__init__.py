"""A server of our own around a program that answers once: for machines that have llama.cpp's command line and no server.

`program.py` is a process that speaks like llama-server (the part of it that the clients use) and runs `llama-completion`,
or `llama-cli`, for each request. Why a process, and not a transport inside the owner's:

- everything above it, both clients and both wrappers, works unchanged, by the same code;
- it is launched as every server is, so the supervisor, the private directory, the socket, the clean environment, leases and
  the death of the owner are those that are tested there; the programs that it runs are of its process group;
- async callers wait on a socket. `asyncio.create_subprocess_exec` would need a child watcher of the host's event loop, and
  breaks wherever the host reaps children itself.
"""

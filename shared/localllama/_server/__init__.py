"""Owning the llama-server child: command, process, supervisor, readiness, shared servers."""

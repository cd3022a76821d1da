"""The llama-server child: its command, its start, its readiness, and who shares it."""

"""The wire protocol of llama-server: pure functions and parsers, no I/O."""

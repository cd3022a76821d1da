"""Model references, the catalog, the store and the GGUF header."""

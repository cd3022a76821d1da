"""localllama: local GGUF models through llama.cpp."""

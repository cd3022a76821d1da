"""Finding the llama.cpp programs and asking what they can do."""

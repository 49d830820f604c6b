"""Inference servers behind one small interface: embedded llama.cpp, OpenAI-compatible, Ollama."""

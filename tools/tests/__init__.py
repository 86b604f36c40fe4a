"""Tests of the Python tools: `make test-tools`, and with PyTorch `make test-export`."""

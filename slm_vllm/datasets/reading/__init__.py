"""Reads records from files: detects form and compression, and numbers the lines."""

"""Question-answer rows out of files: `open_dataset`, and conversion of raw files."""

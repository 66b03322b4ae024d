"""What the fields of a record mean, whatever they are called and however they are written."""

"""Natural Questions pages: tokens with HTML tags, and their plain text."""

"""Natural Questions pages: tokens with HTML tags, and the texts they stand for."""

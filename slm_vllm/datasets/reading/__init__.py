"""Records out of files: what a file is, how it is packed, its rows with the line of each."""

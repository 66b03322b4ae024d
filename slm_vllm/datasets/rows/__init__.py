"""The meaning of the fields of a record, under any of their public names and forms."""

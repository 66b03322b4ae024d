"""Importing what the scripts before this package left behind.

Their checkout is only read: its configurations are converted, and its finished runs become runs
that `compare` and `report` read. No secret leaves it.
"""

"""Taking over what the scripts that came before this package left behind.

Their checkout is only read: configurations become configurations of today, finished runs become
runs that `compare` and `report` read. No secret leaves it.
"""

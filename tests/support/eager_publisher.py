"""The publisher at an ordinary priority: the real one gives way to all that a busy machine runs.

It also looks after its folders more often, and asks a server that failed again sooner.
"""

from __future__ import annotations

import sys

from slm_vllm.tracking import publisher

PROGRAM = (sys.executable, "-m", "support.eager_publisher")


if __name__ == "__main__":
    publisher.FIRST_INTERVAL, publisher.FIRST_RETRY = 0.3, 0.5
    publisher.give_way = lambda: None
    publisher.main()

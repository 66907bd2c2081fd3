"""A process manager like the stack's, with one service: `python keeper.py ENDPOINT`."""

import sys

import circus

if __name__ == "__main__":
    endpoint = sys.argv[1]
    watcher = {
        "name": "sleeper-0",
        "cmd": sys.executable,
        "args": ["-c", "import time; time.sleep(3600)"],
        "graceful_timeout": 5,
        "copy_env": True,
    }
    other = {**watcher, "name": "sleeper-else-0"}
    circus.get_arbiter(
        [watcher, other], controller=endpoint, pubsub_endpoint=f"{endpoint}.events", check_delay=0.3
    ).start()

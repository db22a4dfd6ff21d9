"""For system tests: a folder for compiled kernels that is warm (tests/cache)."""
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def warm_cache(*devices):
    """The cache_dir for devices of these names; without any: device0."""
    return subprocess.check_output([os.path.join(ROOT, "tests/cache"), "take", *devices], text=True).strip()

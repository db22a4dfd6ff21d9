"""The command line of the scripts: --version, and what an option that there is not may have been meant to be."""
import argparse
import difflib
import os
import re
import sys

VERSION = "@VERSION@"  # filled in by make install


def version():
    if VERSION[0] != "@":
        return VERSION
    with open(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "Makefile")) as file:
        return re.search(r"^VERSION *:= *(\S+)", file.read(), re.MULTILINE)[1]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that has both, and takes no beginnings for options."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)
        self.add_argument("--version", action="version", version=f"%(prog)s {version()}", help="print the version and end")

    def parse_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else list(args)
        for word in words[:words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                near = difflib.get_close_matches(name, self._option_string_actions, 1)
                self.error(f"there is no option {name}" + (f": is {near[0]} meant?" if near else ""))
        return super().parse_args(words, namespace)

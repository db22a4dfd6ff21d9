#!/usr/bin/env python3
# once
"""What the pages say is there: the files and headings that they link to, the options that they name, and the messages
that the page about messages explains."""
import glob
import os
import re
import subprocess
import tempfile

BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
PAGES = ["README.md", "ARCHITECTURE.md", *sorted(glob.glob("docs/*.md")), *sorted(glob.glob("proto/*.md"))]
SOURCES = ["frontend", "runtime", "dht", "common", "pools", "command", "http", "client", "proto"]
problems, checked = [], []


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def anchors(path):
    """The headings of a page as they are linked to."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", read(path), re.M)
    }


def check_links(page, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        if not os.path.exists(path):
            problems.append(f"{page}: there is no {target}")
        elif anchor and anchor not in anchors(path):
            problems.append(f"{page}: {path} has no heading for #{anchor}")


def options():
    """Every option as section.option, from the reference that the program prints."""
    reference = subprocess.run([f"{BUILD}/bin/expertd", "print", "--reference"], check=True, capture_output=True, text=True)
    names, section = {}, None
    for line in reference.stdout.splitlines():
        if found := re.match(r"## `(\w+)`", line):
            section = names.setdefault(found[1], set())
        elif found := re.match(r"\| `(\w+)` \|", line):
            section.add(found[1])
    return names


def check_options(page, text, known):
    sections = "|".join(section for section in known if section not in ("devices", "experts", "blocks"))
    for section, option in re.findall(rf"`({sections})\.([a-z_]+)(?:: [^`]*)?`", text):
        named = f"{section}.{option}"
        if option not in known[section] and f"`{named}`" not in counters and f'"{named}"' not in sources:
            problems.append(f"{page}: there is neither an option nor a counter {section}.{option}")


def check_configurations(page, text):
    """A whole configuration, as it stands there, is a good one."""
    for found in re.findall(r"^```yaml\n(server:.*?^experts:.*?)^```", text, re.M | re.S):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/{os.path.basename(page)}.yaml"
            with open(path, "w") as file:
                file.write(found)
            for clients in re.findall(r"clients: ([^\s,}]+)", found):  # what the page says to make before
                os.makedirs(f"{folder}/{clients}")
            for key in re.findall(r"key_file: ([^\s,}]+)", found):
                os.makedirs(os.path.dirname(f"{folder}/{key}"), exist_ok=True)
                subprocess.run([f"{BUILD}/bin/expertctl", "keygen", f"{folder}/{key}"], check=True, stdout=subprocess.DEVNULL)
            said = subprocess.run([f"{BUILD}/bin/expertd", "check", path], capture_output=True, text=True)
            if said.returncode != 0:
                problems.append(f"{page}: its configuration is refused: {said.stderr}")
            checked.append(page)


def check_messages(page, sources):
    for line in read(page).splitlines():
        if not line.startswith("| `"):
            continue
        for quoted in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
            for part in re.split(r"…|\b[A-Z]\b|['\"\[\]*]", quoted):
                part = part.strip(" :")
                if len(part) > 5 and part not in sources:
                    problems.append(f"{page}: no program says '{part}'")


sources = "".join(read(path) for folder in SOURCES for path in glob.glob(f"{folder}/**/*.[ch]", recursive=True))
sources = re.sub(r'"\s*\n\s*"', "", sources).replace('\\"', '"')
counters = "".join(read(page) for page in PAGES if page.startswith("proto/"))  # which say what STATS has
known = options()
assert len(known) >= 8 and "log_level" in known["server"], known
for page in PAGES:
    text = read(page)
    check_links(page, text)
    check_configurations(page, text)
    if not page.startswith("proto/"):
        check_options(page, text, known)
assert "docs/writing-an-expert.md" in checked, checked
check_messages("docs/troubleshooting.md", sources)
for problem in problems:
    print(problem)
raise SystemExit(1 if problems else 0)

#!/usr/bin/env python3
# once: what pages say
"""What the pages say is there: the files and headings that they link to, the options that they name, and the messages
that the page about messages explains."""
import glob
import os
import re
import shutil
import subprocess
import tempfile

BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
PAGES = ["README.md", "ARCHITECTURE.md", *sorted(glob.glob("docs/*.md")), *sorted(glob.glob("proto/*.md"))]
SOURCES = ["frontend", "runtime", "dht", "common", "pools", "command", "http", "client", "proto"]
problems, checked, counted, alerts = [], [], [], []


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


PROGRAMS = ["expertd", "expertd-frontend", "expertd-runtime", "expertd-dht", "expertd-http", "expertctl"]
COMMANDS = {}  # of expertd and expertctl: what --help lists
helps = {}


def help_of(program, command=""):
    if (program, command) not in helps:
        words = [f"{BUILD}/bin/{program}", *filter(None, [command]), "--help"]
        helps[program, command] = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return helps[program, command]


def commands_of(program):
    if program not in COMMANDS:
        COMMANDS[program] = set(re.findall(r"^  ([a-z]+)(?=\s)", help_of(program), re.M))
    return COMMANDS[program]


def check_commands(page, text):
    """Where a page writes one of our programs' lines, its command and its options are there."""
    lines = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for block in lines:
        for line in block.replace("\\\n", " ").splitlines():
            for found in re.finditer(r"(?:^|[\s;(|=/])(expertd(?:-frontend|-runtime|-dht|-http)?|expertctl)((?: +[^\s;|&)#`]+)+)", line):
                program, words = found[1], found[2].split()
                command = words[0] if program == "expertd" and re.fullmatch("[a-z]+", words[0]) else ""
                if program == "expertctl":
                    command = next((word for word in words if word in commands_of(program)), "")
                if command and command not in commands_of(program):
                    problems.append(f"{page}: {program} has no command {command}: {line.strip()}")
                    continue
                known_flags = set(re.findall(r"--[a-z][a-z0-9-]*", help_of(program, command if program == "expertd" else "")))
                for flag in re.findall(r"(?<= )--[a-z][a-z0-9_-]*", " " + " ".join(words)):
                    counted.append(flag)
                    if flag.replace("_", "-") not in known_flags | {"--help", "--version"}:
                        problems.append(f"{page}: {program} {command} has no {flag}: {line.strip()}")


def check_rules(page, text):
    """Alerts are written as Prometheus wants them, over metrics that there are."""
    told = set(re.findall(r'"(expertd_[a-z_]+|process_[a-z_]+)"', read("http/metrics.c"))) | {"expertd_up"}
    for rules in re.findall(r"^```yaml\n(groups:.*?)^```", text, re.M | re.S):
        names = {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\b(?:expertd|process)_[a-z_]+", rules)}
        for name in names - told:
            problems.append(f"{page}: an alert is about {name}, which is not there")
        if shutil.which("promtool"):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(rules)
                file.flush()
                said = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
            if said.returncode != 0:
                problems.append(f"{page}: its alerts are refused: {said.stdout}{said.stderr}")
        alerts.append(page)


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
    check_commands(page, text)
    check_rules(page, text)
    if not page.startswith("proto/"):
        check_options(page, text, known)
assert "docs/writing-an-expert.md" in checked, checked
assert len(counted) > 40 and alerts == ["docs/operating.md"], (len(counted), alerts)
check_messages("docs/troubleshooting.md", sources)
for problem in problems:
    print(problem)
raise SystemExit(1 if problems else 0)

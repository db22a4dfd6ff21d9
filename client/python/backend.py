"""Builds the package's wheel and sdist (PEP 517) with the standard library alone, so that `pip install` needs no network and no
setuptools. What the package is comes from [project] in pyproject.toml."""
import base64
import gzip
import hashlib
import io
import os
import re
import tarfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
STAMP = (1980, 1, 1, 0, 0, 0)  # the same sources make the same bytes
IN_SDIST = ("pyproject.toml", "README.md", "backend.py", "minimal_client.py")


def _read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as text:
        return text.read()


def _project():
    """[project] as a dictionary: of texts and of lists of texts, which is what ours has (tomllib came with Python 3.11)."""
    text = re.search(r"^\[project\]\n(.*?)(?=^\[)", _read("pyproject.toml"), re.M | re.S).group(1)
    project = {}
    for name, value in re.findall(r"^([a-z-]+) = (\[.*?\]|\".*?\")$", text, re.M | re.S):
        texts = re.findall(r"\"(.*?)\"", value)
        project[name] = texts if value.startswith("[") else texts[0]
    return project


def _extras():
    text = re.search(r"^\[project.optional-dependencies\]\n(.*?)(?=^\[|\Z)", _read("pyproject.toml"), re.M | re.S).group(1)
    return {name: re.findall(r"\"(.*?)\"", value) for name, value in re.findall(r"^([a-z]+) = \[(.*?)\]$", text, re.M)}


def _metadata(project):
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}",
             f"Summary: {project['description']}", f"Requires-Python: {project['requires-python']}"]
    lines += [f"Classifier: {classifier}" for classifier in project["classifiers"]]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    for extra, requirements in _extras().items():
        lines += [f"Provides-Extra: {extra}"] + [f'Requires-Dist: {r}; extra == "{extra}"' for r in requirements]
    return "\n".join(lines + ["Description-Content-Type: text/markdown", "", _read("README.md")])


def _sources(folder):
    for where, folders, files in os.walk(os.path.join(HERE, folder)):
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        for file in sorted(files):
            if file.endswith(".py") or file == "py.typed":
                yield os.path.relpath(os.path.join(where, file), HERE)


def _info_files(project):
    return {"METADATA": _metadata(project),
            "WHEEL": "Wheel-Version: 1.0\nGenerator: expertd\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}


def _write_wheel(wheel_directory, contents):
    project = _project()
    info = f"{project['name']}-{project['version']}.dist-info"
    name = f"{project['name']}-{project['version']}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in {**contents, **{f"{info}/{n}": t.encode() for n, t in _info_files(project).items()}}.items():
            wheel.writestr(zipfile.ZipInfo(path, STAMP), data, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(data)}")
        record.append(f"{info}/RECORD,,")
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD", STAMP), "\n".join(record) + "\n")
    return name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    contents = {}
    for path in _sources("expertd"):
        with open(os.path.join(HERE, path), "rb") as source:
            contents[path.replace(os.sep, "/")] = source.read()
    return _write_wheel(wheel_directory, contents)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _write_wheel(wheel_directory, {"expertd-source.pth": (HERE + "\n").encode()})


def build_sdist(sdist_directory, config_settings=None):
    project = _project()
    base = f"{project['name']}-{project['version']}"
    with open(os.path.join(sdist_directory, base + ".tar.gz"), "wb") as out, \
            gzip.GzipFile("", "wb", fileobj=out, mtime=0) as packed, tarfile.open(mode="w", fileobj=packed) as sdist:
        def add(path, data):
            entry = tarfile.TarInfo(f"{base}/{path}")
            entry.size, entry.mode = len(data), 0o644
            sdist.addfile(entry, io.BytesIO(data))
        for path in [*IN_SDIST, *_sources("expertd"), *_sources("tests")]:
            with open(os.path.join(HERE, path), "rb") as source:
                add(path.replace(os.sep, "/"), source.read())
        add("PKG-INFO", _metadata(project).encode())
    return base + ".tar.gz"

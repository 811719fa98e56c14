"""Fetches the Debian packages that split.py names and takes from them the files that it names."""
import glob
import hashlib
import json
import os
import shutil
import subprocess
import tarfile

import qt_resources
import split

#: By package: licence as its copyright file states it for the files that split.py names.
LICENCES = {
    "tuxpaint-stamps-default": "GPL-2.0-or-later",
    "megaglest-data": "CC-BY-SA-3.0",
    "widelands-data": "GPL-2.0-or-later",
    "gcompris-qt-data": "GPL-3.0 (farm animals), Free Art License 1.2 (memory-sound)",
    "fonts-noto-color-emoji": "OFL-1.1",
}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def archive(package, folders):
    """The path of the package's .deb in one of the folders, downloaded into the first where it is in none."""
    for attempt in range(2):
        for folder in folders:
            if found := sorted(glob.glob(os.path.join(folder, f"{package}_*.deb"))):
                return found[-1]
        if attempt == 0:
            os.makedirs(folders[0], exist_ok=True)
            subprocess.run(["apt-get", "download", package], cwd=folders[0], check=True)
    raise SystemExit(f"apt-get downloaded no file of {package}")


def extract(deb, wanted, copyright_path, out):
    """Extracts the members of `deb` that are wanted (paths without a leading ./) into `out`."""
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    with tarfile.open(fileobj=process.stdout, mode="r|") as archive_file:
        for member in archive_file:
            name = member.name.removeprefix("./")
            if member.isfile() and (name in wanted or name == copyright_path):
                target = os.path.join(out, name)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with archive_file.extractfile(member) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
    process.stdout.close()
    process.wait()


def unpack_resources(out, inner):
    """Writes the wanted files of compiled resources beside them, under `<resource>!/`."""
    for resource, names in inner.items():
        with open(os.path.join(out, resource), "rb") as file:
            for path, contents in qt_resources.files(file.read()):
                if path in names:
                    target = os.path.join(out, f"{resource}!", path)
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    with open(target, "wb") as written:
                        written.write(contents)


def local(work, path):
    """Where the file that split.py calls `path` lies."""
    package, inside = path.split(":", 1)
    return os.path.join(work, "files", package, inside.replace("!", "!/"))


def prepare(work, folders):
    """Extracts every file of the table; writes provenance.json."""
    record = {"packages": [], "files": []}
    for package in split.PACKAGES:
        deb = archive(package, [*folders, os.path.join(work, "packages")])
        out = os.path.join(work, "files", package)
        outer, inner = set(), {}
        for path in split.paths(package):
            inside = path.split(":", 1)[1]
            outer.add(inside.split("!")[0])
            if "!" in inside:
                resource, name = inside.split("!")
                inner.setdefault(resource, set()).add(name)
        if not all(os.path.exists(local(work, path)) for path in split.paths(package)):
            extract(deb, outer, f"usr/share/doc/{package}/copyright", out)
            unpack_resources(out, inner)
        version = subprocess.run(
            ["dpkg-deb", "-f", deb, "Version"], check=True, capture_output=True, text=True
        ).stdout.strip()
        record["packages"].append(
            {"name": package, "version": version, "sha256": sha256(deb), "licence": LICENCES[package]}
        )
    for path in sorted(set(split.paths())):
        where = local(work, path)
        if not os.path.exists(where):
            raise SystemExit(f"{path} is not in the package; another version than the one in provenance.json?")
        record["files"].append(
            {"path": path, "sha256": sha256(where), "licence": LICENCES[path.split(':')[0]]}
        )
    with open(os.path.join(work, "provenance.json"), "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)

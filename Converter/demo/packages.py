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

#: Version and SHA-256 of each package: those of Debian 12.
PINNED = {
    "tuxpaint-stamps-default": (
        "2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
    ),
    "megaglest-data": ("3.13.0-3", "ed4783d9fc78e201a548b266f7c30325eb16cfd58a20bf4597dd6e622f84a07e"),
    "widelands-data": ("2:1.1-3", "0e23d645b15bcfb9e3bcae0de9bc1bdfa75a6ecb36b2e449759d6eb0b4bbd8fb"),
    "gcompris-qt-data": ("3.1-2", "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f"),
    "fonts-noto-color-emoji": (
        "2.042-0+deb12u1", "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751"
    ),
}

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


def archive(package, folders, downloads):
    """The path of the package's .deb in one of the folders, downloaded into `downloads` where it is in none."""
    version, digest = PINNED[package]
    for attempt in range(2):
        for folder in [*folders, downloads]:
            for found in sorted(glob.glob(os.path.join(folder, f"{package}_*.deb"))):
                if sha256(found) == digest:
                    return found
        if attempt == 0:
            os.makedirs(downloads, exist_ok=True)
            subprocess.run(["apt-get", "download", f"{package}={version}"], cwd=downloads)
    raise SystemExit(
        f"apt-get has no {package} {version}, SHA-256 {digest}; take it from Debian 12 or snapshot.debian.org and name "
        "its folder with --packages"
    )


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
    while process.stdout.read(1 << 20):  # what pads the archive
        pass
    if process.wait() != 0:
        raise SystemExit(f"dpkg-deb cannot read {deb}")


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
        deb = archive(package, folders, os.path.join(work, "packages"))
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

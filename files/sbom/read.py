"""Print the packages of a host and of its containers as one JSON object.

Sent to a host by `llmhost sbom` and run there as root by Python 3.10 or newer. Arguments: the name
of the Compose project, and the names of its services.

A container is not trusted: its files are read by a child process whose root directory is the
container's, so that no link leads out of it. Nothing in a container is executed.
"""

import json
import os
import re
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

# An index is read whole, other files up to this size.
MOST_INDEX, MOST_TEXT = 64 << 20, 1 << 20
EXPORTED = (
    "etc/os-release",
    "usr/lib/os-release",
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d/*",
    "usr/share/doc/*",
    "lib/apk/db/installed",
    "usr/lib/sysimage/rpm/*",
    "var/lib/rpm/*",
    "*.dist-info/METADATA",
    "*.egg-info/PKG-INFO",
    "*/node_modules/*package.json",
)
RPM = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
# rpmtag.h. Values of these types end with a zero byte, or are four bytes.
RPM_TEXTS = {1000: "name", 1001: "version", 1002: "release", 1014: "licence", 1022: "architecture"}
RPM_EPOCH = 1003


def text(path, most=MOST_TEXT):
    """A regular file; empty if it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        try:
            return file.read(most).decode(errors="replace")
        except OSError:
            return ""


def names_in(directory):
    try:
        return sorted(each.name for each in Path(directory).iterdir())
    except OSError:
        return []


def os_release():
    lines = (text("/etc/os-release") or text("/usr/lib/os-release")).splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key: value.strip().strip("\"'") for key, _, value in pairs}


def package(kind, name, version, licences, architecture=""):
    return {
        "kind": kind,
        "name": name,
        "version": version,
        "architecture": architecture,
        "licences": sorted({each.strip() for each in licences if each.strip()}),
    }


def stanzas(content):
    """The fields of each paragraph of a Debian control file, without continued lines."""
    for paragraph in content.split("\n\n"):
        lines = [line for line in paragraph.split("\n") if ": " in line and line[0] not in " \t"]
        yield dict(line.split(": ", 1) for line in lines)


def debian():
    content = text("/var/lib/dpkg/status", MOST_INDEX)
    # Images without a package manager keep one file for each package.
    several = "/var/lib/dpkg/status.d"
    content += "".join("\n\n" + text(f"{several}/{name}") for name in names_in(several))
    for each in stanzas(content):
        if "Package" in each and each.get("Status", "install ok installed").endswith(" installed"):
            name = each["Package"]
            licences = debian_licences(text(f"/usr/share/doc/{name}/copyright"))
            yield package(
                "deb", name, each.get("Version", ""), licences, each.get("Architecture", "")
            )


def debian_licences(copyright_file):
    """The names in a machine-readable copyright file; of another one, the licenses of Debian's
    common-licenses that it refers to."""
    if "copyright-format" in copyright_file.split("\n\n", 1)[0]:
        found = re.findall(r"^License:[ \t]*(\S.*)$", copyright_file, re.MULTILINE)
        return {re.sub(r"\s+", " ", each) for each in found}
    found = re.findall(r"common-licenses/([A-Za-z0-9.-]*[A-Za-z0-9])", copyright_file)
    return {*found}


def alpine():
    for paragraph in text("/lib/apk/db/installed", MOST_INDEX).split("\n\n"):
        lines = (line.partition(":") for line in paragraph.splitlines())
        each = {key: value for key, _, value in lines if len(key) == 1}
        if "P" in each:
            licences = [each["L"]] if each.get("L") else []
            yield package("apk", each["P"], each.get("V", ""), licences, each.get("A", ""))


def rpm():
    """Packages of RPM 4.16 and newer, whose database is SQLite's."""
    for place in RPM:
        if not os.path.lexists(f"{place}/rpmdb.sqlite"):
            continue
        database = sqlite3.connect(f"file:{place}/rpmdb.sqlite?immutable=1", uri=True)
        try:
            for (blob,) in database.execute("SELECT blob FROM Packages"):
                yield from rpm_package(blob)
        except (sqlite3.Error, struct.error, ValueError, TypeError):
            return  # `unread` says that there are none
        finally:
            database.close()


def rpm_package(blob):
    """A package from its header: the lengths of index and data, the index, and the data.

    https://rpm.org/docs/4.19.x/manual/format_header.html, without the magic number.
    """
    count, _ = struct.unpack_from(">2I", blob)
    data = blob[8 + 16 * count :]
    found = {}
    for tag, _, offset, _ in struct.iter_unpack(">4I", blob[8 : 8 + 16 * count]):
        if tag in RPM_TEXTS:
            value = data[offset : data.index(b"\0", offset)]
            found[RPM_TEXTS[tag]] = value.decode(errors="replace")
        elif tag == RPM_EPOCH:
            (found["epoch"],) = struct.unpack_from(">I", data, offset)
    if found.get("name") and found["name"] != "gpg-pubkey":
        epoch = f"{found['epoch']}:" if found.get("epoch") else ""
        version = f"{epoch}{found.get('version', '')}-{found.get('release', '')}"
        licences = [found.get("licence", "")]
        yield package("rpm", found["name"], version, licences, found.get("architecture", ""))


def headers(content):
    """The fields of a Python package's metadata, each with its values."""
    fields = {}
    for line in content.partition("\n\n")[0].splitlines():
        name, colon, value = line.partition(":")
        if colon and line[0] not in " \t":
            fields.setdefault(name.lower(), []).append(value.strip())
    return fields


def python(path):
    found = headers(text(path))
    if found.get("name") and found.get("version"):
        yield package("pypi", found["name"][0], found["version"][0], python_licences(found))


def python_licences(fields):
    """By PEP 639, or else the classifiers, or else the field `License`, which may be a whole
    text."""
    if fields.get("license-expression"):
        return fields["license-expression"]
    classifiers = [each for each in fields.get("classifier", []) if each.startswith("License :: ")]
    names = [each.rpartition(" :: ")[2] for each in classifiers]
    short = [each for each in fields.get("license", []) if len(each) < 100]
    return [each for each in names if each != "OSI Approved"] or short


def node(path):
    try:
        found = json.loads(text(path))
        name, version = found["name"], found["version"]
        several = found.get("licenses") or [found.get("license") or ""]
        several = several if isinstance(several, list) else [several]
        licences = [each.get("type", "") if isinstance(each, dict) else each for each in several]
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    if isinstance(name, str) and isinstance(version, str):
        yield package("npm", name, version, filter(lambda each: isinstance(each, str), licences))


def installed_for_languages():
    """Python's and Node's packages anywhere below the root, not in what is mounted there."""
    device = os.lstat("/").st_dev
    for place, directories, files in os.walk("/"):
        # A directory of an overlay has the overlay's device number.
        directories[:] = [each for each in directories if same_device(f"{place}/{each}", device)]
        if place.endswith(".dist-info") and "METADATA" in files:
            yield from python(f"{place}/METADATA")
        elif place.endswith(".egg-info") and "PKG-INFO" in files:
            yield from python(f"{place}/PKG-INFO")
        elif "package.json" in files and re.search(r"/node_modules/(@[^/]+/)?[^/]+$", place):
            yield from node(f"{place}/package.json")


def same_device(directory, device):
    try:
        return os.lstat(directory).st_dev == device
    except OSError:
        return False


def unread(packages):
    """Why packages of this root are missing."""
    databases = [name for place in RPM for name in names_in(place) if name.startswith("rpmdb")]
    if databases and not any(each["kind"] == "rpm" for each in packages):
        return "its RPM packages could not be read"
    return ""


def everything(languages):
    """The packages below the root directory of this process."""
    found = [*debian(), *alpine(), *rpm(), *(installed_for_languages() if languages else ())]
    once = {json.dumps(each, sort_keys=True): each for each in found}
    return {"os": os_release(), "packages": [*once.values()], "unread": unread(found)}


def confined(root):
    """`everything` of a container, read by a child process with this root directory."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            sys.meta_path.clear()  # nothing is imported any longer: it would be the container's
            os.chroot(root)
            os.chdir("/")
            with os.fdopen(writer, "w") as answer:
                json.dump(everything(languages=True), answer)
            status = 0
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as answer:
        output = answer.read()
    if os.waitpid(child, 0)[1]:
        raise OSError(f"{root} could not be read")
    return json.loads(output)


def run(*command):
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if ran.returncode:
        raise OSError(ran.stderr.decode(errors="replace").strip() or f"{command[0]} failed")
    return ran.stdout.decode(errors="replace").strip()


def stopped(container):
    """`everything` of a container that does not run, from an export of the files that matter."""
    with tempfile.TemporaryDirectory(prefix="llmhost-sbom-") as root:
        export = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
        unpack = ["tar", "--extract", "--no-same-owner", "--wildcards", "--directory", root]
        # tar fails if a pattern matches nothing.
        subprocess.run([*unpack, *EXPORTED], stdin=export.stdout, stderr=subprocess.DEVNULL)
        export.stdout.close()
        if export.wait():
            raise OSError(f"docker export {container} failed")
        return confined(root)


def container(project, service):
    name = f"{project}-{service}-1"
    state = json.loads(run("docker", "inspect", "--type", "container", name))[0]
    image = json.loads(run("docker", "image", "inspect", state["Image"]))[0]
    pid = state["State"]["Pid"]
    found = confined(f"/proc/{pid}/root") if pid else stopped(name)
    names = {"image": state["Config"]["Image"], "id": state["Image"]}
    return {"service": service, "digests": image.get("RepoDigests") or [], **names, **found}


def main(project, *services):
    containers, errors = [], {}
    for service in services:
        try:
            containers.append(container(project, service))
        except (OSError, ValueError) as error:
            errors[service] = str(error).splitlines()[-1]
    kernel = os.uname()
    host = everything(languages=False)
    return {"kernel": kernel.release, "host": host, "containers": containers, "errors": errors}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))

#!/usr/bin/env python3
"""The software bill of materials of a package, as SPDX 2.3 JSON, from dpkg's own data.

usage: sbom.py signal-agent_VERSION_ARCH.deb > signal-agent_VERSION_ARCH.spdx.json

Lists the package itself, the libraries its programs are linked with (by the Debian package that
holds them on the machine of the build, with version and licence file), and what is compiled in. The
same package on the same machine gives the same bytes.
"""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

# Compiled in: header libraries and the console's script. (package or name, how it is linked)
HEADERS_ONLY = ["libboost1.81-dev", "libcli11-dev", "nlohmann-json3-dev"]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def field(deb, name):
    return output("dpkg-deb", "--field", str(deb), name).strip()


def linked_libraries(folder):
    """Sonames that the package's programs need directly."""
    needed = set()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            needed |= set(re.findall(r"NEEDED\s+(\S+)", output("objdump", "-p", str(path))))
    return sorted(needed)


def owner_of(soname):
    """The Debian package that holds a library here, or None for the C library's own parts."""
    for line in output("/sbin/ldconfig", "-p").splitlines():
        found = re.match(r"\s+(\S+) \(.*x86-64.*|\s+(\S+) \(", line)
        if not found or (found.group(1) or found.group(2)) != soname:
            continue
        path = os.path.realpath(line.split("=> ")[1].strip())
        for candidate in (path, path.removeprefix("/usr")):
            result = subprocess.run(["dpkg", "-S", candidate], capture_output=True, text=True)
            if result.returncode == 0:
                return result.stdout.split(": ")[0].split(":")[0]
    sys.exit(f"no Debian package owns {soname}")


def debian_package(name, relation):
    version, arch, source, homepage = output(
        "dpkg-query", "-W", "-f", "${Version}\n${Architecture}\n${source:Package}\n${Homepage}\n", name
    ).split("\n")[:4]
    entry = {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", name),
        "name": name, "versionInfo": version, "supplier": "Organization: Debian",
        "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
        "copyrightText": f"see /usr/share/doc/{name}/copyright",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
            "referenceLocator": f"pkg:deb/debian/{name}@{version}?arch={arch}&upstream={source}"}],
    }
    if homepage:
        entry["homepage"] = homepage
    return entry, relation


def main():
    deb = pathlib.Path(sys.argv[1])
    name, version = field(deb, "Package"), field(deb, "Version")
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", str(deb), folder], check=True)
        root = pathlib.Path(folder)
        owners = sorted({owner_of(soname) for soname in linked_libraries(root)})
        newest = max(int(path.stat().st_mtime) for path in root.rglob("*") if path.is_file())
    parts = [debian_package(owner, "DYNAMIC_LINK") for owner in owners]
    parts += [debian_package(header, "STATIC_LINK") for header in HEADERS_ONLY]
    itself = {
        "SPDXID": "SPDXRef-" + name, "name": name, "versionInfo": version,
        "supplier": "Organization: signal-agent maintainers", "downloadLocation": "NOASSERTION",
        "packageFileName": deb.name, "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
        "licenseConcluded": "Apache-2.0", "licenseDeclared": "Apache-2.0",
        "copyrightText": "2026 the signal-agent authors"}
    lit = {
        "SPDXID": "SPDXRef-lit-html", "name": "lit-html", "versionInfo": "NOASSERTION",
        "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "licenseConcluded": "BSD-3-Clause", "licenseDeclared": "BSD-3-Clause",
        "copyrightText": "2017 Google LLC"}
    lock = pathlib.Path(__file__).parent.parent / "agent" / "admin" / "web" / "package-lock.json"
    if lock.exists():
        pinned = json.loads(lock.read_text())["packages"]["node_modules/lit-html"]["version"]
        lit["versionInfo"] = pinned
        lit["externalRefs"] = [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                                "referenceLocator": f"pkg:npm/lit-html@{pinned}"}]
    parts.append((lit, "STATIC_LINK"))
    document = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{version}-{digest}",
        "creationInfo": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest)),
                         "creators": ["Tool: packaging/sbom.py"]},
        "packages": [itself] + [part for part, _ in parts],
        "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                           "relatedSpdxElement": itself["SPDXID"]}] +
                         [{"spdxElementId": itself["SPDXID"], "relationshipType": relation,
                           "relatedSpdxElement": part["SPDXID"]} for part, relation in parts],
    }
    json.dump(document, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()

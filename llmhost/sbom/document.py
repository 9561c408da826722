"""A CycloneDX document of one host: its packages, its containers with theirs, and its models.

The library writes everything but model cards, which it does not know yet (cyclonedx-python-lib 11):
they are added to its output, and tests validate the whole.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.license import License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from llmhost.sbom.licences import spdx
from llmhost.sbom.models import ModelAbout

_DISTRIBUTIONS = {"deb": "debian", "apk": "alpine", "rpm": "redhat"}
_licences = LicenseFactory()


def document(
    host: str, found: Mapping[str, Any], models: Iterable[ModelAbout], version: str
) -> str:
    """The document's JSON text. `found` is the answer of files/sbom/read.py, `version` llmhost's.

    Equal hosts give equal documents, but for the serial number and the time.
    """
    known = [*models]
    about = found["host"]["os"]
    root = Component(name=host, type=ComponentType.DEVICE, bom_ref=f"host:{host}")
    system = Component(
        name=about.get("ID", "linux"),
        type=ComponentType.OPERATING_SYSTEM,
        version=about.get("VERSION_ID", ""),
        description=about.get("PRETTY_NAME"),
        bom_ref="os",
        properties=_properties({"kernel": found["kernel"]}),
        components=[*_packages("host", found["host"])],
    )
    containers = {each["service"]: _container(each) for each in found["containers"]}
    weights = {each.name: _model(each) for each in known}
    bom = Bom(components=[system, *containers.values(), *weights.values()])
    bom.metadata.component = root
    bom.metadata.tools.components.add(
        Component(name="llmhost", type=ComponentType.APPLICATION, version=version)
    )
    bom.metadata.properties = _properties(
        {f"unread:{name}": why for name, why in sorted(unread(found).items())}
    )
    bom.register_dependency(root, [system, *containers.values()])
    for service, component in containers.items():
        bom.register_dependency(
            component, [weights[each.name] for each in known if each.service == service]
        )
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    return json.dumps(_with_cards(written, known), indent=2) + "\n"


def unread(found: Mapping[str, Any]) -> dict[str, str]:
    """Why the packages of a service, or of the `host`, are missing in the document."""
    whole = {each["service"]: each for each in found["containers"]} | {"host": found["host"]}
    reasons = {name: each["unread"] for name, each in whole.items() if each["unread"]}
    return {**found["errors"], **reasons}


def _properties(values: Mapping[str, str]) -> list[Property]:
    return [Property(name=f"llmhost:{key}", value=value) for key, value in values.items() if value]


def _packages(place: str, found: Mapping[str, Any]) -> Iterator[Component]:
    """One component a package; a reference names the place, as the same package may be in several
    images."""
    seen: set[str] = set()
    for each in found["packages"]:
        url = _url(each, found["os"])
        reference = f"{place}:{url}"
        if reference in seen:  # the same version twice in one image, with other licenses
            continue
        seen.add(reference)
        yield Component(
            name=each["name"],
            type=ComponentType.LIBRARY,
            version=each["version"],
            bom_ref=reference,
            purl=url,
            licenses=_licenses(tuple(each["licences"])),
        )


def _url(package: Mapping[str, Any], system: Mapping[str, str]) -> PackageURL:
    kind, name, version = package["kind"], package["name"], package["version"]
    namespace, qualifiers = None, {}
    if kind in _DISTRIBUTIONS:
        namespace = system.get("ID", _DISTRIBUTIONS[kind])
        release = system.get("VERSION_ID", "")
        qualifiers = {"arch": package["architecture"], "distro": f"{namespace}-{release}"}
        if kind == "rpm" and ":" in version:
            qualifiers["epoch"], _, version = version.partition(":")
    elif kind == "npm" and name.startswith("@") and "/" in name:
        namespace, _, name = name.partition("/")
    return PackageURL(kind, namespace, name, version, qualifiers)


@cache
def _licenses(names: Sequence[str]) -> tuple[License, ...]:
    """Either licenses or one expression, as CycloneDX requires."""
    found = [_licences.make_from_string(spdx(name)) for name in names]
    if len(found) > 1:
        found = [
            _licences.make_with_name(each.value) if isinstance(each, LicenseExpression) else each
            for each in found
        ]
    return tuple(found)


def _container(found: Mapping[str, Any]) -> Component:
    repository, _, tag = found["image"].rpartition(":")
    name = repository.rpartition("/")[2]
    digest = found["id"].removeprefix("sha256:")
    service = found["service"]
    ancestors = [_engine(found["engine"])] if found.get("engine") else []
    return Component(
        name=repository or found["image"],
        type=ComponentType.CONTAINER,
        version=tag,
        bom_ref=f"service:{service}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        purl=PackageURL("oci", None, name or service, f"sha256:{digest}"),
        properties=_properties({"service": service}),
        pedigree=Pedigree(ancestors=ancestors) if ancestors else None,
        components=[*_packages(service, found)],
    )


def _engine(reference: str) -> Component:
    """The image that a service's image was built from."""
    place, _, digest = reference.partition("@")
    repository, colon, tag = place.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = place, ""
    name = repository.rpartition("/")[2]
    qualifiers = {"repository_url": repository, "tag": tag}
    return Component(
        name=repository,
        type=ComponentType.CONTAINER,
        version=tag or digest,
        purl=PackageURL("oci", None, name, digest or None, qualifiers),
        bom_ref=f"engine:{reference}",
    )


def _model(model: ModelAbout) -> Component:
    several = len(model.files) > 1
    return Component(
        name=model.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=model.version,
        description=model.source,
        bom_ref=f"model:{model.name}",
        hashes=[] if several else [_sha256(each) for each in model.files.values()],
        licenses=_licenses(tuple(model.licences)),
        pedigree=Pedigree(
            ancestors=[
                Component(
                    name=name,
                    type=ComponentType.MACHINE_LEARNING_MODEL,
                    bom_ref=f"model:{model.name}:base:{quote(name)}",
                )
                for name in model.ancestors
            ]
        )
        if model.ancestors
        else None,
        properties=_properties(
            {"service": model.service, "source": model.source, "quantization": model.quantization}
        ),
        components=[
            Component(
                name=path,
                type=ComponentType.FILE,
                hashes=[_sha256(digest)],
                bom_ref=f"model:{model.name}:{path}",
            )
            for path, digest in (model.files.items() if several else ())
        ],
    )


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _with_cards(written: dict[str, Any], models: Iterable[ModelAbout]) -> dict[str, Any]:
    """With a model card for each model."""
    cards = {f"model:{model.name}": _card(model) for model in models}
    for component in written.get("components", ()):
        if component["bom-ref"] in cards:
            component["modelCard"] = cards[component["bom-ref"]]
    return written


def _card(model: ModelAbout) -> dict[str, Any]:
    parameters = {"task": model.task}
    if model.architecture:
        parameters["architectureFamily"] = model.architecture
    card: dict[str, Any] = {"modelParameters": parameters}
    if model.quantization:
        card["properties"] = [{"name": "llmhost:quantization", "value": model.quantization}]
    return card

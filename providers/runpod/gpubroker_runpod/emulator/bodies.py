"""What requests may say: their schemas, and what is said of those that break them."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

CudaVersion = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^(ssh|ecdsa|sk)-\S+ \S+([ \t][^\n\r]*)?$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class _Body(BaseModel):
    """Nothing is converted, and nothing unknown is let pass."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Gpu(_Body):
    """Which cards."""

    id: str
    count: int = Field(default=1, ge=1)
    allowedCudaVersions: list[CudaVersion] = Field(default_factory=list[str])  # noqa: N815
    minCudaVersion: CudaVersion | None = None  # noqa: N815
    minRamPerGpu: int | None = Field(default=None, ge=1)  # noqa: N815
    minVcpuCountPerGpu: int | None = Field(default=None, ge=1)  # noqa: N815


class Cpu(_Body):
    """Which processors, for a pod without cards."""

    id: Text
    vcpuCount: int = Field(ge=2)  # noqa: N815


class PersistentMount(_Body):
    """Storage on the host."""

    size: int = Field(ge=10)
    path: str


class NetworkMount(_Body):
    """A network volume."""

    volumeId: str  # noqa: N815
    path: str


class Mounts(_Body):
    """Storage besides the container's own disk."""

    persistent: PersistentMount | None = None
    network: list[NetworkMount] = Field(default_factory=list[NetworkMount], max_length=1)


class CreatePod(_Body):
    """The order of a pod."""

    name: Text
    image: str | None = None
    gpu: Gpu | None = None
    cpu: Cpu | None = None
    cloud: Annotated[str, StringConstraints(pattern="^(SECURE|COMMUNITY)$")] = "SECURE"
    dataCenterIds: list[str] = Field(default_factory=list[str])  # noqa: N815
    disk: int | None = Field(default=None, ge=1)
    env: dict[str, str] = Field(default_factory=dict[str, str])
    ports: list[str] = Field(default_factory=list[str])
    args: str = ""
    cmd: list[str] = Field(default_factory=list[str])
    entrypoint: list[str] = Field(default_factory=list[str])
    registry: str | None = None
    mounts: Mounts = Field(default_factory=Mounts)
    globalNetworking: bool = False  # noqa: N815
    startSsh: bool = False  # noqa: N815
    startJupyter: bool = False  # noqa: N815
    templateId: Text | None = None  # noqa: N815


class PodAction(_Body):
    """What is to happen to a pod."""

    action: Annotated[str, StringConstraints(pattern="^(start|stop|restart|terminate)$")]


class SshKeys(_Body):
    """All keys of the account."""

    keys: list[PublicKey]


#: Fields of an order, and of its cards, that only a later revision of the document has.
_NEWER: Final = ("cmd", "entrypoint")
_NEWER_OF_GPU: Final = ("minRamPerGpu", "minVcpuCountPerGpu")

M = TypeVar("M", bound=_Body)


class BadBody(Exception):
    """A body breaks its schema.

    Attributes:
        errors: each violation, in the vendor's words as far as these are known.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


def parsed(model: type[M], body: dict[str, Any]) -> M:
    """A body by its schema. ``null`` stands for nothing only where the schema says so.

    Raises:
        BadBody: it breaks the schema.
    """
    nulls = [name for name, value in body.items() if value is None and name != "registry"]
    if nulls:
        raise BadBody([f"$.{name}: got null, want another type" for name in nulls])
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise BadBody(_violations(error, body)) from None


def order(body: dict[str, Any], *, newer: bool) -> CreatePod:
    """The order of a pod, by the document's present or later revision.

    Raises:
        BadBody: it breaks the schema.
    """
    gpu = body.get("gpu")
    cards = cast("dict[str, Any]", gpu) if isinstance(gpu, dict) else {}
    unknown = [f"$: additional properties '{name}' not allowed" for name in _NEWER if name in body]
    unknown += [
        f"$.gpu: additional properties '{name}' not allowed"
        for name in _NEWER_OF_GPU
        if name in cards
    ]
    if unknown and not newer:
        raise BadBody(unknown)
    wanted = parsed(CreatePod, body)
    if wanted.templateId is None and wanted.image is None:
        raise BadBody(["$: missing property 'image'"])
    return wanted


def _violations(error: ValidationError, body: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        *above, name = one["loc"]
        at = ".".join(("$", *(str(part) for part in above)))
        if one["type"] == "extra_forbidden":
            found.append(f"{at}: additional properties '{name}' not allowed")
        elif one["type"] == "missing":
            found.append(f"{at}: missing property '{name}'")
            if not above:
                # The composed schema no longer applies as a whole: what is right looks unknown.
                rest = ", ".join(f"'{known}'" for known in body if known != name)
                found += [f"$: additional properties {rest} not allowed"] if rest else []
        else:
            found.append(f"{at}.{name}: {one['msg']}")
    return found

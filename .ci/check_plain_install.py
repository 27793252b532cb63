"""Check what the wheel puts into an environment in which it is alone with its dependencies."""

from importlib.metadata import distribution, distributions, entry_points
from importlib.resources import files

import gpubroker

MOST_PACKAGES = 14

names = sorted({d.name for d in distributions()} - {"pip", "setuptools", "wheel"})
print(f"gpubroker {gpubroker.__version__}, {len(names)} packages: {', '.join(names)}")
assert len(names) <= MOST_PACKAGES, "too many packages"

installed = distribution("gpubroker").files or []
top = {path.parts[0] for path in installed} - {".."}
print(f"at the top level: {', '.join(sorted(top))}")
assert top, "nothing is installed"
assert all(name.startswith("gpubroker") for name in top), "a name that is not ours"

packages = sorted(name for name in top if not name.endswith(".dist-info"))
untyped = [name for name in packages if not files(name).joinpath("py.typed").is_file()]
assert not untyped, f"no py.typed in {untyped}"

providers = sorted(point.name for point in entry_points(group="gpubroker"))
print(f"providers: {', '.join(providers)}")
assert {"local", "runpod", "vast"} <= set(providers), "a provider is missing"

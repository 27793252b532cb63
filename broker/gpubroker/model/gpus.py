"""placeholder"""
def parse_gpu(name: str, field: str = "gpu") -> str:
    return name
def gpu_name(text: str, vram: float | None = None) -> str:
    return text
def gpu_matches(wanted: str, offered: str) -> bool:
    return wanted == offered

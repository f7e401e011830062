"""What config.json says about weights quantized by AWQ, GPTQ or compressed-tensors, as plain numbers.

Only the fields listed here are used. A field that calls for reading the weights in another way than `quantized_tensors`
does is refused by name, and the message says which forms of the model are served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from antiphon.formats.fields import Fields, shown

# Where config.json has it; the second is from early versions of compressed-tensors.
SOURCES = ("quantization_config", "compression_config")
METHODS = ("awq", "gptq", "compressed-tensors")
REMEDY = (
    "serve the model as its publisher made it (BF16 or F16), as GGUF, or quantized by AWQ (gemm), GPTQ or "
    "compressed-tensors (W4A16, W8A16 or W8A8, all layers alike)"
)
GROUP = 32  # weights that share a scale in our kernels; a checkpoint's groups must be multiples of it
WHOLE_ROW = 0


@dataclass(frozen=True, slots=True)
class QuantizationConfig:
    """How every quantized matrix of a folder is stored: a weight is (code - zero point) * its group's scale."""

    method: str  # one of METHODS
    bits: int  # of a code: 4 or 8
    group_size: int  # weights of a row that share a scale; WHOLE_ROW: all of them
    symmetric: bool  # every zero point is the middle code
    packed: bool = True  # codes are packed in 32-bit words; else each is an int8
    zero_offset: int = 0  # to be added to a stored zero point

    @property
    def name(self) -> str:
        """For people."""
        groups = f"groups of {self.group_size}" if self.group_size else "a scale for each row"
        zeros = "symmetric" if self.symmetric else "zero points"
        method = self.method if self.method == "compressed-tensors" else self.method.upper()
        return f"{method}, {self.bits} bits, {groups}, {zeros}"


def read_quantization_config(config: Fields) -> QuantizationConfig | None:
    """The quantization of a config.json, None if it has none; raises CheckpointError for one that is not served."""
    source = next((key for key in SOURCES if config.has(key)), None)
    if source is None:
        return None
    fields = _inside(config, source, config.values[source])
    method = fields.string(f"{source}.quant_method", "compressed-tensors" if source == SOURCES[1] else None)
    match method:
        case "awq":
            return _awq(fields, source)
        case "gptq":
            return _gptq(fields, source)
        case "compressed-tensors":
            return _compressed_tensors(fields, source)
    _refuse(fields, f"{source}.quant_method", method)


def _awq(fields: Fields, source: str) -> QuantizationConfig:
    layout = "version" if fields.has(f"{source}.version") else "format"
    _only(fields, f"{source}.{layout}", "gemm", fields.string(f"{source}.{layout}", "gemm").lower())
    _only(fields, f"{source}.bits", 4, fields.integer(f"{source}.bits"))
    _only(fields, f"{source}.zero_point", True, fields.flag(f"{source}.zero_point", True))
    return QuantizationConfig("awq", 4, _group_size(fields, f"{source}.group_size"), symmetric=False)


def _gptq(fields: Fields, source: str) -> QuantizationConfig:
    """`gptq`, the first layout, stores zero points less one; `gptq_v2` stores them as they are."""
    layout = "checkpoint_format" if fields.has(f"{source}.checkpoint_format") else "format"
    version = fields.string(f"{source}.{layout}", "gptq").lower()
    if version not in ("gptq", "gptq_v2") or fields.flag(f"{source}.is_marlin_format", False):
        _refuse(fields, f"{source}.{layout}", version if version != "gptq" else "marlin")
    dynamic = fields.values.get(f"{source}.dynamic") or {}
    if not isinstance(dynamic, Mapping) or not all(str(pattern).startswith("-:") for pattern in dynamic):
        _refuse(fields, f"{source}.dynamic", dynamic)  # layers quantized in another way; "-:" are layers left alone
    return QuantizationConfig(
        "gptq",
        _bits(fields, f"{source}.bits"),
        _group_size(fields, f"{source}.group_size"),
        symmetric=fields.flag(f"{source}.sym", True),
        zero_offset=1 if version == "gptq" else 0,
    )


def _compressed_tensors(fields: Fields, source: str) -> QuantizationConfig:
    layout = fields.string(f"{source}.format")
    if layout not in ("pack-quantized", "int-quantized"):
        _refuse(fields, f"{source}.format", layout)
    sparsity = fields.values.get(f"{source}.sparsity_config") or {}
    if not isinstance(sparsity, Mapping) or sparsity.get("format", "dense") != "dense":
        _refuse(fields, f"{source}.sparsity_config", sparsity)
    if fields.values.get(f"{source}.transform_config"):
        _refuse(fields, f"{source}.transform_config", fields.values[f"{source}.transform_config"])
    groups = fields.values.get(f"{source}.config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        fields.fail(f"field '{source}.config_groups' must hold one group, not {shown(groups)}; {REMEDY}")
    (name, group), prefix = next(iter(groups.items())), f"{source}.config_groups."
    scheme = _inside(fields, f"{prefix}{str(name)[:40]}", group)
    return _weights(scheme, f"{prefix}{str(name)[:40]}.weights", layout == "pack-quantized")


def _weights(scheme: Fields, source: str, packed: bool) -> QuantizationConfig:
    """What a scheme says about weights. Activations do not matter: ours are rounded more finely."""
    fields = _inside(scheme, source, scheme.values.get(source))
    _only(fields, f"{source}.type", "int", fields.string(f"{source}.type", "int"))
    _only(fields, f"{source}.dynamic", False, fields.flag(f"{source}.dynamic", False))
    bits = _bits(fields, f"{source}.num_bits")
    if not packed:
        _only(fields, f"{source}.num_bits", 8, bits)
    strategy = fields.string(f"{source}.strategy", "group" if fields.has(f"{source}.group_size") else "channel")
    if strategy not in ("group", "channel"):
        _refuse(fields, f"{source}.strategy", strategy)
    return QuantizationConfig(
        "compressed-tensors",
        bits,
        _group_size(fields, f"{source}.group_size") if strategy == "group" else WHOLE_ROW,
        symmetric=fields.flag(f"{source}.symmetric", True),
        packed=packed,
    )


def _inside(fields: Fields, name: str, value: object) -> Fields:
    """The fields of a nested mapping, with full names so that an error says where they are."""
    if not isinstance(value, Mapping):
        fields.fail(f"field {name!r} must be a mapping, not {shown(value)}")
    return Fields(fields.path, {f"{name}.{key}": item for key, item in value.items()})


def _bits(fields: Fields, key: str) -> int:
    bits = fields.integer(key)
    if bits not in (4, 8):
        _refuse(fields, key, bits)
    return bits


def _group_size(fields: Fields, key: str) -> int:
    size = fields.integer(key, least=-1)
    if size == -1:
        return WHOLE_ROW
    if size == 0 or size % GROUP:
        fields.fail(f"field {key!r} is {size}; it must be -1 or a multiple of {GROUP} to be served")
    return size


def _only(fields: Fields, key: str, wanted: object, value: object) -> None:
    if value != wanted:
        _refuse(fields, key, value)


def _refuse(fields: Fields, key: str, value: Any) -> NoReturn:  # noqa: ANN401
    fields.fail(f"field {key!r} is {shown(value)}, which is not supported; {REMEDY}")

"""The served model as Ollama's clients ask for it: in the list of models, as a loaded model, and in detail."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from antiphon.api.context import Context
from antiphon.api.ollama import shapes
from antiphon.errors import ModelNotFound

_FOREVER = timedelta(days=365 * 100)  # the model stays loaded
_TAG = ":latest"  # Ollama's clients append it to names without a tag


def check_name(context: Context, name: str) -> None:
    """Raise ModelNotFound unless the model is the served one."""
    try:
        context.check_model(name.removesuffix(_TAG) or None)
    except ModelNotFound:
        context.check_model(name)


def listed(context: Context) -> shapes.Models:
    """`GET /api/tags`."""
    return shapes.Models([_model(context)])


def loaded(context: Context) -> shapes.Models:
    """`GET /api/ps`; empty until the engine is ready."""
    if context.engine.info is None:
        return shapes.Models([])
    model = _model(context)
    model.expires_at = _written(datetime.now(UTC) + _FOREVER)
    model.size_vram = 0
    model.context_length = context.facts().context_length
    return shapes.Models([model])


def shown(context: Context) -> shapes.Shown:
    """`POST /api/show`."""
    model, text = context.model, context.model.text
    architecture = model.details.architecture
    capabilities = ["completion"]
    if text.reads_tool_calls and text.template is not None:
        capabilities.append("tools")
    if text.thinks:
        capabilities.append("thinking")
    info = {
        "general.architecture": architecture,
        "general.basename": model.name,
        "general.parameter_count": model.details.num_parameters,
        f"{architecture}.context_length": context.facts().context_length,
        f"{architecture}.vocab_size": context.facts().vocab_size,
    }
    parameters = "\n".join(f"{name} {value}" for name, value in model.generation_defaults.items())
    template = text.template.source if text.template else ""
    return shapes.Shown("", parameters, template, _details(context), info, capabilities, _modified(context))


def _model(context: Context) -> shapes.Model:
    model = context.model
    # The digest only has to change when the model does, so the file is not hashed.
    identity = f"{model.name} {model.details.num_bytes} {model.details.num_parameters} {model.details.stored_type}"
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return shapes.Model(model.name, model.name, _modified(context), model.details.num_bytes, digest, _details(context))


def _details(context: Context) -> shapes.Details:
    details = context.model.details
    family = details.architecture
    size = (
        f"{details.num_parameters / 1e9:.1f}B"
        if details.num_parameters >= 10**9
        else f"{details.num_parameters / 1e6:.0f}M"
    )
    return shapes.Details("", details.format, family, [family], size, details.stored_type)


def _modified(context: Context) -> str:
    return _written(datetime.fromtimestamp(context.model.created, UTC))


def _written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")

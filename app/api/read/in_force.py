"""The settings of a model that are in force where a request says nothing, and where each of them is written.

They are those of a request that sets no field: it is read and resolved as every other one is.
"""

from app.api.read import translate
from app.generation.job import Job, sampling_in_force
from app.registry.status import ModelCard
from app.schemas.admin import AdminModelSettings, AdminSetting, SettingOrigin
from app.schemas.chat import ChatRequest
from app.schemas.completions import CompletionRequest
from app.schemas.messages import UserMessage
from app.schemas.sampling import SamplingDefaults
from app.settings import ModelEntry, Settings
from app.settings.sizes import format_size

OWN = ("pin", "revision", "adapter", "draft_model", "quantize", "kv_bits", "dtype", "pooling", "ranks")
"""Keys of ``models.toml`` that count from a load on."""
ALWAYS = {"quantize": "as stored", "kv_bits": "not quantised", "draft_model": "none"}
"""Those that are told of text models even where nobody has set them, and what that means."""
OFF = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Values with which a step of drawing changes nothing."""
SERVICE = {
    "max_choices": "",
    "max_batch_rows": "",
    "prefill_slice": "2048 on CUDA, 512 elsewhere",
    "prefix_cache": "what models and requests leave free of the budget",
    "disk_cache": "10 GiB, or a quarter of what is free of the disk",
}
"""The service's settings that shape every text model's answers, and what they mean where they are left to it."""
SIZES = {"prefix_cache", "disk_cache"}

Value = bool | int | float | str | None


def in_force(card: ModelCard, settings: Settings) -> AdminModelSettings:
    """What holds for the model of ``card``."""
    own, generates = card.entry if card.loaded is None else card.loaded, card.abilities.kind == "text"
    model = [_context(card), _keep_alive(own, settings), *_own(own, ALWAYS if generates else {})]
    if not generates:
        return AdminModelSettings(id=card.root, chat=(), completion=(), model=tuple(model))
    chat = translate.chat(ChatRequest(messages=[UserMessage(content="")]), card.entry, settings)
    raw = translate.completion(CompletionRequest(prompt=""), card.entry, settings)
    return AdminModelSettings(
        id=card.root,
        chat=(*_decoding(chat, card, card.abilities.sampling), *_reasoning(card), _tools(card)),
        completion=tuple(_decoding(raw, card, SamplingDefaults())),
        model=(*model, *_service(settings)),
    )


def _decoding(job: Job, card: ModelCard, theirs: SamplingDefaults) -> list[AdminSetting]:
    drawn = sampling_in_force(job, theirs)
    listed = []
    for name in SamplingDefaults.__struct_fields__:
        origin: SettingOrigin = "default"
        if name not in job.decoding.left_open:
            origin = "models.toml"
        elif getattr(theirs, name) is not None:
            origin = "generation_config.json"
        value, off = getattr(drawn, name), OFF.get(name)
        listed.append(AdminSetting(name=name, value=value, words="off" if value == off else "", origin=origin))
    limit = job.decoding.max_tokens
    words = "all that the context holds" if limit is None else ""
    written = _where(card.entry.max_tokens)
    return [*listed, AdminSetting(name="max_tokens", value=limit, words=words, origin=written)]


def _reasoning(card: ModelCard) -> list[AdminSetting]:
    if not card.abilities.thinking:
        return []
    own = AdminSetting(name="enable_thinking", value=None, words="as its template does", origin="chat template")
    return [own, AdminSetting(name="thinking_budget", value=None, words="no limit", origin="default")]


def _tools(card: ModelCard) -> AdminSetting:
    words = {"generic": "in the system message", "refuse": "refused where its template knows none"}
    if card.entry.tool_prompt is not None:
        how, origin = card.entry.tool_prompt, _where(card.entry.tool_prompt)
        return AdminSetting(name="tool_prompt", value=how, words=words[how], origin=origin)
    if card.abilities.tools:
        return AdminSetting(name="tool_prompt", value=None, words="by its template", origin="chat template")
    return AdminSetting(name="tool_prompt", value="generic", words=words["generic"], origin="default")


def _context(card: ModelCard) -> AdminSetting:
    length = card.abilities.context_length
    if card.abilities.fitted:
        words = "what memory_budget has room for"
        return AdminSetting(name="context_length", value=length, words=words, origin="service settings")
    origin: SettingOrigin = "default" if length is None else "config.json"
    return AdminSetting(name="context_length", value=length, words="" if length else "not known", origin=origin)


def _keep_alive(entry: ModelEntry, settings: Settings) -> AdminSetting:
    if entry.keep_alive is None:
        value, origin = settings.keep_alive, _of_service("keep_alive", settings)
    else:
        value, origin = entry.keep_alive, _where(entry.keep_alive)
    words = "until its memory is needed" if value < 0 else "unloaded after the answer" if value == 0 else f"{value:g} s"
    return AdminSetting(name="keep_alive", value=value, words=words, origin=origin)


def _own(entry: ModelEntry, always: dict[str, str]) -> list[AdminSetting]:
    listed = []
    for name in OWN:
        value: Value = getattr(entry, name)
        if value != getattr(ModelEntry(), name):
            listed.append(AdminSetting(name=name, value=value, origin="models.toml"))
        elif name in always:
            listed.append(AdminSetting(name=name, value=value, words=always[name], origin="default"))
    if entry.hosts is not None:
        listed.append(AdminSetting(name="hosts", value=str(entry.hosts), origin="models.toml"))
    return listed


def _service(settings: Settings) -> list[AdminSetting]:
    listed = []
    for name, left in SERVICE.items():
        value, words = getattr(settings, name), left
        if value != getattr(Settings(), name):
            words = format_size(value) if name in SIZES and isinstance(value, int) else ""
        listed.append(AdminSetting(name=name, value=value, words=words, origin=_of_service(name, settings)))
    return listed


def _where(value: Value) -> SettingOrigin:
    return "default" if value is None else "models.toml"


def _of_service(name: str, settings: Settings) -> SettingOrigin:
    """``default`` also where somebody has set what is the default."""
    return "default" if getattr(settings, name) == getattr(Settings(), name) else "service settings"

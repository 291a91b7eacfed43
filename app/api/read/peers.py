"""Fields that other servers know and this one does not take as its own: each asks for nothing here, or is refused.

Sources: vLLM's and SGLang's request classes (``ChatCompletionRequest``, ``CompletionRequest``) as they were in November
2026, llama.cpp's ``tools/server/README.md``, Ollama's API reference, mlx_lm.server 0.32.
"""

from collections.abc import Mapping

from app.api.read.fields import Field, harmless
from app.errors import InvalidRequest
from app.schemas.common import GenerationFields

VLLM, LLAMA, SGLANG, OLLAMA, MLX = "vLLM", "llama.cpp", "SGLang", "Ollama", "mlx_lm.server"
THOUGHTS = "Thoughts are told in reasoning_content."
NO_SAMPLER = "There is no such sampler; leave it out."
PENALTIES = {"repetition_penalty": 1, "repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
"""Fields that a window of tokens is for, and the values with which they do nothing."""


class PeerField(Field, frozen=True):
    """``of`` names the servers that know it; with ``penalty`` it is refused only beside a penalty."""

    of: str = ""
    penalty: bool = False


def _refused(of: str, note: str, names: str, *harmless: object, penalty: bool = False) -> tuple[PeerField, ...]:
    return tuple(PeerField(name, "refused", note, harmless, of, penalty) for name in names.split())


def _accepted(of: str, note: str, names: str) -> tuple[PeerField, ...]:
    return tuple(PeerField(name, "accepted", note, (), of) for name in names.split())


PEERS: tuple[PeerField, ...] = (
    *_refused(VLLM, "There is no beam search; leave it out.", "use_beam_search", False),
    *_refused(VLLM, "It is for beam search, which there is none of.", "length_penalty", 1),
    *_refused(VLLM, "Tokens cannot be limited to a list; use a grammar, or logit_bias.", "allowed_token_ids", []),
    *_refused(VLLM, "Words cannot be banned; ban tokens with logit_bias of -100.", "bad_words", []),
    *_refused(VLLM, "Tokens are told by their text alone.", "return_tokens_as_token_ids return_token_ids", False),
    *_refused(VLLM, "Send the text to /v1/completions with echo and logprobs instead.", "prompt_logprobs"),
    *_refused(VLLM, "A stop string is never part of the text.", "include_stop_str_in_output no_stop_trim", False),
    *_refused(VLLM, "Special tokens are never part of the text.", "skip_special_tokens", True),
    *_refused(VLLM, "Prompts are not cut; send what fits.", "truncate_prompt_tokens truncation_side"),
    *_refused(VLLM, "The tokenizer's own special tokens are what is added.", "add_special_tokens", False, True),
    *_refused(VLLM, "The model's own template is used; give its variables in chat_template_kwargs.", "chat_template"),
    *_refused(VLLM, "Write documents into a message.", "documents", []),
    *_refused(VLLM, "Prompts are text or token ids.", "prompt_embeds"),
    *_refused(VLLM, "Send a grammar or a schema for the whole answer.", "structural_tag guided_whitespace_pattern"),
    *_refused(VLLM, "Code of the server's own cannot be named in a request.", "logits_processors", []),
    *_refused(VLLM, THOUGHTS, "include_reasoning separate_reasoning", True),
    *_refused(VLLM, "Equal prefixes are shared by all who ask; they cannot be kept apart.", "cache_salt extra_key"),
    *_refused(VLLM, "There is no transfer of KV caches.", "kv_transfer_params"),
    *_refused(VLLM, "There are no further arguments.", "vllm_xargs custom_params", {}),
    *_refused(VLLM, "Repetition does not end an answer; use repetition_penalty.", "repetition_detection"),
    *_accepted(VLLM, "No effect: special tokens are never part of the text.", "spaces_between_special_tokens"),
    *_accepted(VLLM, "No effect: requests take turns fairly.", "priority"),
    *_accepted(VLLM, "No effect: the header x-request-id names a request.", "request_id rid"),
    *_accepted(VLLM, "No effect: images and audio are not read.", "mm_processor_kwargs media_io_kwargs"),
    *_accepted(VLLM, "No effect: there is one engine for grammars.", "guided_decoding_backend"),
    *_refused(VLLM, "The messages are not given back; read them from your own request.", "echo", False),
    *_refused(VLLM, "Texts carry no watermark.", "watermarking", False),
    *_refused(VLLM, "The likeliest tokens are told; use logprobs with top_logprobs.", "logprob_token_ids", []),
    *_refused(VLLM, "Only text is told of an answer.", "return_token_offsets return_prompt_text", False),
    *_refused(VLLM, "There is no transfer of caches.", "ec_transfer_params"),
    *_accepted(VLLM, "No effect: chunks leave as they are made.", "stream_interval"),
    *_accepted(VLLM, "No effect: equal beginnings are shared whoever sends them.", "session_id"),
    *_accepted(VLLM, "No effect: nothing of the kind is returned.", "return_mm_kwargs routed_experts_prompt_start"),
    *_refused(SGLANG, "Use stop, with texts.", "stop_regex", []),
    *_refused(SGLANG, "Prompts of token ids go to /v1/completions.", "input_ids", []),
    *_refused(SGLANG, "Only text is told of an answer.", "return_prompt_token_ids return_meta_info", False),
    *_accepted(
        SGLANG,
        "No effect: usage.prompt_tokens_details tells what was cached.",
        "return_cached_tokens_details",
    ),
    *_accepted(SGLANG, "No effect: there is one replica.", "routed_dp_rank disagg_prefill_dp_rank"),
    *_accepted(SGLANG, "No effect: requests are not labelled.", "custom_labels"),
    *_accepted(SGLANG, "No effect: nothing of the kind is returned.", "routed_experts_start_len"),
    *_accepted(
        SGLANG,
        "No effect: images and audio are not read.",
        "use_audio_in_video max_dynamic_patch min_dynamic_patch",
    ),
    *_refused(SGLANG, "Name an adapter in model, as base:adapter.", "lora_path"),
    *_refused(SGLANG, "There are no sessions; send the whole conversation.", "session_params"),
    *_refused(SGLANG, "Only text is told of an answer.", "return_hidden_states return_routed_experts", False),
    *_refused(SGLANG, "Code of the server's own cannot be named in a request.", "custom_logit_processor"),
    *_refused(SGLANG, "Thoughts are streamed as they are made.", "stream_reasoning", True),
    *_accepted(
        SGLANG, "No effect: there is one replica.", "data_parallel_rank bootstrap_host bootstrap_port bootstrap_room"
    ),
    *_refused(LLAMA, NO_SAMPLER, "xtc_probability mirostat dry_multiplier dynatemp_range", 0),
    *_refused(LLAMA, NO_SAMPLER, "typical_p", 1),
    *_refused(LLAMA, NO_SAMPLER, "top_n_sigma", -1, 0),
    *_accepted(
        LLAMA,
        "No effect: it is for a sampler that must be off.",
        "xtc_threshold xtc_special_tokens mirostat_tau mirostat_eta dry_base dry_allowed_length dry_penalty_last_n "
        "dry_sequence_breakers dynatemp_exponent",
    ),
    *_refused(LLAMA, "Samplers have one order.", "samplers"),
    *_refused(LLAMA, NO_SAMPLER, "adaptive_target", -1),
    *_accepted(LLAMA, "No effect: it is for a sampler that must be off.", "adaptive_decay penalize_nl"),
    *_refused(LLAMA, "Use thinking_budget.", "reasoning_budget reasoning_budget_tokens thinking_budget_tokens", -1),
    *_refused(LLAMA, THOUGHTS, "reasoning_in_content", False),
    *_refused(LLAMA, "Use suffix, with one prompt.", "input_prefix input_suffix", ""),
    *_refused(LLAMA, "Write files into the prompt.", "input_extra", []),
    *_refused(LLAMA, "Penalties count the whole text.", "repeat_last_n", -1, penalty=True),
    *_refused(LLAMA, "Sampling keeps no least number of tokens.", "min_keep", 0, 1),
    *_refused(LLAMA, "Use n.", "n_cmpl", 1),
    *_refused(LLAMA, "Use logprobs.", "n_probs", 0),
    *_refused(LLAMA, "Log probabilities are the model's own.", "post_sampling_probs", False),
    *_refused(LLAMA, "Lines are not measured; use a grammar.", "n_indent", 0),
    *_refused(LLAMA, "The setting request_timeout bounds an answer's time.", "t_max_predict_ms t_max_prompt_ms", 0, -1),
    *_refused(LLAMA, "Only text is told of an answer.", "return_tokens timings_per_token return_progress", False),
    *_refused(LLAMA, "An answer is told whole.", "response_fields", []),
    *_refused(LLAMA, "Name an adapter in model, as base:adapter.", "lora", []),
    *_refused(LLAMA, "This is a text model; images are not read.", "image_data images", []),
    *_refused(LLAMA, "A grammar holds from the beginning.", "grammar_lazy", False),
    *_refused(LLAMA, "A grammar holds from the beginning.", "grammar_triggers", []),
    *_refused(LLAMA, THOUGHTS, "reasoning_format", "auto", "deepseek", "deepseek-legacy"),
    *_refused(LLAMA, "Calls are always read.", "parse_tool_calls", True),
    *_refused(LLAMA, "The template says whether a thought is open.", "thinking_forced_open", False),
    *_accepted(
        LLAMA,
        "No effect: caches, slots and drafts are the service's affair.",
        "cache_prompt id_slot n_keep n_discard n_cache_reuse preserved_tokens backend_sampling sse_ping_interval "
        "speculative.n_max speculative.n_min "
        "speculative.p_min",
    ),
    *_refused(OLLAMA, "Send what it holds as fields: temperature, top_k, seed, max_tokens.", "options", {}),
    *_accepted(OLLAMA, "No effect: the context is the model's own.", "num_ctx"),
    *_refused(OLLAMA, "The model's own template is used.", "template", ""),
    *_refused(OLLAMA, "Send the messages as they are; /v1/completions takes raw text.", "raw", False),
    *_refused(OLLAMA, "Send the whole conversation.", "context", []),
    *_refused(OLLAMA, "Send a message of the role system.", "system", ""),
    *_accepted(OLLAMA, "No effect: nothing is dropped; what the context cannot hold is refused.", "truncate shift"),
    *_refused(
        MLX,
        "Penalties count the whole text.",
        "repetition_context_size presence_context_size frequency_context_size",
        penalty=True,
    ),
    *_refused(MLX, "Name an adapter in model, as base:adapter.", "adapters"),
    *_refused(MLX, "Messages keep the roles of the model's template.", "role_mapping"),
    *_accepted(MLX, "No effect: a draft model is set in models.toml.", "draft_model num_draft_tokens"),
)  # fmt: skip
BY_NAME: Mapping[str, PeerField] = {field.name: field for field in PEERS}


def refuse(data: GenerationFields, sent: Mapping[str, object]) -> None:
    """Raise :class:`InvalidRequest` for the first field of ``PEERS`` that asks for what is not done here."""
    for name, value in sent.items():
        field = BY_NAME[name]
        if field.verdict != "refused" or (field.penalty and not _penalised(data)):
            continue
        if not harmless(field, value):
            raise InvalidRequest(f"{name} is refused: {field.note}", param=name)


def _penalised(data: GenerationFields) -> bool:
    values = {name: getattr(data, name) for name in PENALTIES}
    return any(value is not None and value != PENALTIES[name] for name, value in values.items())

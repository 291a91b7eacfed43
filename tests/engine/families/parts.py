"""What small configurations of mlx-lm's architectures have in common."""

from typing import Any

HIDDEN, LAYERS, VOCABULARY, HEAD = 64, 4, 128, 16
WINDOW = 16
"""Short, so that windows slide within the bench's prompts."""

SHARED: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCABULARY,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": HEAD,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "use_qkv_bias": False,
    "tie_word_embeddings": False,
    "partial_rotary_factor": 1.0,
    "sliding_window": WINDOW,
    "sliding_window_pattern": 2,
    "hidden_act": "silu",
    # mixtures of experts
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    # latent attention
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    # recurrent layers
    "conv_kernel": 4,
    "conv_bias": False,
    "use_conv_bias": True,
    "conv_L_cache": 3,
    "n_groups": 1,
    "layer_group_size": 2,
    "group_norm_size": 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}
SLIDING_AND_FULL = ["sliding_attention", "full_attention"] * (LAYERS // 2)
LINEAR_AND_FULL = ["linear_attention", "full_attention"] * (LAYERS // 2)
GEMMA4 = {
    "global_head_dim": 32,
    "vocab_size_per_layer_input": VOCABULARY,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 16,
    "layer_types": SLIDING_AND_FULL,
}
GRANITE = {
    "logits_scaling": 1.0,
    "attention_multiplier": 0.25,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
}
MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_proj_bias": False,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_n_groups": 1,
    "mamba_conv_bias": True,
}
INDEXER = {"index_head_dim": 16, "index_n_heads": 2, "index_topk": 8}
LATENT_MOE = {
    "num_key_value_heads": 4,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
}
YARN = {
    "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 2048, "mscale_all_dim": 1.0}
}
ROPES = {kind: {"rope_theta": 10000.0, "rope_type": "default"} for kind in ("sliding_attention", "full_attention")}
LLAMA4_ROPE = {
    "rope_parameters": {
        "rope_theta": 10000.0,
        "rope_type": "default",
        "llama_4_scaling_beta": 0.1,
        "original_max_position_embeddings": 32,
    }
}
LFM2 = {
    "layer_types": ["conv", "full_attention"] * 2,
    "block_dim": HIDDEN,
    "block_ff_dim": 96,
    "block_multiple_of": 16,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
}
SU_ROPE = {"rope_scaling": {"original_max_position_embeddings": 4096, "short_factor": 1.0, "long_factor": 1.0}}
SPARSE = {
    "sparse_num_index_heads": 2,
    "sparse_index_dim": 16,
    "sparse_block_size": 8,
    "sparse_topk_blocks": 2,
    "sparse_local_block": 1,
    "sparse_attention_freq": [0, 1, 0, 1],
}
KDA = {
    "linear_attn_config": {
        "kda_layers": [1, 3],
        "full_attn_layers": [2, 4],
        "num_heads": 4,
        "head_dim": HEAD,
        "short_conv_kernel_size": 4,
    },
    "num_experts_per_token": 2,
}
LONGCAT = {
    "attention_method": "MLA",
    "zero_expert_type": "identity",
    "ffn_hidden_size": 96,
    "moe_topk": 2,
    "expert_ffn_hidden_size": 32,
    "zero_expert_num": 2,
    "num_layers": 2,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
}

"""The most used embedding models by family: a small model of each, and what becomes of it with either engine.

docs/models.md has the table; tests/embedkit/engines/test_families.py compares it with this one, and runs each.
"""

from dataclasses import dataclass

from tests.support.families import Family, Modules

YES = "yes"
CODE = "auto_map"
NOT_IN_VLLM = "vLLM does not run"
SOFTCAP = "attn_logit_softcapping"

MEAN: Modules = (("Pooling", {"mean": True}), ("Normalize", {}))
CLS: Modules = (("Pooling", {"cls": True}), ("Normalize", {}))
LAST: Modules = (("Pooling", {"last": True}), ("Normalize", {}))
IDENTITY = {"bias": False, "activation": "torch.nn.modules.linear.Identity"}
AROUND = ("<s>", "</s>")
END = ("", "<|endoftext|>")
OFFSET = {"max_position_embeddings": 66}
GROUPED = {"num_key_value_heads": 1}
GEMMA = GROUPED | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}
DISTILBERT = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")),
    **{"dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 2},
}
T5 = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")),
    **dict.fromkeys(("max_position_embeddings", "initializer_range")),
    **{"d_model": 64, "d_kv": 32, "d_ff": 96, "num_layers": 2, "num_heads": 2},
}
NOMIC = {
    **{"activation_function": "swiglu", "layer_norm_epsilon": 1e-12, "max_trained_positions": 64, "n_positions": 128},
    **{"n_embd": 64, "n_head": 2, "n_inner": 96, "n_layer": 2, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0},
    **{"rotary_emb_interleaved": False, "rotary_scaling_factor": None, "rotary_emb_scale_base": None, "causal": False},
    **dict.fromkeys(("mlp_fc1_bias", "mlp_fc2_bias", "qkv_proj_bias", "prenorm", "use_rms_norm"), False),
}


def code(name: str) -> dict[str, str]:
    """`auto_map` of a model that comes with its own classes."""
    return {"AutoConfig": f"configuration_{name}.Config", "AutoModel": f"modeling_{name}.Model"}


@dataclass(frozen=True)
class Known:
    """A family: names of its models, a small one, and for each engine "yes" or a part of the refusal."""

    models: str
    family: Family
    vllm: str
    transformers: str


KNOWN: dict[str, Known] = {
    "Qwen3": Known(
        "Qwen/Qwen3-Embedding-0.6B, -4B, -8B",
        Family("Qwen3Config", GROUPED | {"head_dim": 32}, "Qwen3ForCausalLM", "byte_bpe", around=END, modules=LAST),
        vllm=YES,
        transformers=YES,
    ),
    "Qwen2, both ways": Known(
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct, -7B-instruct; NovaSearch/stella_en_1.5B_v5",
        Family(
            *("Qwen2Config", GROUPED, "Qwen2ForCausalLM", "byte_bpe"),
            around=END,
            modules=LAST,
            more={"is_causal": False, "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}},
        ),
        vllm=CODE,
        transformers=CODE,
    ),
    "BERT": Known(
        "sentence-transformers/all-MiniLM-L6-v2, all-MiniLM-L12-v2, paraphrase-multilingual-MiniLM-L12-v2; "
        "BAAI/bge-small-en-v1.5, -base, -large; intfloat/e5-base-v2, multilingual-e5-small; thenlper/gte-base; "
        "mixedbread-ai/mxbai-embed-large-v1; Snowflake/snowflake-arctic-embed-m",
        Family("BertConfig", lower=True, modules=CLS, more={"position_embedding_type": "absolute"}),
        vllm=YES,
        transformers=YES,
    ),
    "BERT with Dense": Known(
        "sentence-transformers/LaBSE",
        Family("BertConfig", modules=(("Pooling", {"cls": True}), ("Dense", {"out": 64}), ("Normalize", {}))),
        vllm=YES,
        transformers=YES,
    ),
    "DistilBERT": Known(
        "sentence-transformers/msmarco-distilbert-base-v4, multi-qa-distilbert-cos-v1",
        Family("DistilBertConfig", DISTILBERT, lower=True),
        vllm=NOT_IN_VLLM,
        transformers=YES,
    ),
    "DistilBERT with Dense": Known(
        "sentence-transformers/distiluse-base-multilingual-cased-v2",
        Family("DistilBertConfig", DISTILBERT, modules=(("Pooling", {"mean": True}), ("Dense", {"out": 48}))),
        vllm=NOT_IN_VLLM,
        transformers=YES,
    ),
    "MPNet": Known(
        "sentence-transformers/all-mpnet-base-v2, multi-qa-mpnet-base-dot-v1",
        Family("MPNetConfig", OFFSET, lower=True, around=AROUND),
        vllm=NOT_IN_VLLM,
        transformers=YES,
    ),
    "RoBERTa": Known(
        "sentence-transformers/all-distilroberta-v1, all-roberta-large-v1",
        Family("RobertaConfig", OFFSET, tokenizer="byte_bpe", around=AROUND),
        vllm=YES,
        transformers=YES,
    ),
    "XLM-RoBERTa": Known(
        "intfloat/multilingual-e5-base, -large, -large-instruct; BAAI/bge-m3 (its dense vectors); "
        "sentence-transformers/paraphrase-multilingual-mpnet-base-v2; Snowflake/snowflake-arctic-embed-l-v2.0",
        Family(
            *("XLMRobertaConfig", OFFSET),
            tokenizer="unigram",
            around=AROUND,
            modules=CLS,
            more={"position_embedding_type": "absolute"},
        ),
        vllm=YES,
        transformers=YES,
    ),
    "CamemBERT": Known(
        "dangvantuan/sentence-camembert-base",
        Family("CamembertConfig", OFFSET, tokenizer="unigram", around=AROUND, modules=(("Pooling", {"mean": True}),)),
        vllm="vLLM gives wrong vectors",
        transformers=YES,
    ),
    "NomicBERT": Known(
        "nomic-ai/nomic-embed-text-v1.5",
        Family("NomicBertConfig", lower=True, more=NOMIC | {"auto_map": code("nomic")}),
        vllm=CODE,
        transformers=CODE,
    ),
    "NomicBERT, experts": Known(
        "nomic-ai/nomic-embed-text-v2-moe",
        Family("NomicBertConfig", tokenizer="unigram", more=NOMIC | {"num_experts": 8, "auto_map": code("nomic")}),
        vllm=CODE,
        transformers=CODE,
    ),
    "ModernBERT": Known(
        "nomic-ai/modernbert-embed-base; Alibaba-NLP/gte-modernbert-base",
        Family(
            "ModernBertConfig",
            {"num_hidden_layers": 4, "local_attention": 16, "cls_token_id": None, "sep_token_id": None},
            tokenizer="byte_bpe",
        ),
        vllm=YES,
        transformers=YES,
    ),
    "Gemma 3": Known(
        "google/embeddinggemma-300m",
        Family(
            "Gemma3TextConfig",
            GEMMA | {"num_hidden_layers": 6, "use_bidirectional_attention": True},
            tokenizer="unigram",
            around=("<bos>", "<eos>"),
            modules=(
                ("Pooling", {"mean": True}),
                ("Dense", {"out": 96} | IDENTITY),
                ("Dense", {"out": 64} | IDENTITY),
                ("Normalize", {}),
            ),
        ),
        vllm=YES,
        transformers=YES,
    ),
    "Gemma 2": Known(
        "BAAI/bge-multilingual-gemma2",
        Family("Gemma2Config", GEMMA, tokenizer="unigram", around=("<bos>", "<eos>"), modules=LAST),
        vllm=YES,
        transformers=SOFTCAP,
    ),
    "Mistral": Known(
        "intfloat/e5-mistral-7b-instruct; Salesforce/SFR-Embedding-Mistral; Linq-AI-Research/Linq-Embed-Mistral",
        Family("MistralConfig", GROUPED | {"sliding_window": 16}, tokenizer="unigram", around=AROUND, modules=LAST),
        vllm=YES,
        transformers=YES,
    ),
    "T5": Known(
        "sentence-transformers/gtr-t5-base, -large, -xl; sentence-t5-base, -large",
        Family(
            *("T5Config", T5, "T5EncoderModel", "unigram"),
            around=("", "</s>"),
            modules=(("Pooling", {"mean": True}), ("Dense", {"out": 48} | IDENTITY), ("Normalize", {})),
            files={"sentence_bert_config.json": {"max_seq_length": 64}},
        ),
        vllm=NOT_IN_VLLM,
        transformers=YES,
    ),
    "T5, instruction left out of the mean": Known(
        "hkunlp/instructor-large",
        Family(
            *("T5Config", T5, "T5EncoderModel", "unigram"),
            around=("", "</s>"),
            modules=(("Pooling", {"mean": True, "include_prompt": False}), ("Dense", {"out": 48} | IDENTITY)),
            files={"sentence_bert_config.json": {"max_seq_length": 64}},
        ),
        vllm=NOT_IN_VLLM,
        transformers=YES,
    ),
    "GTE, new": Known(
        "Alibaba-NLP/gte-multilingual-base, gte-large-en-v1.5; Snowflake/snowflake-arctic-embed-m-v2.0",
        Family(
            "GteConfig",
            tokenizer="unigram",
            around=AROUND,
            modules=CLS,
            more={"model_type": "new", "architectures": ["NewModel"], "auto_map": code("new")},
        ),
        vllm=CODE,
        transformers=CODE,
    ),
    "Jina 2": Known(
        "jinaai/jina-embeddings-v2-base-en, -small-en",
        Family(
            "BertConfig",
            more={
                "architectures": ["JinaBertForMaskedLM"],
                "position_embedding_type": "alibi",
                "auto_map": code("jina"),
            },
        ),
        vllm=CODE,
        transformers=CODE,
    ),
    "Jina 3": Known(
        "jinaai/jina-embeddings-v3",
        Family(
            "JinaEmbeddingsV3Config",
            tokenizer="unigram",
            around=AROUND,
            more={"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"], "auto_map": code("xlm_roberta")},
        ),
        vllm=CODE,
        transformers=CODE,
    ),
    "NV-Embed": Known(
        "nvidia/NV-Embed-v2",
        Family(
            *("MistralConfig", GROUPED),
            tokenizer="unigram",
            around=AROUND,
            more={"model_type": "nvembed", "architectures": ["NVEmbedModel"], "auto_map": code("nvembed")},
        ),
        vllm=CODE,
        transformers=CODE,
    ),
    "static": Known(
        "minishlab/potion-base-8M; sentence-transformers/static-retrieval-mrl-en-v1",
        Family(
            "BertConfig",
            first="StaticEmbedding",
            modules=(("Normalize", {}),),
            more={"model_type": "model2vec", "architectures": ["StaticModel"]},
        ),
        vllm="StaticEmbedding",
        transformers="StaticEmbedding",
    ),
}

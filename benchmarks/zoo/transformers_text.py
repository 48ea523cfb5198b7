"""Language models of transformers: encoders, decoders, and the encoders of sequence-to-sequence models."""

from typing import Any

from zoo.architecture import Architecture
from zoo.transformers_model import LENGTH, VOCABULARY, OfText, pretrained, text

CLASSES = 3
WORDS = {"vocab_size": VOCABULARY, "max_position_embeddings": 2 * LENGTH}
BODY = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LETTERS = {**WORDS, **MARKS}
GROUPED = {**LETTERS, **BODY, "num_key_value_heads": 2}
BART = {
    **LETTERS, "d_model": 48, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80, "decoder_start_token_id": 1,
}  # fmt: skip


def _encoder(
    name: str, stem: str, settings: dict[str, Any], masked: bool = True, pairs: bool = False, task: str = ""
) -> Architecture:
    model, config = f"{stem}{task or 'ForSequenceClassification'}", f"{stem}Config"
    values = settings if task else {"num_labels": CLASSES, **settings}
    output = "last_hidden_state" if task in ("Model", "EncoderModel") else "logits"
    return pretrained(name, "encoder", model, config, values, text(masked, pairs), OfText, output)


def _decoder(name: str, model: str, config: str, settings: dict[str, Any], masked: bool = False) -> Architecture:
    return pretrained(name, "decoder", model, config, settings, text(masked), OfText)


def architectures() -> list[Architecture]:
    """Text classifiers, language models and encoders; BERT in both forms of attention."""
    return [*_encoders(), *_decoders(), *_sequence_to_sequence()]


def _encoders() -> list[Architecture]:
    distil = {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "dim": 48, "n_layers": 2, "n_heads": 4}
    return [
        _encoder("bert_sdpa", "Bert", {**WORDS, **BODY, "attn_implementation": "sdpa"}, pairs=True),
        _encoder("bert_eager", "Bert", {**WORDS, **BODY, "attn_implementation": "eager"}, pairs=True),
        _encoder("bert_masked_lm", "Bert", {**WORDS, **BODY}, pairs=True, task="ForMaskedLM"),
        _encoder("roberta", "Roberta", {**LETTERS, **BODY}),
        _encoder("distilbert", "DistilBert", {**distil, "hidden_dim": 80}),
        _encoder("albert", "Albert", {**WORDS, **BODY, "embedding_size": 24}, pairs=True),
        _encoder("electra", "Electra", {**WORDS, **BODY, "embedding_size": 24}, pairs=True),
        _encoder("mpnet", "MPNet", {**LETTERS, **BODY}),
        _encoder("deberta_v2", "DebertaV2", {
            **WORDS, **BODY, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True, "norm_rel_ebd": "layer_norm", "pooler_hidden_size": 48,
        }),
        _encoder("convbert", "ConvBert", {**WORDS, **BODY, "embedding_size": 24, "conv_kernel_size": 5}, pairs=True),
        _encoder("squeezebert", "SqueezeBert", {**WORDS, **BODY, "embedding_size": 48}, pairs=True),
        _encoder("mobilebert", "MobileBert", {
            **WORDS, **BODY, "hidden_size": 64, "intra_bottleneck_size": 32, "embedding_size": 32,
        }, pairs=True),
        _encoder("fnet", "FNet", {
            "vocab_size": VOCABULARY, "max_position_embeddings": 40, "hidden_size": 48, "num_hidden_layers": 2,
            "intermediate_size": 80,
        }, masked=False),
        _encoder("modernbert", "ModernBert", {**LETTERS, **BODY, "cls_token_id": 1, "sep_token_id": 2}),
    ]  # fmt: skip


def _decoders() -> list[Architecture]:
    gpt2 = {"vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 48, "n_layer": 2, "n_head": 4, **MARKS}
    return [
        _decoder("gpt2", "GPT2LMHeadModel", "GPT2Config", gpt2, masked=True),
        _decoder("opt", "OPTForCausalLM", "OPTConfig", {
            **LETTERS, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 80,
            "word_embed_proj_dim": 48,
        }, masked=True),
        _decoder("llama_grouped_query", "LlamaForCausalLM", "LlamaConfig", GROUPED),
        _decoder("llama_eager", "LlamaForCausalLM", "LlamaConfig", {**GROUPED, "attn_implementation": "eager"}),
        _decoder("qwen2", "Qwen2ForCausalLM", "Qwen2Config", GROUPED, masked=True),
        _decoder("qwen3", "Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 16}),
        _decoder("gemma", "GemmaForCausalLM", "GemmaConfig", {**GROUPED, "head_dim": 16}),
        _decoder("phi", "PhiForCausalLM", "PhiConfig", {**LETTERS, **BODY}),
        _decoder("gpt_neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", {**LETTERS, **BODY}),
        _decoder("bloom", "BloomForCausalLM", "BloomConfig", {
            "vocab_size": VOCABULARY, "hidden_size": 48, "n_layer": 2, "n_head": 4, **MARKS,
        }),
    ]  # fmt: skip


def _sequence_to_sequence() -> list[Architecture]:
    t5 = {"vocab_size": VOCABULARY, "d_model": 48, "d_kv": 12, "d_ff": 80, "num_layers": 2, "num_heads": 4}
    family = "encoder of a sequence-to-sequence model"
    kept = "last_hidden_state"
    return [
        pretrained("t5_encoder", family, "T5EncoderModel", "T5Config", t5, text(), OfText, kept),
        pretrained("t5_gated_encoder", family, "T5EncoderModel", "T5Config", {
            **t5, "feed_forward_proj": "gated-gelu",
        }, text(), OfText, kept),
        pretrained("bart_encoder", family, "models.bart.modeling_bart:BartEncoder", "BartConfig", BART, text(), OfText,
                   kept),
        pretrained("marian_encoder", family, "models.marian.modeling_marian:MarianEncoder", "MarianConfig", BART,
                   text(), OfText, kept),
    ]  # fmt: skip

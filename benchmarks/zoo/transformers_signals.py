"""Models of sound and of time series in transformers."""

from zoo.architecture import Architecture, floats
from zoo.transformers_model import OfSeries, OfSound, pretrained

BODY = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
SPEECH = {
    **BODY, "conv_dim": [16, 16, 24, 24, 24, 32, 32], "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    "num_labels": 5, "classifier_proj_size": 24,
}  # fmt: skip
SEW = {
    **BODY, "conv_dim": [16, 24, 24, 32, 32], "conv_stride": [5, 2, 1, 2, 2], "conv_kernel": [10, 3, 1, 3, 3],
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "num_labels": 5, "classifier_proj_size": 24,
}  # fmt: skip
WHISPER = {
    "d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 80, "num_mel_bins": 16,
    "max_source_positions": 24, "vocab_size": 101, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip
SPECTRUM = {**BODY, "patch_size": 8, "frequency_stride": 4, "time_stride": 4, "max_length": 32, "num_mel_bins": 16}


def architectures() -> list[Architecture]:
    """Audio classifiers, Whisper's encoder and forecasters."""
    wave = floats(input_values=(2400,))
    sounds = "audio"
    series = floats(past_values=(48, 3))
    return [
        pretrained("wav2vec2", sounds, "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", SPEECH, wave, OfSound),
        pretrained("wav2vec2_layer_norm", sounds, "Wav2Vec2ForCTC", "Wav2Vec2Config", {
            **SPEECH, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "vocab_size": 30,
        }, wave, OfSound),
        pretrained("hubert", sounds, "HubertForSequenceClassification", "HubertConfig", SPEECH, wave, OfSound),
        pretrained("sew", sounds, "SEWForSequenceClassification", "SEWConfig", SEW, wave, OfSound),
        pretrained("whisper_encoder", sounds, "models.whisper.modeling_whisper:WhisperEncoder", "WhisperConfig",
                   WHISPER, floats(input_values=(16, 48)), OfSound, "last_hidden_state"),
        pretrained("audio_spectrogram_transformer", sounds, "ASTForAudioClassification", "ASTConfig",
                   {**SPECTRUM, "num_labels": 5}, floats(input_values=(32, 16)), OfSound),
        pretrained("patchtst", "time series", "PatchTSTForPrediction", "PatchTSTConfig", {
            "num_input_channels": 3, "context_length": 48, "patch_length": 8, "patch_stride": 8, "d_model": 32,
            "num_attention_heads": 4, "num_hidden_layers": 2, "ffn_dim": 48, "prediction_length": 12,
        }, series, OfSeries, "prediction_outputs"),
        pretrained("patchtsmixer", "time series", "PatchTSMixerForPrediction", "PatchTSMixerConfig", {
            "num_input_channels": 3, "context_length": 48, "patch_length": 8, "patch_stride": 8, "d_model": 16,
            "num_layers": 2, "prediction_length": 12,
        }, series, OfSeries, "prediction_outputs"),
    ]  # fmt: skip

"""Everything a training can be told: the fields of a config file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dac_diffusion.autoregressive.plain import AutoregressiveConfig
from dac_diffusion.codecs.loading import CodecName
from dac_diffusion.codecs.quantizer_fitting import QuantizerFitting
from dac_diffusion.data.augmentation import AugmentationConfig
from dac_diffusion.data.published.loading import DatasetName
from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig
from dac_diffusion.diffusion.objective import ObjectiveConfig
from dac_diffusion.encoders.loading import EncoderName
from dac_diffusion.errors import ConfigError
from dac_diffusion.seeds import check_seed
from dac_diffusion.training.autoregressive import DecodingConfig
from dac_diffusion.training.captioner import CaptionerTrainingConfig, SamplingConfig
from dac_diffusion.training.clap_ranking import check_clap_ranking
from dac_diffusion.training.enclap import EnclapConfig
from dac_diffusion.training.encoder import EncoderTrainingConfig
from dac_diffusion.training.prefix import PrefixConfig
from dac_diffusion.training.recap import RecapConfig
from dac_diffusion.training.rounding_head import HeadTrainingConfig
from dac_diffusion.training.scorer import ScorerTrainingConfig
from dac_diffusion.training.task import LoopConfig
from dac_diffusion.training.text_only_settings import TextOnlyConfig, check_text_only

# "autoregressive": the plain baseline; "enclap": EnCLAP, EnCLAP++ and CLAP-ART; "prefix": CED +
# Q-Former + Llama or BART; "recap": RECAP.
System = Literal["diffusion", "autoregressive", "enclap", "prefix", "recap"]


@dataclass(frozen=True)
class SplitBertConfig:
    """The paper's latent space (text/split_bert_space.py); see there for what the settings mean.

    bert: "minilm" (extra `contextual`), a folder, a Hub id such as google-bert/bert-base-uncased,
    or "random" for a small untrained one. vocabulary: "captions" keeps only the tokens that the
    training captions use, which is much faster on a CPU.
    """

    bert: str = "google-bert/bert-base-uncased"
    split_layer: int = 6
    vocabulary: Literal["all", "captions"] = "all"
    extra_linear_layers: int = 1
    train_upper: bool = False
    attend_to_padding: bool = True
    prediction_type: Literal["sample", "epsilon", "v_prediction"] = "sample"
    distance: Literal["squared", "l2_norm"] = "squared"
    mse_weight: float = 1.0
    cross_entropy_weight: float = 0.2
    valid_token_weight: float = 1.0
    statistics_captions: int = 5000  # from which mean and deviation are taken
    head: HeadTrainingConfig = field(default_factory=HeadTrainingConfig)


@dataclass(frozen=True)
class TextConfig:
    """The tokenizer, and which latent space captions live in."""

    vocabulary_size: int = 1500
    caption_files: tuple[str, ...] = ()  # further captions for the vocabulary: AudioCaps, Clotho
    max_length: int = 24
    latent_space: Literal["embedding", "contextual", "split_bert"] = "embedding"
    latent_dim: int = 128  # of the embedding space; the others have their encoder's
    embedding_std: float = 0.1  # of the embeddings at the start; see text/embedding_space.py
    likelihood: Literal["off", "learned", "exact"] = "off"
    split_bert: SplitBertConfig = field(default_factory=SplitBertConfig)


@dataclass(frozen=True)
class EncoderConfig:
    """The audio encoder, by name (encoders/loading.py).

    "small" is trained here with the sizes below, or taken from `pretrained`, the folder of an
    earlier encoder stage or "builtin". The others are frozen and load their published `weights`;
    "random" makes a small untrained one, for trials. window_seconds: the longest audio they take
    at once; frequency_pooling: see the encoders on spectrogram patches.
    """

    name: EncoderName = "small"
    weights: str | None = None
    window_seconds: float | None = None
    frequency_pooling: Literal["none", "mean"] = "none"
    pretrained: str | None = None
    channels: tuple[int, ...] = (32, 64, 160, 320)
    width: int = 256
    depth: int = 2
    dropout: float = 0.1


@dataclass(frozen=True)
class CodecConfig:
    """What turns audio into discrete codes, for system=enclap (codecs/).

    name: "encodec" and "descript" load published `weights`, a folder or Hub id, "beats_tokenizer"
    those of BEATs' own tokenizer, a file; "random" makes a small untrained one. "rvq" quantises
    features by k-means, fitted before the training: those of `encoder` on fit_clips of its clips,
    or, with the small encoder on built-in scenes, on all scenes those of the encoder or of the
    spectrogram (features=mel; encoders/mel_patches.py).
    Or `weights` is the folder of a quantiser that `dac-diffusion prepare quantizer` fitted to
    features of the same encoder. fit_clips, and batches of 32,768 frames of the encoder's last
    layer, are assumptions of ours; CLAP-ART does not say.
    num_codebooks: how many of the codec's codebooks are used (None: 16 of EnCodec, all 32 of the
    Descript codec, the one of the tokenizer, of rvq 16 or those of `weights`). codebook_size: of
    rvq; the tokenizer's own must be equal to it. normalise, fitting: of rvq.
    sequence: which encoder gives the clip's vector: `encoder` itself, `sequence_encoder`, or none;
    without a vector the cosines with captions say nothing of a clip, so rank by likelihood
    (decoding.ranking). window_seconds: the longest audio at once (None: the codec's own).
    """

    name: CodecName = "rvq"
    features: Literal["encoder", "mel"] = "encoder"
    weights: str | None = None
    num_codebooks: int | None = None
    codebook_size: int = 1024
    normalise: bool = False
    fitting: QuantizerFitting = field(default_factory=QuantizerFitting)
    fit_clips: int = 5000
    sequence: Literal["encoder", "sequence_encoder", "none"] = "encoder"
    sequence_encoder: EncoderConfig = field(default_factory=EncoderConfig)
    window_seconds: float | None = None


@dataclass(frozen=True)
class DatasetConfig:
    """A captioned data set in its own files; see data/published/ for their layouts.

    exclude: of WavCaps, lists of clips to leave out; shortest_seconds, longest_seconds: of WavCaps.
    """

    name: DatasetName
    captions: str
    audio: str
    exclude: tuple[str, ...] = ()
    shortest_seconds: float | None = None
    longest_seconds: float | None = None


@dataclass(frozen=True)
class DataConfig:
    """What is captioned: published data sets; without any, the built-in scenes.

    Their features are computed once into features_dir (default: in output_dir), as by
    `dac-diffusion prepare features`, on `processes` processes.
    """

    training: tuple[DatasetConfig, ...] = ()
    validation: tuple[DatasetConfig, ...] = ()
    features_dir: str | None = None
    processes: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class DenoiserConfig:
    """Which denoiser, and its sizes: of this project ("caption"), or of the paper.

    depth: of "uvit" the layers on each of its ways. local_reach is for "caption" alone (0: only
    attention tells which word stands beside which), pooled_condition for the paper's two.
    """

    kind: Literal["caption", "dit", "uvit"] = "caption"
    width: int = 256
    depth: int = 8
    heads: int = 4
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    local_reach: int = 2
    pooled_condition: bool = True


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule of training and sampling.

    fit: follow the loss as training goes on (diffusion/schedule.py); otherwise it stays as it is.
    noise_variance: factor on the variance of the noise, in training and sampling alike; LaDiC's
    code has 4, in training only.
    """

    kind: Literal["gumbel", "tangent", "linear", "cosine"] = "gumbel"
    location: float = 3.0
    scale: float = 1.0
    tangent_strength: float = 7.0
    first_beta: float = 1e-4  # of the linear one, with the next two
    last_beta: float = 0.02
    timesteps: int = 1000  # of the linear and the cosine one
    noise_variance: float = 1.0
    fit: bool = True


@dataclass(frozen=True)
class TrainingConfig:
    """Everything `dac-diffusion train` can be told."""

    output_dir: str = "runs/soundscapes"
    seed: int = 0
    max_steps: int | None = None  # a cap on both stages, for trials
    initial_model: str | None = None  # a captioner to go on from: "builtin" or a folder
    training_scenes: int = 12000
    validation_scenes: int = 500
    render_workers: int = 2
    cache_dir: str | None = None  # for rendered scenes; default: inside output_dir
    soundscapes: SoundscapeConfig = field(default_factory=SoundscapeConfig)
    text: TextConfig = field(default_factory=TextConfig)
    data: DataConfig = field(default_factory=DataConfig)
    text_only: TextOnlyConfig = field(default_factory=TextOnlyConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    encoder_training: EncoderTrainingConfig = field(default_factory=EncoderTrainingConfig)
    encoder_loop: LoopConfig = field(default_factory=lambda: LoopConfig(max_steps=3000))
    scorer: ScorerTrainingConfig = field(default_factory=ScorerTrainingConfig)
    scorer_loop: LoopConfig = field(default_factory=lambda: LoopConfig(max_steps=2000))
    feature_augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    system: System = "diffusion"
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    autoregressive: AutoregressiveConfig = field(default_factory=AutoregressiveConfig)
    label_smoothing: float = 0.1  # of the plain autoregressive captioner's cross-entropy
    decoding: DecodingConfig = field(default_factory=DecodingConfig)  # of all but diffusion
    codec: CodecConfig = field(default_factory=CodecConfig)
    enclap: EnclapConfig = field(default_factory=EnclapConfig)
    prefix: PrefixConfig = field(default_factory=PrefixConfig)
    recap: RecapConfig = field(default_factory=RecapConfig)
    captioner_training: CaptionerTrainingConfig = field(default_factory=CaptionerTrainingConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(max_steps=10000, best_metric="+cider_d")
    )

    def __post_init__(self) -> None:
        """Raise ConfigError for settings that contradict each other or make no sense."""
        check_seed(self.seed)
        check_clap_ranking(self)
        if self.text_only.enabled:
            check_text_only(self)
        if self.encoder.name == "codes" and self.system != "enclap":
            raise ConfigError(
                f"encoder.name=codes: system={self.system} reads features, not codes; set "
                "system=enclap, or name an encoder of features"
            )

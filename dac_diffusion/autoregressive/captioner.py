"""The autoregressive captioner: audio, ranking and calls of the diffusion one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline

from dac_diffusion.autoregressive.decoding import DecodingMethod, DecodingSettings
from dac_diffusion.autoregressive.drawing import SequenceDrawer
from dac_diffusion.autoregressive.network import (
    EncodedAudio,
    Prompts,
    choose_attention,
    encode_audio,
)
from dac_diffusion.captioning.defaults import given_or, ranking_of_call
from dac_diffusion.captioning.inputs import AudioInput
from dac_diffusion.captioning.pipelines import load_pipeline
from dac_diffusion.captioning.pretrained import find_checkpoint
from dac_diffusion.captioning.recordings import CallSettings, caption_recordings
from dac_diffusion.captioning.results import ClipCaptions
from dac_diffusion.captioning.scoring import Ranker
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.detectors import RULES
from dac_diffusion.ranking.error_filter import ErrorDetector
from dac_diffusion.ranking.hybrid import Normalisation, RankingWeights

if TYPE_CHECKING:
    from dac_diffusion.retrieval.datastore import CaptionDatastore

Ranking = Literal["audio_text", "likelihood"]
LIKELIHOOD_ALONE = RankingWeights(audio_text=0.0, likelihood=1.0)
RetrievalSpace = Literal["scorer", "clap"]
DATASTORE = "datastore"  # the folder in a checkpoint
COMPONENTS = ("encoder", "projection", "network", "tokenizer", "scorer")


class AutoregressiveCaptioner(DiffusionPipeline):
    """Captions recordings one token after another; saved, loaded and called like a diffusion one.

    It is a diffusers pipeline for the sake of that only. The settings of a call have defaults that
    are kept in model_index.json. The systems differ in their components: what the encoder hears,
    how the projection gives it to the network, and which network it is (autoregressive/network.py).

    max_length: tokens that the network has places for. min_length, decoded_length: the least and
    the most that are written unless a call says otherwise (None: as many as there are places).
    prompt_left, prompt_right: token ids around the audio. retrieved: with a datastore (RECAP), how
    many captions are looked up there for each window and shown to the network; search_width and
    longest_caption: see retrieval/datastore.py and autoregressive/retrieval_prompt.py.
    retrieval_space: "scorer", the space of the scorer, or "clap", that of the encoder's pooled
    vectors; datastore_space: its fingerprint.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        projection: torch.nn.Module,
        network: torch.nn.Module,
        tokenizer: Any,
        scorer: torch.nn.Module,
        max_length: int = 24,
        decoding: DecodingMethod = "nucleus",
        num_candidates: int = 10,
        num_beams: int = 4,
        temperature: float = 1.0,
        top_p: float = 0.9,
        length_penalty: float = 1.0,
        diversity_penalty: float = 0.5,
        no_repeat_ngram: int = 0,
        early_stopping: bool = False,
        min_length: int = 1,
        decoded_length: int | None = None,
        ranking: Ranking = "audio_text",
        likelihood_weight: float = 0.0,
        audio_text_weight: float = 1.0,
        agreement_weight: float = 0.0,
        score_normalisation: Normalisation = "none",
        error_threshold: float | None = None,
        error_detector: str = RULES,
        error_encoder: str | None = None,
        redundancy_weight: float = 0.0,
        prompt_left: Sequence[int] | None = None,
        prompt_right: Sequence[int] | None = None,
        retrieved: int | None = None,
        search_width: int = 15,
        longest_caption: int = 50,
        retrieval_space: RetrievalSpace = "scorer",
        datastore_space: str | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            encoder=encoder,
            projection=projection,
            network=network,
            tokenizer=tokenizer,
            scorer=scorer,
        )
        self.register_to_config(
            # Its name in every version of transformers, not the one in the installed version.
            tokenizer=("transformers", "PreTrainedTokenizerFast"),
            max_length=max_length,
            decoding=decoding,
            num_candidates=num_candidates,
            num_beams=num_beams,
            temperature=temperature,
            top_p=top_p,
            length_penalty=length_penalty,
            diversity_penalty=diversity_penalty,
            no_repeat_ngram=no_repeat_ngram,
            early_stopping=early_stopping,
            min_length=min_length,
            decoded_length=decoded_length,
            ranking=ranking,
            likelihood_weight=likelihood_weight,
            audio_text_weight=audio_text_weight,
            agreement_weight=agreement_weight,
            score_normalisation=score_normalisation,
            error_threshold=error_threshold,
            error_detector=error_detector,
            error_encoder=error_encoder,
            redundancy_weight=redundancy_weight,
            prompt_left=prompt_left,
            prompt_right=prompt_right,
            retrieved=retrieved,
            search_width=search_width,
            longest_caption=longest_caption,
            retrieval_space=retrieval_space,
            datastore_space=datastore_space,
        )
        self.datastore: CaptionDatastore | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        torch_dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        revision: str | None = None,
        datastore: str | Path | None = None,
    ) -> AutoregressiveCaptioner:
        """Load "builtin-autoregressive", a folder or a Hub id; see DiffusionCaptioner.

        datastore: a folder of captions to look up in place of the captioner's own (RECAP). Raises
        DataError where it is damaged or of another space, ConfigError for a captioner without one.
        """
        captioner = load_pipeline(cls, COMPONENTS, name, torch_dtype, device, revision)
        choose_attention(captioner.network, captioner.device)
        if captioner.config.retrieved is not None:
            from dac_diffusion.retrieval.datastore import CaptionDatastore

            place = datastore or find_checkpoint(name, revision) / DATASTORE
            captioner.datastore = CaptionDatastore.open(place, captioner.config.datastore_space)
        elif datastore is not None:
            raise ConfigError(f"datastore={datastore}: {name} looks nothing up; leave it out")
        return captioner

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write all components, the settings and the datastore, if there is one."""
        super().save_pretrained(save_directory)
        if self.datastore is not None:
            self.datastore.save(Path(save_directory) / DATASTORE)

    def encode(self, audio: AudioFeatures) -> EncodedAudio:
        """What captions of B encoded windows are written from (autoregressive/network.py)."""
        return encode_audio(self.projection, self.network, audio, self.prompts(audio))

    def prompts(self, audio: AudioFeatures) -> Prompts | None:
        """Token ids around the audio of B encoded windows; None for a captioner without prompts."""
        if self.config.retrieved is not None:
            return self._looked_up(audio)
        left, right = self.config.prompt_left, self.config.prompt_right
        if left is None and right is None:
            return None
        clips = len(audio.features)
        return Prompts([list(left or [])] * clips, [list(right or [])] * clips)

    def _looked_up(self, audio: AudioFeatures) -> Prompts:
        """Prompts of the captions that are nearest to each window."""
        from dac_diffusion.autoregressive.retrieval_prompt import retrieve_prompts

        if self.datastore is None:
            raise ConfigError("this captioner looks captions up; set its `datastore`")
        config = self.config
        vectors = F.normalize(audio.pooled.float(), dim=-1)  # (B, E)
        if config.retrieval_space == "scorer":
            # One at a time: see captioning/invariance.py.
            rows = audio.pooled.to(self.scorer.device, self.scorer.dtype).split(1)
            vectors = torch.cat([self.scorer.embed_audio(row) for row in rows])  # (B, E)
        return retrieve_prompts(
            self.tokenizer,
            self.datastore,
            vectors,
            config.retrieved,
            config.search_width,
            longest_caption=config.longest_caption,
        )

    @torch.inference_mode()
    def __call__(
        self,
        audio: AudioInput,
        sampling_rate: int | None = None,
        num_captions: int = 5,
        num_candidates: int | None = None,
        decoding: DecodingMethod | None = None,
        num_beams: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        length_penalty: float | None = None,
        diversity_penalty: float | None = None,
        no_repeat_ngram: int | None = None,
        early_stopping: bool | None = None,
        ranking: Ranking | None = None,
        audio_text_weight: float | None = None,
        likelihood_weight: float | None = None,
        agreement_weight: float | None = None,
        score_normalisation: Normalisation | None = None,
        error_threshold: float | None = None,
        error_detector: ErrorDetector | None = None,
        redundancy_weight: float | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        seed: int = 0,
        batch_size: int = 32,
        progress: bool | None = None,
        on_result: Callable[[ClipCaptions], None] | None = None,
    ) -> ClipCaptions | list[ClipCaptions]:
        """Caption one recording, or a list or folder of them, as DiffusionCaptioner does.

        decoding: greedy (one caption, whatever num_captions is), beam, nucleus or diverse_beam;
        its settings are those of DecodingSettings. num_candidates: decoded per window to choose
        from; by default as many as captions, for nucleus sampling the checkpoint's own number.
        ranking: "audio_text" by the checkpoint's weights, "likelihood" by the mean log-likelihood
        per token alone (weights 0, 1, 0). Weights given in the call stand instead of either; they,
        score_normalisation, error_threshold, error_detector and redundancy_weight are those of
        DiffusionCaptioner.
        min_length: tokens before a caption may end. max_length: tokens after which it is cut, the
        end token included, at most the checkpoint's own max_length.

        Raises AudioError where a single recording cannot be captioned, ConfigError for settings
        that make no sense.
        """
        config = self.config
        method = given_or(decoding, config.decoding)
        settings = DecodingSettings(
            method=method,
            num_candidates=_candidates(num_candidates, num_captions, method, config.num_candidates),
            num_beams=given_or(num_beams, config.num_beams),
            temperature=given_or(temperature, config.temperature),
            top_p=given_or(top_p, config.top_p),
            length_penalty=given_or(length_penalty, config.length_penalty),
            diversity_penalty=given_or(diversity_penalty, config.diversity_penalty),
            no_repeat_ngram=given_or(no_repeat_ngram, config.no_repeat_ngram),
            early_stopping=given_or(early_stopping, config.early_stopping),
            seed=seed,
            min_length=given_or(min_length, config.min_length),
            max_length=given_or(max_length, given_or(config.decoded_length, config.max_length)),
        )
        settings.check(longest=config.max_length)
        order: Ranking = given_or(ranking, config.ranking)
        if order not in get_args(Ranking):
            raise ConfigError(f"ranking={order!r}: must be one of {', '.join(get_args(Ranking))}")
        ranks = ranking_of_call(
            config,
            audio_text_weight,
            likelihood_weight,
            agreement_weight,
            score_normalisation,
            error_threshold,
            error_detector,
            redundancy_weight,
            self.device,
            default_weights=LIKELIHOOD_ALONE if order == "likelihood" else None,
        )
        drawer = SequenceDrawer(self, settings, num_captions, ranks.weights.likelihood != 0, ranks)
        call = CallSettings(num_captions, batch_size, progress, on_result)
        ranker = Ranker(self.scorer, ranks)
        return caption_recordings(audio, sampling_rate, self.encoder, drawer, ranker, call)


def _candidates(given: int | None, num_captions: int, method: str, sampled: int) -> int:
    """How many captions to decode per window."""
    if num_captions < 1:
        raise ConfigError(f"num_captions={num_captions}: must be at least 1")
    if method == "greedy":
        return 1 if given is None else given
    if given is None:
        return max(sampled, num_captions) if method == "nucleus" else num_captions
    if given < num_captions:
        raise ConfigError(f"num_candidates={given}: must be at least num_captions={num_captions}")
    return given

"""Live scores of an environment or a backtest, beside the cards of the registry that serves."""

from pathlib import Path

import polars as pl

from dataflows.registry import artefact_folders
from dataflows.stack import kafka_settings
from infra.folder_sink import read_topic
from infra.kafka.reading import read_to_end
from infra.kafka.topics import topic_ends
from infra.report.live_scores import Bands, LiveScore, read_bands, score_live
from infra.settings import Settings
from schemas.codec import decode
from schemas.frames import to_frame
from schemas.models import ModelEventRecorded
from schemas.topics import full_name

_TOPIC = ModelEventRecorded.topic


def score_bands(settings: Settings) -> Bands:
    """Return what the cards of the registry promise, by content hash."""
    return read_bands(artefact_folders(settings))


def score_environment(settings: Settings) -> list[LiveScore]:
    """Return the live scores of an environment; raises BrokerAwayError, TopicMissingError."""
    kafka, name = kafka_settings(settings), full_name(settings.environment, _TOPIC)
    partitions = topic_ends(kafka, settings.environment, [_TOPIC])[_TOPIC]
    events = [
        decode(ModelEventRecorded, record.value or b"")
        for partition in partitions
        for record in read_to_end(kafka, name, partition)[0]
    ]
    return _score(settings, to_frame(ModelEventRecorded, events))


def score_folder(settings: Settings, folder: Path) -> list[LiveScore]:
    """Return the live scores of a backtest; raises FileNotFoundError without its file."""
    return _score(settings, read_topic(folder, ModelEventRecorded))


def _score(settings: Settings, events: pl.DataFrame) -> list[LiveScore]:
    return score_live(events, score_bands(settings), settings.vote.scored_min)

"""Which version of each model serves from which event time on, in one partition.

A version changes at an event time that no bar of the partition has reached yet, and the change is
written to `model.events` before anything that depends on it. A rebuild is told those events first, so
at every event time it uses what was live, however the bars are cut.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Protocol

from msgspec import Struct

from operators.voters.onnx_vote import Scorer
from schemas.ids import derive_id
from schemas.models import VERSION_KINDS, ModelEventKind, ModelEventRecorded
from schemas.operations import AlertRaised, Command, ControlCommanded

BEGINNING_NS = 0
"""Effective time of what serves from the first bar on."""
ALERT_KIND = "MODEL_REFUSED"

_KINDS = {
    Command.ACTIVATE: ModelEventKind.ACTIVATED,
    Command.ROLLBACK: ModelEventKind.ROLLED_BACK,
}
_SCHEDULED = VERSION_KINDS | {ModelEventKind.REFUSED}


class ModelLoader(Protocol):
    """Gives the models of a registry."""

    def active_versions(self, model: str) -> tuple[str, ...] | str:
        """Return the active version and those that served before, newest first; empty if retired.

        A text is the reason why nobody can tell.
        """

    def load(self, model: str, version: str) -> Scorer | str:
        """Return the verified model, or the reason why there is none."""


class Serving(Struct, frozen=True, kw_only=True):
    """What serves for a model at an event time."""

    version: str
    """Empty if no version does."""
    scorer: Scorer | None
    reason: str
    """Why there is no scorer; empty if there is one."""


class ModelSchedule:
    """The versions of one partition; it is told of bars and commands, and says what to write.

    Give `start` once before the first bar, then `on_commands` and `on_bars` in the order in which
    they come. Everything that they return must be durable before later records of the partition.
    """

    def __init__(
        self,
        partition: int,
        models: Iterable[str],
        loader: ModelLoader,
        known: Sequence[ModelEventRecorded] = (),
        not_before_ns: int = BEGINNING_NS,
        told: Collection[str] = (),
    ) -> None:
        """Begin with what the log says.

        Args:
            partition: the partition of `market.ticks`.
            models: names in the registry of the models that vote.
            loader: gives their versions.
            known: the events of this partition, in the order of the log.
            not_before_ns: first event time that nothing in the log depends on yet.
            told: ids of the alerts in the log.
        """
        self._partition = partition
        self._models = tuple(sorted(models))
        self._loader = loader
        self._not_before_ns = not_before_ns
        self._told = frozenset(told)
        self._newest_ns = -1
        self._spans: dict[str, list[ModelEventRecorded]] = {}
        self._counts: dict[str, int] = {}
        self._answered: set[str] = set()
        self._refusals: dict[str, set[tuple[str, str]]] = {}
        self._alerts: dict[str, AlertRaised] = {}
        self._opened: dict[tuple[str, str], Scorer | str] = {}
        for event in known:
            if event.partition == partition and event.kind in _SCHEDULED:
                self._note(event)

    @property
    def state(self) -> int:
        """Return the close of the newest bar, all that a snapshot must hold; the log has the rest."""
        return self._newest_ns

    @state.setter
    def state(self, newest_ns: int) -> None:
        self._newest_ns = newest_ns

    def start(
        self, commands: Sequence[ControlCommanded] = ()
    ) -> list[ModelEventRecorded | AlertRaised]:
        """Return what follows from commands that nobody answered, and from the registry as it is.

        The first version counts from the beginning; a version that the registry made active while
        the lane was down counts behind all that the log holds; a version that is refused gives way
        to the newest before it that loads. An alert that belongs to a known event comes first if the
        log lacks it: the event is durable before its alert, and a lane may die in between.
        """
        made: list[ModelEventRecorded | AlertRaised] = [
            alert for alert in self._alerts.values() if alert.id not in self._told
        ]
        made += self.on_commands(commands)
        for model in self._models:
            made += self._follow_registry(model)
        return made

    def on_commands(
        self, commands: Iterable[ControlCommanded]
    ) -> list[ModelEventRecorded | AlertRaised]:
        """Return one event per command that is about models and was not answered yet."""
        made: list[ModelEventRecorded | AlertRaised] = []
        for command in commands:
            if command.command in _KINDS and command.id not in self._answered:
                made += self._obey(command)
        return made

    def on_bars(self, newest_close_ns: int) -> None:
        """Take note that bars up to this close were given to the voters.

        A model that no later bar can ask for is let go: each version holds megabytes.
        """
        self._newest_ns = max(self._newest_ns, newest_close_ns)
        wanted = {
            (span.model, span.version)
            for spans in self._spans.values()
            for span in spans[max(_find_span(spans, self._newest_ns), 0) :]
        }
        self._opened = {key: found for key, found in self._opened.items() if key in wanted}

    def serving(self, model: str, event_time_ns: int) -> Serving:
        """Return what serves for a bar that closes at `event_time_ns`."""
        spans = self._spans.get(model, [])
        if not spans:
            return Serving(version="", scorer=None, reason=f"no version of {model} was activated")
        at = _find_span(spans, event_time_ns)
        if at < 0:
            return Serving(version="", scorer=None, reason=f"no version of {model} was active yet")
        span = spans[at]
        if span.kind is ModelEventKind.RETIRED:
            return Serving(version="", scorer=None, reason=f"model retired; {span.reason}")
        found = self._open(model, span.version, span.content_hash)
        if isinstance(found, str):
            return Serving(version=span.version, scorer=None, reason=found)
        return Serving(version=span.version, scorer=found, reason="")

    def cut(self, close_times_ns: Sequence[int]) -> list[slice]:
        """Return slices of ascending close times within which no version changes."""
        changes = {span.effective_from_ns for spans in self._spans.values() for span in spans}
        inner = {bisect_left(close_times_ns, change) for change in changes}
        edges = sorted({0, *inner, len(close_times_ns)})
        return [slice(first, last) for first, last in pairwise(edges)]

    def _obey(self, command: ControlCommanded) -> list[ModelEventRecorded | AlertRaised]:
        model, version = command.model, command.version
        if model not in self._models:
            reason = f"model must be one that votes here, {list(self._models)!r}; found {model!r}"
            # No alert: nothing that serves here is touched.
            return self._record(model, ModelEventKind.REFUSED, version, "", reason, command.id)
        if not version:
            return self._refuse(model, version, "command must name a version", command.id)
        # Asked for anew: what could not be loaded before may have been restored since.
        self._opened.pop((model, version), None)
        found = self._open(model, version, "")
        if isinstance(found, str):
            return self._refuse(model, version, found, command.id)
        kind = _KINDS[command.command]
        return self._record(
            model, kind, found.version, found.content_hash, command.reason, command.id
        )

    def _follow_registry(self, model: str) -> list[ModelEventRecorded | AlertRaised]:
        spans, wanted = self._spans.get(model, []), self._loader.active_versions(model)
        live = spans[-1] if spans and spans[-1].kind is not ModelEventKind.RETIRED else None
        if isinstance(wanted, str):
            return self._refuse(model, "" if live is None else live.version, wanted, "")
        if not wanted and live is not None:
            reason, version = "no version is active in the registry", live.version
            kind, content_hash = ModelEventKind.RETIRED, live.content_hash
            return self._record(model, kind, version, content_hash, reason, "")
        made: list[ModelEventRecorded | AlertRaised] = []
        for version in wanted:
            goes_on = live is not None and live.version == version
            found = self._open(
                model, version, live.content_hash if live is not None and goes_on else ""
            )
            if isinstance(found, str):
                made += self._refuse(model, version, found, "")
                continue
            if version != wanted[0]:
                if not goes_on:
                    reason, kind = "what should serve was refused", ModelEventKind.ROLLED_BACK
                    made += self._record(model, kind, version, found.content_hash, reason, "")
            elif not goes_on or self._is_alerted(model):
                reason, kind = "active in the registry", ModelEventKind.ACTIVATED
                made += self._record(model, kind, version, found.content_hash, reason, "")
            break
        return made

    def _refuse(
        self, model: str, version: str, reason: str, cause: str
    ) -> list[ModelEventRecorded | AlertRaised]:
        if not cause and (version, reason) in self._refusals.get(model, ()):
            return []  # Said at an earlier start; a lane that dies at once must not fill the log.
        return self._record(model, ModelEventKind.REFUSED, version, "", reason, cause)

    def _record(
        self,
        model: str,
        kind: ModelEventKind,
        version: str,
        content_hash: str,
        reason: str,
        cause: str,
    ) -> list[ModelEventRecorded | AlertRaised]:
        """Return what happened, and the alert that it begins or ends."""
        spans = self._spans.get(model, [])
        last_ns = spans[-1].effective_from_ns if spans else BEGINNING_NS
        effective_ns = max(self._newest_ns + 1, self._not_before_ns, last_ns)
        event = ModelEventRecorded(
            id=derive_id(
                ModelEventRecorded.topic,
                f"{model}/{self._partition}",
                effective_ns,
                self._counts.get(model, 0),
                f"{kind}/{version}/{cause}",
            ),
            cause=cause,
            model=model,
            kind=kind,
            version=version,
            content_hash=content_hash,
            previous_version=self._live_version(model),
            partition=self._partition,
            effective_from_ns=effective_ns,
            reason=reason,
            event_time_ns=self._newest_ns if self._newest_ns >= 0 else effective_ns,
        )
        alert = self._note(event)
        return [event] if alert is None else [event, alert]

    def _note(self, event: ModelEventRecorded) -> AlertRaised | None:
        """Take an event in; return the alert that it begins or ends, the same whenever it is asked."""
        model, alerted = event.model, self._is_alerted(event.model)
        self._counts[model] = self._counts.get(model, 0) + 1
        if event.cause:
            self._answered.add(event.cause)
        if event.kind in VERSION_KINDS:
            self._spans.setdefault(model, []).append(event)
        if event.kind is ModelEventKind.REFUSED:
            self._refusals.setdefault(model, set()).add((event.version, event.reason))
            # Of a model that does not vote here nothing that serves is touched.
            changed = not alerted and model in self._models
        else:
            # A fallback of our own is no cure: the alert stays until what is wanted serves.
            cured = event.kind is ModelEventKind.ACTIVATED or bool(event.cause)
            if cured:
                self._refusals.pop(model, None)
            changed = cured and alerted
        if not changed:
            return None
        self._alerts[model] = _alert(event, resolved=alerted)
        return self._alerts[model]

    def _is_alerted(self, model: str) -> bool:
        return model in self._alerts and not self._alerts[model].resolved

    def _live_version(self, model: str) -> str:
        spans = self._spans.get(model, [])
        if not spans or spans[-1].kind is ModelEventKind.RETIRED:
            return ""
        return spans[-1].version

    def _open(self, model: str, version: str, content_hash: str) -> Scorer | str:
        key = (model, version)
        if key not in self._opened:
            self._opened[key] = self._loader.load(model, version)
        found = self._opened[key]
        if isinstance(found, str) or content_hash in {"", found.content_hash}:
            return found
        return (
            f"version {version} of model {model!r} must hash to {content_hash[:12]!r} as when it "
            f"went live; found {found.content_hash[:12]!r}; restore the artefact"
        )


def _find_span(spans: Sequence[ModelEventRecorded], event_time_ns: int) -> int:
    """Return the place of what is in effect at an event time; -1 before the first."""
    return bisect_right(spans, event_time_ns, key=lambda span: span.effective_from_ns) - 1


def _alert(event: ModelEventRecorded, *, resolved: bool) -> AlertRaised:
    who = f"model {event.model!r} {event.version} in partition {event.partition}"
    return AlertRaised(
        id=derive_id(AlertRaised.topic, ALERT_KIND, event.effective_from_ns, resolved, event.id),
        cause=event.id,
        kind=ALERT_KIND,
        resolved=resolved,
        event_time_ns=event.event_time_ns,
        text=f"{who} serves; {event.reason}" if resolved else f"{who} was refused; {event.reason}",
    )

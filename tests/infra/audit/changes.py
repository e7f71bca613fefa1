"""Ways to make one fact of the session wrong."""

from msgspec.structs import replace

from schemas.features import FEATURE_SCHEMAS
from schemas.fields import Stance
from schemas.market import FeaturesComputed
from schemas.signals import SignalEmitted
from schemas.trading import DecisionMade
from tests.infra.audit.facts import tick_record
from tests.infra.audit.world import session, write


def index_of(records, kind, number=0, **fields):
    """Return where the `number`-th message of `kind` with these fields stands."""
    found = [
        index
        for index, record in enumerate(records)
        if isinstance(record.message, kind)
        and all(getattr(record.message, name) == value for name, value in fields.items())
    ]
    return found[number]


def changed(kind, number=0, where=None, **fields):
    """Return the session with fields of one message replaced."""
    records = session()
    index = index_of(records, kind, number, **(where or {}))
    records[index] = write(replace(records[index].message, **fields))
    return records


def without(kind, number=0, **where):
    records = session()
    del records[index_of(records, kind, number, **where)]
    return records


def without_all(kind, **where):
    records = session()
    while True:
        try:
            del records[index_of(records, kind, **where)]
        except IndexError:
            return records


def revoted(number, change):
    """Return the session with the votes of one signal changed."""
    votes = session()[index_of(session(), SignalEmitted, number)].message.votes
    return changed(SignalEmitted, number, votes=change(votes))


def silenced(number):
    """Return the session with the models of one signal made silent, and nothing made of it."""
    made = session()[index_of(session(), SignalEmitted, number)].message
    nothing = dict.fromkeys(("probability_sell", "probability_hold", "probability_buy"))
    votes = [
        each if each.kind == "rule" else replace(each, stance=Stance.ABSTAIN, weight=0.0, **nothing)
        for each in made.votes
    ]
    silent = {"votes": votes, "score": 0.0, "multiplier": None, "agreement": ""}
    return changed(SignalEmitted, number, **silent, **nothing)


def unsignalled(kind):
    """Return the session without the last signal, which was refused, and the last of `kind`."""
    records = without(kind, -1)
    del records[index_of(records, SignalEmitted, -1)]
    del records[index_of(records, DecisionMade, -1)]
    return records


def revalued(number, name, value):
    """Return the session with one value of a vector replaced, and a mask that fits."""
    made = session()[index_of(session(), FeaturesComputed, number)].message
    vector = list(made.vector)
    vector[FEATURE_SCHEMAS[made.schema_name].names.index(name)] = value
    mask = sum(1 << i for i, each in enumerate(vector) if each is None)
    return changed(FeaturesComputed, number, vector=vector, missing_mask=mask)


def synthetic(line):
    record = tick_record(line)
    return record._replace(headers=[record.headers[0], ("provenance", b"synthetic")])

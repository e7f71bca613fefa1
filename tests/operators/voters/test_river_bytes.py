import pickle

from tests.operators.voters.test_river_learners import build, every_kind, opine, rows, small


@every_kind
def test_learners_of_the_same_events_are_the_same_bytes_restarted_or_not(kind):
    frame, inputs = rows()
    often = small(kind, 40)
    whole, first, second = build(often), build(often), build(often)
    opine(whole, frame, inputs)
    opine(first, frame[:150], inputs[:150])
    second.state = pickle.loads(pickle.dumps(first.state))
    opine(second, frame[150:], inputs[150:])
    assert whole.state.base
    assert second.state.base == whole.state.base


@every_kind
def test_a_learner_made_of_its_bytes_goes_on_bit_for_bit(kind):
    frame, inputs = rows()
    often, never = build(small(kind, 20)), build(small(kind, 10_000))
    assert opine(often, frame, inputs).tobytes() == opine(never, frame, inputs).tobytes()
    assert often.state.base
    assert not never.state.base

from dataflows.machines import _MachineLogic


class Postponing:
    """A machine that puts out what it was given once it settles."""

    def __init__(self):
        self.given = []

    def on_batch(self, values):
        self.given += values
        return []

    def settle(self):
        given, self.given = self.given, []
        return given

    def snapshot(self):
        return self.given


def test_a_feed_without_a_pause_does_not_put_the_settling_off():
    logic = _MachineLogic(Postponing())
    logic.on_notify()
    assert logic.notify_at() is None
    logic.on_batch([1])
    due = logic.notify_at()
    logic.on_batch([2])
    assert logic.notify_at() == due
    assert logic.on_notify()[0] == [1, 2]
    assert logic.notify_at() is None


def test_what_was_put_off_in_a_snapshot_does_not_wait_for_the_next_input():
    machine = Postponing()
    machine.on_batch([1])
    logic = _MachineLogic(machine)
    assert logic.notify_at() is not None
    assert logic.on_notify()[0] == [1]

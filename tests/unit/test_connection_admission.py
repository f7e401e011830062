"""Who gets a place: newcomers, as long as somebody waits whose place they can have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.http.edge import connection_admission
from antiphon.http.edge.connection_admission import ConnectionAdmission, Entrance, Evictable, Wait

CAP = 4


class Connection(Evictable):
    def __init__(self) -> None:
        self.was_evicted = False

    def evict(self) -> None:
        self.was_evicted = True


def test_the_longest_wait_for_a_head_ends_first_and_bodies_last():
    places = ConnectionAdmission(3)
    body, old, young, newcomer = (Connection() for _ in range(4))
    for connection in (body, old, young):
        assert places.enter(connection) is Entrance.PLACE
    places.waits(body, Wait.BODY)
    places.waits(old, None)
    places.waits(old, Wait.HEAD)  # it has been answered, and is silent for less time than the young one
    assert places.enter(newcomer) is Entrance.PLACE
    assert [each.was_evicted for each in (body, old, young)] == [False, False, True]
    assert places.enter(Connection()) is Entrance.PLACE
    places.waits(newcomer, None)
    assert old.was_evicted
    assert not body.was_evicted


def test_a_connection_that_is_being_answered_keeps_its_place():
    places = ConnectionAdmission(1)
    busy, spare, refused = Connection(), Connection(), Connection()
    places.enter(busy)
    places.waits(busy, None)
    assert places.enter(spare) is Entrance.SPARE
    places.waits(busy, Wait.HEAD)
    assert places.enter(refused) is Entrance.PLACE
    assert busy.was_evicted
    assert not spare.was_evicted


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["enter", "head", "body", "busy", "leave"])), max_size=80))
def test_places_are_never_more_than_there_are_and_never_refused_while_somebody_waits(steps):
    places = ConnectionAdmission(CAP)
    kinds: dict[Connection, Entrance] = {}
    states: dict[Connection, Wait | None] = {}
    connections: list[Connection] = []
    ever: list[Entrance] = []
    for number, step in steps:
        present = [each for each in kinds if not each.was_evicted]
        if step == "enter":
            newcomer = Connection()
            waiting = [each for each in present if kinds[each] is Entrance.PLACE and states[each]]
            taken = sum(kinds[each] is Entrance.PLACE for each in present)
            entrance = places.enter(newcomer)
            ever.append(entrance)
            connections.append(newcomer)
            assert (entrance is Entrance.PLACE) == (taken < CAP or bool(waiting))
            if entrance is not Entrance.NONE:
                kinds[newcomer], states[newcomer] = entrance, Wait.HEAD
        elif present:
            connection = present[number % len(present)]
            if step == "leave":
                places.leave(connection)
                del kinds[connection]
            else:
                states[connection] = {"head": Wait.HEAD, "body": Wait.BODY, "busy": None}[step]
                places.waits(connection, states[connection])
        present = [each for each in kinds if not each.was_evicted]
        assert len(places) == len(present) <= CAP + connection_admission._SPARE_CONNECTIONS
        figures = places.figures
        assert (figures.open, figures.limit) == (len(present), CAP)
        assert figures.accepted == sum(kind is Entrance.PLACE for kind in ever)
        assert figures.refused == sum(kind is not Entrance.PLACE for kind in ever)
        assert figures.evicted == sum(each.was_evicted for each in connections)
        assert sum(kinds[each] is Entrance.PLACE for each in present) <= CAP

from __future__ import annotations

from sipserver.location.spread import PARTS, Spread


def test_it_is_a_dictionary() -> None:
    spread: Spread[str, int] = Spread()
    names = [f"name{number}" for number in range(10 * PARTS)]
    for number, name in enumerate(names):
        spread.part(name)[name] = number
    assert (len(spread), set(spread), set(spread.values())) == (len(names), set(names), set(range(len(names))))
    assert spread.part("name7").get("name7") == 7
    del spread.part("name7")["name7"]
    assert "name7" not in set(spread)
    spread.clear()
    assert (len(spread), list(spread)) == (0, [])


def test_no_part_holds_much_more_than_its_share() -> None:
    spread: Spread[object, None] = Spread()
    # Objects are told apart by where they lie.
    for each in [object() for _ in range(100 * PARTS)]:
        spread.part(each)[each] = None
    assert max(len(part) for part in {id(spread.part(each)): spread.part(each) for each in spread}.values()) < 300

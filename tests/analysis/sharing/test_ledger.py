"""What was shared is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.analysis.sharing.ledger import BUDGET, open_ledger
from sipserver.analysis.sharing.tables import Shared

RULES = {"k": 10, "by": "week"}


def test_rules_of_the_first_release_are_those_of_all(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "shared.db") as ledger:
        ledger.agree(RULES)
    with open_ledger(tmp_path / "shared.db") as ledger:
        ledger.agree(dict(RULES))
        with pytest.raises(ValueError, match=r"shared by other rules.*: k 10$"):
            ledger.agree({"k": 5, "by": "week"})
    assert (tmp_path / "shared.db").stat().st_mode & 0o777 == 0o600


def test_block_comes_back_as_it_was_shared(tmp_path: Path) -> None:
    shared = Shared(primary=3, complementary=2, withheld=["errors"])
    shared.rows["outcomes"] = [("(all)", 40), ("busy", None)]
    with open_ledger(tmp_path / "shared.db") as ledger:
        assert ledger.block("2026-11-02") is None
        ledger.keep("2026-11-02", shared)
    with open_ledger(tmp_path / "shared.db") as ledger:
        assert ledger.block("2026-11-02") == shared
        assert ledger.block("2026-11-09") is None


def test_key_of_the_rounding_is_made_once(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "shared.db") as ledger:
        key = ledger.rounding_key
        assert len(key) == 32
    with open_ledger(tmp_path / "shared.db") as ledger, open_ledger(tmp_path / "other.db") as other:
        assert ledger.rounding_key == key
        assert other.rounding_key != key


def test_releases_add_up_and_the_same_one_is_free(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "shared.db") as ledger:
        assert (ledger.spent.epsilon, ledger.spent.delta, ledger.spent.releases) == (0.0, 0.0, 0)
        for number, epsilon in enumerate((1.0, 0.5)):
            ledger.spend({"period": number}, epsilon, 1e-6, Shared(primary=number))
        assert ledger.spent.epsilon == 1.5
        assert ledger.spent.delta == pytest.approx(2e-6)
        found = ledger.private({"period": 1})
        assert found is not None
        assert found.primary == 1
        assert ledger.private({"period": 2}) is None


def test_budget_is_promised_once(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "shared.db") as ledger:
        assert ledger.budget(3.0) == 3.0
        assert ledger.budget(None) == 3.0
        with pytest.raises(ValueError, match="the budget of this store is 3, and was promised"):
            ledger.budget(5.0)
    with open_ledger(tmp_path / "other.db") as ledger:
        assert ledger.budget(None) == BUDGET


def test_nothing_stands_of_a_release_that_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with open_ledger(tmp_path / "shared.db") as ledger:
            ledger.agree(RULES)
            ledger.spend({}, 1.0, 0.0, Shared())
            ledger.agree({"k": 5})

    with pytest.raises(ValueError, match="other rules"):
        fail()
    with open_ledger(tmp_path / "shared.db") as ledger:
        assert ledger.spent.releases == 0
        ledger.agree({"k": 3})

"""A sample that cannot be right is unknown, with the reason."""

from __future__ import annotations

import pytest

from ds01d.decide.plausibility import check_plausible
from ds01d.model.devices import Inventory
from ds01d.model.primitives import Boot, Now, Unknown, Wall
from tests.support.build import gpu, inventory, mig, two_by_two, whole


def judged(gpus: Inventory, *, remembered: int = 0, boot: float = 10_000.0) -> str:
    now = Now(wall=Wall(0.0), boot=Boot(boot), boot_id="b")
    answer = check_plausible(gpus, remembered=remembered, now=now, boot_grace_s=900.0)
    return answer.reason if isinstance(answer, Unknown) else "plausible"


@pytest.mark.parametrize(
    ("gpus", "remembered", "boot", "says"),
    [
        pytest.param(two_by_two(), 6, 60.0, "plausible", id="as before the boot"),
        pytest.param(whole(9), 6, 60.0, "plausible", id="more than before the boot"),
        pytest.param(whole(2), 6, 901.0, "plausible", id="fewer, long after boot"),
        pytest.param(whole(2), 0, 60.0, "plausible", id="nothing is remembered"),
        pytest.param(whole(2), 6, 60.0, "2 devices 60 s after boot, 6 before", id="fewer"),
        pytest.param(inventory(), 0, 9_999.0, "no GPU at all", id="none"),
        pytest.param(inventory(mig(0, 0)), 0, 9_999.0, "no GPU at all", id="MIG without a GPU"),
        pytest.param(
            inventory(gpu(0), gpu(1, uuid="GPU-0")), 0, 9_999.0, "GPU-0 more than once", id="twice"
        ),
    ],
)
def test_what_cannot_be_right_is_unknown(
    gpus: Inventory, remembered: int, boot: float, says: str
) -> None:
    assert says in judged(gpus, remembered=remembered, boot=boot)

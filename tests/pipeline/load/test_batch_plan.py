import pytest
import torch

from pipeline.load.batch_plan import BatchPlan


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 11, 20])
def test_the_parts_of_all_ranks_are_the_batches(batch_size: int, ranks: int, drop_last: bool) -> None:
    """The oracle: torch's own `split`, `tensor_split` and counting."""
    rows = torch.arange(11) * 2
    plans = [BatchPlan(rows, batch_size, True, 3, drop_last, (rank, ranks)) for rank in range(ranks)]
    plan, order = plans[0], plans[0].order(5)
    batches = [batch for batch in order.split(batch_size) if len(batch) == batch_size or not drop_last]

    assert torch.equal(rows[plan.positions(5)], order)
    assert len(plan) == len(batches) and plan.images == sum(map(len, batches))
    assert [plan.size(k) for k in range(len(plan))] == [len(batch) for batch in batches]
    for number, batch in enumerate(batches):
        assert torch.equal(plan.batch(order, number), batch)
        assert torch.equal(torch.cat([other.own(batch) for other in plans]), batch)
    for start in range(len(plan) + 1):
        for rank, other in enumerate(plans):
            own, lengths = other.own_batches(order[start * batch_size :])
            expected = [batch.tensor_split(ranks)[rank] for batch in batches[start:]]
            assert list(lengths) == [len(part) for part in expected]
            assert torch.equal(own, torch.cat([order[:0], *expected]))
            assert torch.equal(plan.own_batches(order[start * batch_size :], rank)[0], own)


def test_several_batches_have_the_images_that_are_left() -> None:
    plan = BatchPlan(8, 3)
    assert [plan.size(0, 2), plan.size(2, 2), plan.size(0, 9)] == [6, 2, 8]


def test_a_plan_refuses_masks_and_impossible_parts() -> None:
    with pytest.raises(ValueError, match=r"rows are \(M,\) int64, not \(4,\) torch.bool"):
        BatchPlan(torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="part is"):
        BatchPlan(4, part=(2, 2))

from pipeline.load.batch_plan import BatchPlan
from pipeline.load.sampler import EpochSampler


def test_an_epoch_can_begin_anywhere_and_the_next_one_is_whole() -> None:
    sampler = EpochSampler(BatchPlan(10, shuffle=True, seed=3))
    whole = [sampler.plan.order(epoch).tolist() for epoch in range(4)]

    sampler.set_epoch(2, 7)

    assert [list(sampler), list(sampler)] == [whole[2][7:], whole[3]]
    assert len(sampler) == 10


def test_orders_of_neighbouring_seeds_and_epochs_have_nothing_in_common() -> None:
    orders = {
        tuple(BatchPlan(50, shuffle=True, seed=seed).order(epoch).tolist()) for seed in range(20) for epoch in range(20)
    }

    assert len(orders) == 400
    assert all(sorted(order) == list(range(50)) for order in orders)
    firsts = [order[0] for order in orders]
    assert max(map(firsts.count, range(50))) < 30  # 8 on average


def test_iterators_that_are_never_used_take_no_epoch() -> None:
    sampler = EpochSampler(BatchPlan(10, shuffle=True, seed=3))

    iterators = [iter(sampler) for _ in range(3)]

    assert [list(iterators[1]), list(iterators[0])] == [sampler.plan.order(0).tolist(), sampler.plan.order(1).tolist()]

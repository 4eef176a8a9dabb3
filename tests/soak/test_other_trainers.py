"""Our dataset and loader, unchanged, under trainers that know nothing of them: Lightning's, Accelerate's, timm's."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modelnet import ModelNet
from pipeline import TensorCache, make_loader
from pipeline.load.batch_plan import BatchPlan
from pipeline.load.dataset import collate
from pipeline.load.sampler import EpochSampler
from tests.support.command_line import REPOSITORY
from tests.support.console import check_out

pytestmark = pytest.mark.filterwarnings("default")  # of other people's packages
INSTALL = "pip install '.[trainers]'"
EPOCHS, BATCH = 3, 3


@pytest.fixture(autouse=True)
def only_where_there_is_time(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--soak-scale") < 0.05:
        pytest.skip("importing the others takes ten seconds; make soak does it")


def plain_losses(cache: TensorCache) -> list[float]:
    """Train by a plain loop over our loader: what each of the others must repeat, batch for batch."""
    torch.manual_seed(0)
    network, losses = ModelNet(2, 64), []
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.5)
    loader = make_loader(cache, BATCH, shuffle=True, seed=5)
    for _ in range(EPOCHS):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def lightning_module() -> Any:
    lightning: Any = pytest.importorskip("lightning", reason=INSTALL)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network, self.losses = ModelNet(2, 64), list[float]()
            self.seen = 0

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
            self.seen += len(batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.5)

    return Module()


def lightning_trainer(folder: Path, **options: Any) -> Any:
    lightning: Any = pytest.importorskip("lightning", reason=INSTALL)
    return lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        log_every_n_steps=1,
        **options,
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_trains_to_the_same_losses(cache_path: Path, tmp_path: Path, workers: int) -> None:
    cache, module = TensorCache(cache_path), lightning_module()
    lightning_trainer(tmp_path, enable_checkpointing=False).fit(
        module,
        make_loader(cache, BATCH, shuffle=True, seed=5, workers=workers),
        make_loader(cache, BATCH, shuffle=False, workers=workers),
    )
    assert module.losses == pytest.approx(plain_losses(cache), abs=1e-6)
    assert module.seen == EPOCHS * cache.num_images


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_resumes_after_any_batch(cache_path: Path, tmp_path: Path, workers: int) -> None:
    callbacks: Any = pytest.importorskip("lightning.pytorch.callbacks", reason=INSTALL)
    cache, wanted = TensorCache(cache_path), plain_losses(TensorCache(cache_path))
    every = callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    loaders = [make_loader(cache, BATCH, seed=5, workers=workers) for _ in range(len(wanted) + 1)]
    lightning_trainer(tmp_path, callbacks=[every]).fit(lightning_module(), loaders[0])
    for step in range(1, len(wanted)):
        module = lightning_module()
        trainer = lightning_trainer(tmp_path, enable_checkpointing=False)
        trainer.fit(module, loaders[step], ckpt_path=tmp_path / f"step={step}.ckpt")
        assert module.losses == pytest.approx(wanted[step:], abs=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_accelerate_resumes_after_any_batch(cache_path: Path, tmp_path: Path, workers: int) -> None:
    accelerate: Any = pytest.importorskip("accelerate", reason=INSTALL)
    cache, wanted = TensorCache(cache_path), plain_losses(TensorCache(cache_path))

    def losses(saved: int, stop: int) -> list[float]:
        torch.manual_seed(0)
        accelerator, network, found = accelerate.Accelerator(cpu=True), ModelNet(2, 64), list[float]()
        network, optimizer = accelerator.prepare(network, torch.optim.SGD(network.parameters(), 0.02, 0.5))
        loader: Any = make_loader(cache, BATCH, seed=5, workers=workers)
        accelerator.register_for_checkpointing(loader)
        if saved:
            accelerator.load_state(tmp_path / str(saved))
        for _ in range(loader.state_dict()["epoch"], EPOCHS):
            for images, labels in loader:
                loss = nn.functional.cross_entropy(network(images), labels)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                found.append(loss.item())
                if saved + len(found) == stop:
                    accelerator.save_state(tmp_path / str(stop))
                    return found
        return found

    for stop in range(1, len(wanted)):
        assert losses(0, stop) + losses(stop, 0) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", ["lightning", "accelerate"])
def test_the_programs_of_the_documentation_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name, reason=INSTALL)
    check_out(tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    page = (REPOSITORY / "docs" / "other-trainers.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if re.search(rf"^(import|from) {name}\b", block, re.MULTILINE))
    program: dict[str, Any] = {"__name__": name}
    exec(compile(code, "docs/other-trainers.md", "exec"), program)
    assert (program["step"] if name == "accelerate" else program["trainer"].global_step) == 3 * 16
    assert any(Path("checkpoints").iterdir())


def test_lightnings_distributed_sampler_deals_every_image_once(cache_path: Path) -> None:
    """In distributed runs Lightning puts a sampler of its own between: of our dataset and collate the rest is left."""
    data: Any = pytest.importorskip("lightning.fabric.utilities.data", reason=INSTALL)
    distributed: Any = pytest.importorskip("lightning.fabric.utilities.distributed", reason=INSTALL)

    cache = TensorCache(cache_path)
    for epoch in range(2):
        found: list[Tensor] = []
        for rank in range(2):
            loader = make_loader(cache, BATCH, shuffle=True, seed=5)
            sampler = distributed.DistributedSamplerWrapper(loader.sampler, num_replicas=2, rank=rank, shuffle=False)
            dealt = data._update_dataloader(loader, sampler)
            assert dealt.collate_fn is collate
            assert dealt.state_dict() == {}  # the order is not ours
            dealt.load_state_dict({})
            with pytest.raises(ValueError, match="this one has images None, batch_size None"):
                dealt.load_state_dict(loader.state_dict())  # type: ignore[attr-defined]
            sampler.set_epoch(epoch)
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            found += [image for images, _ in dealt for image in images]
        assert len(found) == cache.num_images
        assert all(any(torch.equal(image, row) for image in found) for row in cache.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_as_timms_trains_a_timm_network(uint8_cache_path: Path, workers: int) -> None:
    timm: Any = pytest.importorskip("timm", reason=INSTALL)
    optim: Any = pytest.importorskip("timm.optim")
    scheduling: Any = pytest.importorskip("timm.scheduler")
    utils: Any = pytest.importorskip("timm.utils")

    torch.manual_seed(0)
    cache = TensorCache(uint8_cache_path)
    network = timm.create_model("test_resnet", pretrained=False, num_classes=2)
    optimizer = optim.create_optimizer_v2(network, opt="adamw", lr=2e-3)
    scheduler, epochs = scheduling.create_scheduler_v2(optimizer, sched="cosine", num_epochs=30)
    loader = make_loader(cache, 4, shuffle=True, seed=1, workers=workers, persistent_workers=workers > 0)
    orders: list[list[int]] = []
    for epoch in range(30):
        sampler: Any = loader.sampler
        if hasattr(sampler, "set_epoch"):  # as timm's train.py asks
            sampler.set_epoch(epoch)
        network.train()
        losses, top1, seen = utils.AverageMeter(), utils.AverageMeter(), list[int]()
        for images, labels in loader:
            logits = network(images)
            loss = nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), images.size(0))
            top1.update(utils.accuracy(logits, labels)[0].item(), images.size(0))
            seen += [int(image.sum() * 1000) for image in images]
        scheduler.step(epoch + 1, losses.avg)
        orders.append(seen)
    assert epochs >= 30 and losses.count == cache.num_images
    assert losses.avg < 0.2 and top1.avg == 100
    assert len({tuple(order) for order in orders}) == 30 and len({tuple(sorted(order)) for order in orders}) == 1


def test_epochs_set_from_outside_give_the_order_of_that_epoch() -> None:
    """Lightning sets the epoch of a sampler before each `iter`, timm too; a resumed run begins with a later one."""
    sampler = EpochSampler(BatchPlan(20, shuffle=True, seed=3))
    by_itself = [list(sampler) for _ in range(3)]
    for epoch in (2, 0, 1):
        sampler.set_epoch(epoch)
        assert list(sampler) == by_itself[epoch]

import torch

from tlcourse.loaders.augment import flip_and_move


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_same_seed_moves_alike_and_another_does_not():
    images = torch.rand(6, 3, 32, 32)
    first = flip_and_move(images, generator())
    assert torch.equal(first, flip_and_move(images, generator()))
    assert not torch.equal(first, flip_and_move(images, generator(1)))
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_each_image_goes_its_own_way():
    images = torch.rand(1, 3, 32, 32).expand(5, -1, -1, -1)
    moved = flip_and_move(images, generator())
    assert len({image.sum().item() for image in moved}) == 5


def test_what_lies_in_the_middle_stays_in_view():
    images = torch.zeros(64, 3, 64, 64)
    images[:, :, 28:36, 28:36] = 1
    mass = flip_and_move(images, generator()).sum((1, 2, 3)) / (3 * 64)
    # The patch keeps its brightness; only the zoom, at most a tenth, changes its area.
    assert mass.min() > 0.9**2 * 0.95
    assert mass.max() < 1.1**2 * 1.05
    centre = (flip_and_move(images, generator()) * torch.arange(64.0)).sum((1, 2, 3))
    centre = centre / (mass * 3 * 64)
    assert (centre - 31.5).abs().max() < 0.06 * 64 + 1.5
    assert (centre - 31.5).abs().max() > 1


def test_a_flat_image_stays_flat_to_its_borders():
    images = torch.full((4, 3, 32, 32), 0.7)
    assert torch.allclose(flip_and_move(images, generator()), images, atol=1e-5)

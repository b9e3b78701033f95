"""nova's own manager, run on a tree: what the laboratory says of it is what happened to the files."""

from pathlib import Path

from lab import nova_image_cache
from lab.nova_image_cache import Row
from lab.nova_tree import DAY, NovaTree, image_file_name

USED, BY_DISK, UNUSED = "11111111-image", "22222222-image", "33333333-image"
A, B = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


def test_nova_touches_what_a_row_names_keeps_what_a_disk_needs_and_removes_the_rest(tmp_path: Path) -> None:
    tree = NovaTree(tmp_path / "instances")
    used, by_disk, unused = (tree.add_base(image, age=3 * DAY) for image in (USED, BY_DISK, UNUSED))
    swap, other_swap = tree.add_swap(1, age=3 * DAY), tree.add_swap(2, age=3 * DAY)
    tree.add_overlay(A, used)
    tree.add_overlay(B, by_disk)
    made = nova_image_cache.run(tree, [Row(A, USED, swap_mib=(1,)), Row(B, "")])
    assert made.failure is None
    assert sorted(made.active) == sorted((used.name, by_disk.name))
    assert made.removable == (unused.name,) == (image_file_name(UNUSED),)
    assert sorted(made.removed) == sorted((unused.name, other_swap.name))
    assert sorted(made.touched) == sorted((used.name, swap.name))
    assert made.processes == 2
    assert not unused.exists()
    assert not other_swap.exists()


def test_only_rows_of_registered_hosts_count_where_nova_enters_itself_first(tmp_path: Path) -> None:
    tree = NovaTree(tmp_path / "instances")
    near, far = tree.add_base(USED, age=3 * DAY), tree.add_base(BY_DISK, age=3 * DAY)
    rows = [Row(A, USED), Row(B, BY_DISK, host="another")]
    options = {"image_cache.remove_unused_base_images": False}
    with nova_image_cache.NovaImageCache(tree, options) as nova:
        assert nova.update(rows, register=True).touched == (near.name,)
        tree.register_host("another")
        assert sorted(nova.update(rows, register=True).touched) == sorted((near.name, far.name))
    assert far.exists()


def test_what_ends_a_pass_of_nova_is_told(tmp_path: Path) -> None:
    tree = NovaTree(tmp_path / "instances")
    unused = tree.add_base(UNUSED, age=3 * DAY)
    (tree.instance(A) / "disk").mkdir()
    made = nova_image_cache.run(tree, [Row(A, USED)])
    assert made.failure is not None
    assert made.failure.startswith("InvalidDiskInfo")
    assert unused.exists()

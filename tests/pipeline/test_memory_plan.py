"""Memory plans: batches fit the limit, and limits are those of machine and control group."""

from __future__ import annotations

import os

import pytest

from cryopick.errors import ParameterError
from cryopick.execution.parameters import WORKER_BASE_BYTES
from cryopick.pipeline.memory_plan import free_memory, memory_limit, plan_memory

GIB = 1 << 30


@pytest.mark.parametrize("limit", [1e9, 2e9, 3.5e9, 1e12])
@pytest.mark.parametrize("bytes_per_image", [1e5, 3e6, 1e7])
def test_the_batch_is_the_largest_that_fits(limit, bytes_per_image):
    fixed = {"references": 2e8, "sums": 1e8}

    plan = plan_memory(
        bytes_per_image=bytes_per_image, fixed=fixed, limit=limit, minimum=8, maximum=500
    )

    assert 8 <= plan.batch_size <= 500
    assert plan.total <= limit
    assert plan.batch_size == 500 or plan.total + bytes_per_image > limit
    assert plan.total == WORKER_BASE_BYTES + 3e8 + plan.batch_size * bytes_per_image


def test_a_limit_below_the_smallest_batch_is_refused_with_what_is_needed():
    needs = {"bytes_per_image": 1e8, "fixed": {"references": 5e8}, "minimum": 10}

    with pytest.raises(ParameterError, match=r"memory must be at least 1\.9 GB .*; got 1\.0 GB"):
        plan_memory(**needs, limit=1e9)
    assert plan_memory(**needs, limit=1.93e9).batch_size == 10


def test_the_plan_says_what_goes_where():
    plan = plan_memory(bytes_per_image=2e6, fixed={"references": 1e8}, limit=1e9)

    assert str(plan) == (
        "Memory: 1.0 GB = program 0.4 + references 0.1 + batches of 240 images 0.5; limit 1.0 GB."
    )


def test_the_users_limit_counts_and_none_takes_what_is_free():
    assert memory_limit(3.0) == 3e9
    assert 0 < memory_limit(0) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def machine(root, **files):
    """A tree of the files in which Linux tells its memory; 8 GiB are free."""
    files = {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {8 << 20} kB\n"} | files
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_without_groups_gives_what_it_has_available(tmp_path):
    assert free_memory(machine(tmp_path)) == 8 * GIB


def test_without_linux_files_the_memory_of_the_machine_is_asked_for(tmp_path):
    assert free_memory(tmp_path) > 0


def test_a_group_of_version_2_bounds_its_processes(tmp_path):
    group = "sys/fs/cgroup/job/step"
    root = machine(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/job/step\n",
            f"{group}/memory.max": "max\n",
            f"{group}/memory.current": str(GIB),
            "sys/fs/cgroup/job/memory.max": str(4 * GIB),
            "sys/fs/cgroup/job/memory.current": str(3 * GIB),
            "sys/fs/cgroup/job/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        },
    )

    assert free_memory(root) == 2 * GIB  # 4 less 3, and 1 of files that can give way


def test_a_group_of_version_1_bounds_its_processes_also_in_a_container(tmp_path):
    group = "sys/fs/cgroup/memory"
    root = machine(
        tmp_path,
        **{
            "proc/self/cgroup": "5:cpu:/\n4:hugetlb,memory:/docker/not_visible_here\n0::/\n",
            f"{group}/memory.limit_in_bytes": str(2 * GIB),
            f"{group}/memory.usage_in_bytes": str(GIB),
            f"{group}/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 2}\n",
        },
    )

    assert free_memory(root) == 3 * GIB // 2


def test_a_group_beyond_its_limit_has_nothing_free(tmp_path):
    root = machine(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "1000",
            "sys/fs/cgroup/memory.current": "2000",
        },
    )

    assert free_memory(root) == 0

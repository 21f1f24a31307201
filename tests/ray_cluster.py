"""A cluster of nodes that are processes of this machine, and the workers on them."""

import contextlib
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def running_cluster(nodes: int = 3) -> Iterator:
    """A cluster of so many nodes with a core each, the head among them."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def list_workers() -> list[psutil.Process]:
    """Returns the workers' processes that live: the cluster's nodes are children of this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::Actor") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found

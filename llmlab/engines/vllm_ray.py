"""vLLM's workers as actors of a Ray cluster whose nodes have no GPU, for somebody's own server:

    python -m vllm.entrypoints.openai.api_server --model NAME --tensor-parallel-size 2 \\
        --distributed-executor-backend llmlab.engines.vllm_ray.CpuRayExecutor

Ray knows GPUs, and vLLM's CPU platform has no name for what a worker takes instead: `--distributed-executor-backend
ray` ends with "current platform cpu does not support ray.". Here a worker takes one of RESOURCE, which the nodes are
started with: ray start --resources '{"vllm_worker": 1}'. deploy/ray/two_nodes.py does all of it on one machine.
On GPUs vLLM's own `ray` is right. Importing this file imports no vLLM and no Ray.
Source: vllm/v1/executor/ray_executor_v2.py, ray_utils.py initialize_ray_cluster (0.32).
"""

from __future__ import annotations

from typing import Any

from llmlab.engines.made_classes import found_in

RESOURCE = "vllm_worker"


def __getattr__(name: str) -> Any:
    """CpuRayExecutor, and CpuRayWorker, which its actors look up here."""
    if name not in ("CpuRayExecutor", "CpuRayWorker"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unittest.mock import patch

    import ray
    from vllm.platforms import current_platform
    from vllm.v1.executor import ray_executor_v2

    class CpuRayWorker(ray_executor_v2.RayWorkerProc):  # type: ignore[misc, unused-ignore]
        def get_node_and_physical_gpu_ids(self) -> tuple[str, list[int]]:
            return ray.get_runtime_context().get_node_id(), []

        def initialize_worker(self, *args: Any, **kw: Any) -> None:
            kw["assigned_physical_gpu_ids"] = None  # an empty list would be looked up
            super().initialize_worker(*args, **kw)

    class CpuRayExecutor(ray_executor_v2.RayExecutorV2):  # type: ignore[misc, unused-ignore]
        def _init_executor(self) -> None:
            type(current_platform).ray_device_key = RESOURCE
            with patch.object(ray_executor_v2, "RayWorkerProc", CpuRayWorker):
                super()._init_executor()

    found_in(globals(), CpuRayExecutor=CpuRayExecutor, CpuRayWorker=CpuRayWorker)
    return globals()[name]

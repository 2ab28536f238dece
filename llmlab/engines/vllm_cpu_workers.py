"""What a pipeline of vLLM lacks on a CPU (0.32): a worker for stages that do not compile.

A stage gets what the one before has computed in tensors that only a warm-up makes. An eager engine on a CPU has no
warm-up, and ends with "assert self.intermediate_tensors is not None". Our engine takes StageWorker by itself; a server
of your own by `--worker-cls llmlab.engines.vllm_cpu_workers.StageWorker`.

Importing this file imports no vLLM: the class is made when a worker process asks for it.
Source: vllm/v1/worker/gpu_model_runner.py _dummy_run, cpu_model_runner.py warming_up_model (0.32).
"""

from __future__ import annotations

from typing import Any

from llmlab.engines.made_classes import found_in


def __getattr__(name: str) -> Any:
    """StageWorker."""
    if name != "StageWorker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vllm.distributed.parallel_state import get_pp_group
    from vllm.v1.worker.cpu_worker import CPUWorker

    class StageWorker(CPUWorker):  # type: ignore[misc, unused-ignore]
        def load_model(self, *args: Any, **kw: Any) -> None:
            super().load_model(*args, **kw)
            runner: Any = self.model_runner
            if not get_pp_group().is_first_rank:
                runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
                    batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
                )

    found_in(globals(), StageWorker=StageWorker)
    return StageWorker

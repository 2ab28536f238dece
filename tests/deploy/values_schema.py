"""What the chart of Zero to JupyterHub takes, of the parts that deploy/helm/values.yaml uses.

Written after the chart's own values.schema.yaml (2026), which is in no package registry: helm checks against that one
when it installs. Here a name that the chart does not know is found without it.
"""

from __future__ import annotations

from typing import Any

NUMBER, TEXT, ANY = {"type": ["number", "null"]}, {"type": ["string", "null"]}, {"type": "object"}


def _closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


_NETWORK = _closed(
    enabled={"type": "boolean"},
    ingress={"type": "array"},
    egress={"type": "array"},
    egressAllowRules=ANY,
    interNamespaceAccessLabels={"enum": ["accept", "ignore"]},
    allowedIngressPorts={"type": "array"},
)
_HUB = _closed(
    config=ANY, extraConfig=ANY, extraFiles=ANY, extraEnv={"type": ["object", "array"]}, services=ANY, loadRoles=ANY,
    networkPolicy=_NETWORK, baseUrl={"type": "string"},
)  # fmt: skip
_SINGLEUSER = _closed(
    image=_closed(name={"type": "string"}, tag={"type": "string"}, pullPolicy=TEXT, pullSecrets={"type": "array"}),
    cmd={"type": ["array", "string", "null"]},
    defaultUrl=TEXT,
    uid={"type": ["integer", "null"]},
    fsGid={"type": ["integer", "null"]},
    cpu=_closed(limit=NUMBER, guarantee=NUMBER),
    memory=_closed(limit={"type": ["number", "string", "null"]}, guarantee={"type": ["number", "string", "null"]}),
    storage={
        **_closed(
            type={"enum": ["dynamic", "static", "none"]}, capacity=TEXT, homeMountPath=TEXT, dynamic=ANY, static=ANY,
            extraVolumes={"type": ["array", "object"]}, extraVolumeMounts={"type": ["array", "object"]},
        ),
        "required": ["type", "homeMountPath"],
    },
    extraEnv={"type": ["object", "array"]},
    startTimeout={"type": ["integer", "null"]},
    networkPolicy=_NETWORK,
    profileList={"type": "array"},
)  # fmt: skip
SCHEMA = _closed(
    hub=_HUB,
    singleuser=_SINGLEUSER,
    cull=_closed(
        enabled={"type": "boolean"}, users={"type": ["boolean", "null"]}, timeout={"type": ["integer", "null"]},
        every={"type": ["integer", "null"]}, concurrency={"type": ["integer", "null"]},
        maxAge={"type": ["integer", "null"]},
    ),
)  # fmt: skip

"""What oauth2-proxy takes in its file, of the options that deploy/oidc/oauth2-proxy.cfg uses and their neighbours.

Written after the options of version 7 (its `cfg` names; 2026), whose program is in no package registry: it refuses a
name that it does not know when it starts. Here such a name is found without it.
"""

from __future__ import annotations

from typing import Any

_TEXT, _FLAG = {"type": "string"}, {"type": "boolean"}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1}
_DURATION = {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h))+$"}
_URL = {"type": "string", "pattern": "^https?://[^/]+(/.*)?$"}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["provider", "oidc_issuer_url", "client_id", "redirect_url", "email_domains", "upstreams"],
    "properties": {
        **dict.fromkeys(
            ("client_id", "client_secret_file", "scope", "prompt", "oidc_email_claim", "user_id_claim"), _TEXT
        ),
        **dict.fromkeys(("http_address", "https_address", "tls_cert_file", "tls_key_file", "proxy_prefix"), _TEXT),
        **dict.fromkeys(("cookie_name", "cookie_path", "authenticated_emails_file"), _TEXT),
        **dict.fromkeys(("oidc_issuer_url", "redirect_url", "login_url", "redeem_url", "oidc_jwks_url"), _URL),
        **dict.fromkeys(("email_domains", "allowed_groups", "whitelist_domains", "skip_auth_routes"), _TEXTS),
        **dict.fromkeys(("cookie_domains", "oidc_extra_audiences", "api_routes"), _TEXTS),
        **dict.fromkeys(("cookie_expire", "cookie_refresh", "flush_interval", "upstream_timeout"), _DURATION),
        **dict.fromkeys(
            ("pass_authorization_header", "pass_access_token", "pass_basic_auth", "pass_user_headers"), _FLAG
        ),
        **dict.fromkeys(("pass_host_header", "skip_jwt_bearer_tokens", "skip_provider_button", "reverse_proxy"), _FLAG),
        **dict.fromkeys(("insecure_oidc_skip_nonce", "insecure_oidc_allow_unverified_email", "cookie_secure"), _FLAG),
        "upstreams": {"type": "array", "items": _URL, "minItems": 1},
        "provider": {"enum": ["oidc", "keycloak-oidc", "entra-id", "google", "gitlab", "github"]},
        "code_challenge_method": {"enum": ["S256", "plain"]},
        "cookie_samesite": {"enum": ["lax", "strict", "none", ""]},
    },
}

"""Lines for the end of your jupyterhub_config.py: llmlab's class as a service that JupyterHub starts.

A student is a user of the Hub. In each notebook server are then LLMLAB_CLASS_URL and LLMLAB_CLASS_KEY, and

    %llm class

joins: the class's engine answers, and the batch that all share is shown. docs/classroom.md says more.
"""

# ruff: noqa: F821

MODEL, ENGINE = "smollm2-135m", "llamacpp"
NAME, PORT = "llmlab-class", 10101
# names and tokens of the class; the lecturer's token is in lecturer.token there
FOLDER = "/srv/llmlab/class"
# users of the Hub who see everybody's requests, beside its admins
LECTURERS = "ann"

URL = f"http://127.0.0.1:{PORT}"
SCOPE = f"access:services!service={NAME}"

c = get_config()
c.JupyterHub.services.append(
    {
        "name": NAME,
        "url": URL,
        "command": [
            "llmlab", "class", MODEL, "-e", ENGINE, "--hub", "--folder", FOLDER, "--lecturers", LECTURERS,
            "--tokens-per-minute", "4000",
        ],
    }
)  # fmt: skip
# Every user may use it, and so may the token that is in each notebook server.
c.JupyterHub.load_roles.append({"name": "user", "scopes": ["self", SCOPE]})
c.JupyterHub.load_roles.append({"name": "server", "scopes": ["users:activity!user", "access:servers!server", SCOPE]})
# Notebook servers on other machines: the address of the Hub, with /services/llmlab-class behind it.
c.Spawner.environment.update({"LLMLAB_CLASS_URL": URL, "LLMLAB_CLASS_KEY": lambda spawner: spawner.api_token})

"""JupyterHub of compose.yaml: a container for each student. The class is a service of the Hub: class.py has its lines.

One password for all lets anybody be anybody: it is for a room. For a course put your university's login here
(https://oauthenticator.readthedocs.io).
"""

# ruff: noqa: F821

import os

c = get_config()
c.JupyterHub.bind_url = "http://:8000"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = "jupyterhub"
c.JupyterHub.db_url = "sqlite:////srv/llmlab/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "/srv/llmlab/cookie_secret"

c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = os.environ["HUB_PASSWORD"]
c.SharedPasswordAuthenticator.admin_password = os.environ["HUB_ADMIN_PASSWORD"]
c.Authenticator.admin_users = {"ann"}
c.Authenticator.allow_all = True

c.JupyterHub.spawner_class = "docker"
c.DockerSpawner.image = "llmlab:local"
c.DockerSpawner.cmd = ["jupyterhub-singleuser"]
c.DockerSpawner.network_name = "llmlab-students"
c.DockerSpawner.remove = True
c.DockerSpawner.notebook_dir = "/home/llmlab/work"
c.DockerSpawner.volumes = {"llmlab-work-{username}": "/home/llmlab/work"}
c.DockerSpawner.mem_limit, c.DockerSpawner.cpu_limit = "2G", 1

load_subconfig("/etc/jupyterhub/class.py")
# from their containers, the class is where the Hub is
c.Spawner.environment.update({"LLMLAB_CLASS_URL": "http://jupyterhub:8000/services/llmlab-class"})

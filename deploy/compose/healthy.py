#!/usr/bin/env python
"""healthy URL VARIABLE: whether a server of llmlab is. VARIABLE is the environment variable that holds a token of it.

For the health checks of containers: their HTTP probes know no secrets. Standard library only.
"""

import os
import sys
import urllib.request

url, variable = sys.argv[1:]
asked = urllib.request.Request(f"{url}/health", headers={"Authorization": f"Bearer {os.environ[variable].strip()}"})
try:
    urllib.request.urlopen(asked, timeout=5)
except OSError as error:
    sys.exit(f"{url}: {error}")

"""The roles that samples know besides the processes of a batch (`runner`, `server`, `worker`): whole nodes."""

from __future__ import annotations

NODE = "node"
CLIENT_NODE = "client-node"
"""The node of a worker that runs apart from its runner (`sampling.companion`)."""

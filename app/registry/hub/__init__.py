"""The door to the Hugging Face hub: what a repo holds, what of it is on disk, and downloads as jobs.

Nothing outside this package imports huggingface_hub. Use :class:`Hub`; the rest is what its methods hand out.
"""

from app.registry.hub.cache import Installed
from app.registry.hub.download import Download
from app.registry.hub.files import RepoFile, RepoInfo
from app.registry.hub.hub import Hub
from app.registry.hub.policy import Policy
from app.registry.hub.progress import FileProgress, Progress, State
from app.registry.hub.search import Found
from app.registry.hub.weights import Tensor, tensors_of, weight_bytes, weights

__all__ = [
    "Download",
    "FileProgress",
    "Found",
    "Hub",
    "Installed",
    "Policy",
    "Progress",
    "RepoFile",
    "RepoInfo",
    "State",
    "Tensor",
    "tensors_of",
    "weight_bytes",
    "weights",
]

"""All peers. A new one: one file that gives a Peer, one line in PEERS, one row in its test table."""

from deploy.peers.layer_gaussians import MAHALANOBIS, MAHALANOBIS_SUM
from deploy.peers.local_dimension import LID
from deploy.peers.peer import Peer
from deploy.peers.pytorch_ood import OOD_ENERGY, OOD_SOFTMAX
from deploy.peers.spectral import SPECTRAL
from deploy.peers.squeezing import SQUEEZING
from deploy.peers.toolbox import BINARY_ACTIVATION, BINARY_INPUT, SUBSET_SCANNING

__all__ = ["PEERS"]

PEERS: tuple[Peer, ...] = (
    BINARY_INPUT,
    BINARY_ACTIVATION,
    SUBSET_SCANNING,
    MAHALANOBIS,
    MAHALANOBIS_SUM,
    SPECTRAL,
    LID,
    SQUEEZING,
    OOD_ENERGY,
    OOD_SOFTMAX,
)
